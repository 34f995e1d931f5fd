# SPDX-License-Identifier: MIT
"""
The handshake: time, CPU and bytes of real daemons that connect anew, beside a classical TLS 1.3
handshake (mutual, X25519, ECDSA P-256) of the system's OpenSSL, both ends in this process.
"""

import os
import shutil
import ssl
import subprocess
import tempfile
import time

from pair import Pair, say, spread

FIELDS = ("handshake_us", "handshake_work_us", "handshake_bytes_in", "handshake_bytes_out")


class Classical:
    """TLS as most of the web speaks it, over memory: no network in it, only work and bytes."""

    def __init__(self):
        self.contexts = None
        if not shutil.which("openssl"):
            return
        with tempfile.TemporaryDirectory() as folder:
            cert, key = os.path.join(folder, "cert"), os.path.join(folder, "key")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-subj",
                            "/CN=node", "-addext", "subjectAltName=DNS:node"],
                           check=True, capture_output=True)
            self.contexts = [self.context(side, cert, key)
                             for side in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]

    @staticmethod
    def context(side, cert, key):
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(cert, key)
        context.load_verify_locations(cert)
        if side == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        return context

    def run(self):
        """Work of both ends in microseconds and bytes each way; None without openssl."""
        if not self.contexts:
            return None
        into = [ssl.MemoryBIO(), ssl.MemoryBIO()]
        ends = [self.contexts[0].wrap_bio(into[0], into[1], server_hostname="node"),
                self.contexts[1].wrap_bio(into[1], into[0], server_side=True)]
        pending, sent, work = [True, True], [0, 0], [0.0, 0.0]
        while any(pending):
            for i in (0, 1):
                before, begin = into[1 - i].pending, time.perf_counter()
                try:
                    ends[i].do_handshake()
                    pending[i] = False
                except ssl.SSLWantReadError:
                    pass
                work[i] += time.perf_counter() - begin
                sent[i] += into[1 - i].pending - before
        return {"client_work_us": work[0] * 1e6, "server_work_us": work[1] * 1e6,
                "client_bytes_out": sent[0], "server_bytes_out": sent[1]}


def tcp_connect_us(pair):
    """TCP alone, from alice's machine to bob's control port."""
    sock = pair.alice.socket(2, 1)
    begin = time.perf_counter()
    sock.connect((pair.bob.machine.ip4, 8443))
    elapsed = time.perf_counter() - begin
    sock.close()
    return elapsed * 1e6


def measure(reconnects):
    samples = {side: {field: [] for field in FIELDS} for side in ("client", "server")}
    connects, classical = [], []
    reference = Classical()
    with Pair() as pair:
        pair.start()
        for i in range(reconnects):
            if i % 5 == 0:
                say(f"handshake: {i} of {reconnects}")
            pair.alice.stop()
            pair.bob.stop()
            pair.start()
            sessions = [pair.alice.peer("bob")["session"], pair.bob.peer("alice")["session"]]
            for session in sessions:
                for field in FIELDS:
                    samples[session["role"]][field].append(session[field])
            connects.append(tcp_connect_us(pair))
            once = reference.run()
            if once:
                classical.append(once)
        result = {"group": sessions[0]["group"], "signature": sessions[0]["signature"],
                  "cipher": sessions[0]["cipher"]}
    for side, fields in samples.items():
        result[side] = {field: spread(values) for field, values in fields.items()}
    result["tcp_connect_us"] = spread(connects)
    result["tcp_and_tls_us"] = spread(
        [a + b for a, b in zip(connects, samples["client"]["handshake_us"])])
    result["reference"] = {field: spread([one[field] for one in classical])
                           for field in (classical[0] if classical else {})}
    return result
