# SPDX-License-Identifier: MIT
"""
A second implementation of the protocol, small and slow, from docs/PROTOCOL.md alone (tests/scripts/paper.py):
TLS and all other cryptography by the openssl program, the rest in Python. Either side of a connection, one
peer, no timers: a test moves it on.
"""

import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
import paper  # noqa: E402
from lab import CONTROL_PORT, DATA_PORT, sh, wait_for  # noqa: E402
from paper import FRAME, PART, PROBE, STREAM, message  # noqa: E402
from strangers import (GROUP, HELLO, OPENSSL, READY, REKEY_REPLY, REKEY_REQUEST, Member, Openssl,  # noqa: E402
                       wait_listening)

SEGMENT, DATA_MAX = 1024, 65507
PIECE = 1300  # bytes of a part, so that it fits any path
INDEX = 0x5ec0de01
INSTANCE = 0x0123456789abcdef


def spki(certificate):
    pem = sh(OPENSSL, "x509", "-in", certificate, "-noout", "-pubkey")
    return subprocess.run([OPENSSL, "pkey", "-pubin", "-outform", "DER"], input=pem.encode(),
                          capture_output=True, check=True).stdout


class Kem:
    """SecP384r1MLKEM1024 from its two halves; either the one who asks or the one who answers"""

    POINT, SHARED = 97, 32

    def __init__(self, folder):
        self.folder = folder
        self.curve, self.lattice = os.path.join(folder, "ec.pem"), os.path.join(folder, "mlkem.pem")
        sh(OPENSSL, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", self.curve)
        self.curve_der = self.public(self.curve)

    @staticmethod
    def public(key):
        return subprocess.run([OPENSSL, "pkey", "-in", key, "-pubout", "-outform", "DER"],
                              capture_output=True, check=True).stdout

    def write(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def read(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def agree(self, point):
        """x coordinate of the shared point"""
        peer = self.write("peer.der", self.curve_der[:-self.POINT] + point)
        return subprocess.run([OPENSSL, "pkeyutl", "-derive", "-inkey", self.curve, "-peerform", "DER",
                               "-peerkey", peer], capture_output=True, check=True).stdout

    def ask(self):
        """The public key of REQUEST"""
        sh(OPENSSL, "genpkey", "-algorithm", "ML-KEM-1024", "-out", self.lattice)
        return self.curve_der[-self.POINT:] + self.public(self.lattice)[-1568:]

    def finish(self, answer):
        """The secret, from REPLY's ciphertext"""
        cipher = self.write("cipher", answer[self.POINT:])
        sh(OPENSSL, "pkeyutl", "-decap", "-inkey", self.lattice, "-in", cipher, "-secret",
           os.path.join(self.folder, "secret"))
        return self.agree(answer[:self.POINT]) + self.read("secret")

    def answer(self, public):
        """(ciphertext of REPLY, secret)"""
        sh(OPENSSL, "genpkey", "-algorithm", "ML-KEM-1024", "-out", self.lattice)
        head = self.public(self.lattice)[:-1568]
        key = self.write("lattice.der", head + public[self.POINT:])
        sh(OPENSSL, "pkeyutl", "-encap", "-pubin", "-keyform", "DER", "-inkey", key, "-out",
           os.path.join(self.folder, "cipher"), "-secret", os.path.join(self.folder, "secret"))
        return (self.curve_der[-self.POINT:] + self.read("cipher"),
                self.agree(public[:self.POINT]) + self.read("secret"))


class Epoch:
    """Both directions; lanes are made when they are needed."""

    def __init__(self, secret, number, suite, client):
        self.secret, self.number, self.suite = secret, number, suite
        self.ways = (0, 1) if client else (1, 0)  # out, in
        self.lanes, self.sent, self.seen = {}, {}, set()

    def lane(self, way, number):
        known = way, number
        if known not in self.lanes:
            self.lanes[known] = paper.Lane(self.secret, way, self.suite, self.number, number)
        return self.lanes[known]

    def seal(self, session, lane, body, kind):
        number = self.sent.get(lane, 0)
        self.sent[lane] = number + 1
        return self.lane(self.ways[0], lane).seal(session, number, body + bytes([kind]))

    def open(self, datagram):
        """(lane, packet number, body, kind); asserts that it is authentic and new"""
        lane = datagram[2]
        found = self.lane(self.ways[1], lane).open(datagram)
        assert found, "a packet that does not verify"
        number, content = found
        assert (lane, number) not in self.seen, "a packet number twice"
        self.seen.add((lane, number))
        return lane, number, content[:-1], content[-1]


class Second(Member):
    """One node of that kind. As server it listens and is dialled. theirs: the peer's certificate"""

    def __init__(self, machine, peer_ip, certificate, theirs, name, network, suite, client):
        self.folder = tempfile.mkdtemp(prefix="second-")
        self.keylog = os.path.join(self.folder, "keys")
        self.client, self.suite, self.network, self.peer_ip = client, suite, network, peer_ip
        self.ip = machine.ip4
        self.node = paper.node_id(network, name.encode())
        self.mac = paper.mac_of(self.node)
        self.spki = [spki(certificate[0]), spki(theirs)]
        self.udp = machine.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=0.2)
        self.udp.bind((machine.ip4, DATA_PORT))
        how = ["s_client", "-connect", f"{peer_ip}:{CONTROL_PORT}"] if client else [
            "s_server", "-accept", str(CONTROL_PORT), "-Verify", "1", "-naccept", "1"]
        Openssl.__init__(self, machine, [*how, "-keylogfile", self.keylog], certificate=certificate,
                         groups=GROUP, quiet=True)
        if not client:
            wait_listening(machine)
        self.messages, self.frames, self.answers, self.parts = [], [], {}, {}
        self.stream_in, self.stream_next, self.stream_sent, self.stream_acked = b"", 0, 0, 0
        self.epochs = {}

    def close(self):
        self.end()
        self.udp.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # "Control channel", "Key schedule"

    def root(self):
        """TLS-Exporter (RFC 8446, 7.5) from the exporter's secret that openssl writes down"""
        with open(self.keylog) as file:
            secret = bytes.fromhex(re.search(r"^EXPORTER_SECRET \S+ (\S+)", file.read(), re.M)[1])
        client, server = self.spki if self.client else self.spki[::-1]
        context = self.network + hashlib.sha384(client).digest() + hashlib.sha384(server).digest()
        derived = paper.expand_label(secret, b"EXPORTER-shadowmesh/1 session", hashlib.sha384(b"").digest(), 48)
        return paper.expand_label(derived, b"exporter", hashlib.sha384(context).digest(), 48)

    def greet(self):
        """HELLO and READY both ways"""
        mode, ports, mtu, features = 1, (DATA_PORT, 0 if self.client else CONTROL_PORT), 1500, 1
        self.send(message(HELLO, struct.pack(">HBBBBHHHIQQ", 1, mode, 1 << self.suite, self.suite, 1, *ports, mtu,
                                             INDEX, INSTANCE, features)))
        theirs = self.expect(HELLO, 10)
        fields = struct.unpack_from(">HBBBBHHHIQQ", theirs)
        assert fields[:2] == (1, mode) and fields[2] >> self.suite & 1 and fields[10] & 1
        self.session, self.remote = fields[8], (self.peer_ip, fields[5])
        self.epochs[0] = Epoch(paper.first_secret(self.root()), 0, self.suite, self.client)
        self.current = self.epochs[0]
        self.send(message(READY))
        assert self.expect(READY, 10) == b""

    # "Data packets"

    def put(self, lane, body, kind, to=None):
        self.udp.sendto(self.current.seal(self.session, lane, body, kind), to or self.remote)

    def step(self):
        """Takes one datagram, if one comes"""
        try:
            data, source = self.udp.recvfrom(DATA_MAX)
        except TimeoutError:
            return
        kind, epoch, lane, reserved, session = struct.unpack_from(">BBBBI", data)
        assert (kind, reserved, session) == (0x80, 0, INDEX) and epoch in self.epochs and lane <= 16
        lane, number, body, kind = self.epochs[epoch].open(data)
        assert (lane == 0) == (kind in (STREAM, PROBE))
        if kind == PROBE:
            self.on_probe(body, source)
        elif kind == STREAM:
            self.on_segment(body)
        elif kind == PART:
            self.on_part(epoch, lane, number, body)
        else:
            assert kind == FRAME
            self.frames.append(body)

    def until(self, condition, what, timeout=5):
        wait_for(lambda: condition() or self.step(), timeout, what, interval=0)

    # "Paths"

    def on_probe(self, body, source):
        op, token = struct.unpack_from(">BQ", body)
        if op == 0:
            answer = struct.pack(">BQ", 1, token) + paper.address(*source[:2])
            assert len(body) >= len(answer) and not any(body[9:])
            self.put(0, answer, PROBE, source)
        else:
            self.answers[token] = body[9:].rstrip(b"\0")

    def probe(self):
        """Asks, and gives what the answer says it saw"""
        token = int.from_bytes(os.urandom(8), "big") | 1
        self.put(0, struct.pack(">BQ", 0, token).ljust(28, b"\0"), PROBE)
        self.until(lambda: token in self.answers, "an answer to a probe")
        return self.answers.pop(token)

    # "Parts"

    def put_frame(self, frame):
        if len(frame) <= PIECE:
            self.put(1, frame, FRAME)
            return
        count = -(-len(frame) // PIECE)
        length = -(-len(frame) // count)
        for i in range(count):
            self.put(1, frame[i * length:(i + 1) * length] + struct.pack(">BBH", i, count, 0), PART)

    def on_part(self, epoch, lane, number, body):
        index, count, reserved = struct.unpack(">BBH", body[-4:])
        assert 2 <= count <= 64 and index < count and not reserved
        pieces = self.parts.setdefault((epoch, lane, number - index, count), {})
        pieces[index] = body[:-4]
        if len(pieces) == count:
            self.frames.append(b"".join(pieces[i] for i in range(count)))

    # "Control stream"

    def put_stream(self, data):
        for at in range(0, len(data), SEGMENT):
            part = data[at:at + SEGMENT]
            self.put(0, struct.pack(">II", self.stream_sent % 2 ** 32, self.stream_next % 2 ** 32) + part, STREAM)
            self.stream_sent += len(part)

    def on_segment(self, body):
        offset, acked = struct.unpack_from(">II", body)
        data = body[8:]
        assert acked <= self.stream_sent
        self.stream_acked = max(self.stream_acked, acked)
        if not data:
            return
        skip = self.stream_next - offset
        if 0 <= skip < len(data):
            self.stream_in += data[skip:]
            self.stream_next += len(data) - skip
        self.put(0, struct.pack(">II", self.stream_sent % 2 ** 32, self.stream_next % 2 ** 32), STREAM)

    def take_stream(self):
        """[(type, value)] that came whole"""
        found = []
        while len(self.stream_in) >= 4:
            kind, length = struct.unpack_from(">HH", self.stream_in)
            if len(self.stream_in) < 4 + length:
                break
            found.append((kind, self.stream_in[4:4 + length]))
            self.stream_in = self.stream_in[4 + length:]
        return found

    # "Rekeying"

    def begin(self, secret, request, reply, number):
        fresh = paper.next_secret(self.current.secret, secret, request, reply)
        self.epochs[number] = Epoch(fresh, number, self.suite, self.client)
        return self.epochs[number]

    def rekey_as_client(self):
        """Asks over TLS, and goes over"""
        number, kem = self.current.number + 1, Kem(self.folder)
        request = message(REKEY_REQUEST, struct.pack(">I", number) + kem.ask())
        self.send(request)
        value = self.expect(REKEY_REPLY)
        assert struct.unpack_from(">I", value)[0] == number
        self.current = self.begin(kem.finish(value[4:]), request, message(REKEY_REPLY, value), number)

    def rekey_as_server(self, wait=10):
        """Waits for REQUEST, answers, and goes over when something came"""
        value = self.expect(REKEY_REQUEST, wait)
        number = struct.unpack_from(">I", value)[0]
        assert number == self.current.number + 1
        cipher, secret = Kem(self.folder).answer(value[4:])
        reply = struct.pack(">I", number) + cipher
        fresh = self.begin(secret, message(REKEY_REQUEST, value), message(REKEY_REPLY, reply), number)
        self.send(message(REKEY_REPLY, reply))
        self.until(lambda: fresh.seen, "a packet of the new epoch")
        self.current = fresh

    def wait_message(self, kind, timeout=5):
        """In the stream"""
        got = []
        self.until(lambda: got.extend(self.take_stream()) or any(one == kind for one, _ in got),
                   f"message {kind:#06x} in the stream", timeout)
        return next(value for one, value in got if one == kind)
