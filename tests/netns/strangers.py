# SPDX-License-Identifier: MIT
"""
Those who should not get in: certificates that `shadowmesh ca` would never make, the openssl program as
either end of a control connection, members that send what they please; and a watch over a third
party whom none of that may disturb.

OPENSSL (the variable SM_OPENSSL; scripts/setup-openssl.sh names it) is 3.5 or newer: it speaks ML-DSA.
"""

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time

from lab import CONTROL_PORT, SANITIZED, SLOW, Authority, Daemon, checksum, idents, now, sh, wait_for

OPENSSL = os.environ.get("SM_OPENSSL") or "openssl"
GROUP = "SecP384r1MLKEM1024"
ALPN = "shadowmesh/1"

# shadowmesh's control messages, from docs/PROTOCOL.md
HELLO, READY, ENDPOINTS, OBSERVED, PING, PONG = 0x8001, 0x8002, 0x0003, 0x0004, 0x0005, 0x0006
REKEY_REQUEST, REKEY_REPLY, REKEY_WANTED, CLOSE = 0x8007, 0x8008, 0x0009, 0x800A
CLOSE_REASONS = {3: "superseded", 4: "protocol", 5: "version", 6: "mode", 7: "cipher", 9: "revoked",
                 10: "expired", 12: "self", 13: "timeout"}


# --- certificates by openssl ---


class Forge:
    """A folder of keys and certificates for one network."""

    def __init__(self, folder, authority=None):
        self.folder = folder
        self.authority = authority or Authority.get()
        self.ca = self.authority.certificate, os.path.join(self.authority.folder, "ca.key")
        text = sh(OPENSSL, "x509", "-in", self.ca[0], "-noout", "-ext", "subjectAltName")
        self.network_id = re.search(r"shadowmesh://([0-9a-f]{32})", text)[1]

    def path(self, name):
        return os.path.join(self.folder, name)

    def key(self, name, algorithm):
        path = self.path(name + ".key")
        options = {"EC": ["-pkeyopt", "ec_paramgen_curve:P-384"],
                   "RSA": ["-pkeyopt", "rsa_keygen_bits:2048"]}.get(algorithm, [])
        sh(OPENSSL, "genpkey", "-algorithm", algorithm, *options, "-out", path)
        return path

    def make_authority(self, name, algorithm="ML-DSA-87"):
        """(certificate, key) of a CA that says it is this network's"""
        key, config, path = self.key(name,
                                     algorithm), self.path(name + ".cnf"), self.path(name + ".pem")
        with open(config, "w") as file:
            file.write("[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n"
                       f"[dn]\nCN = {self.authority.network}\n[ext]\n"
                       "basicConstraints = critical, CA:TRUE, pathlen:0\n"
                       "keyUsage = critical, keyCertSign, cRLSign\n"
                       f"subjectAltName = URI:shadowmesh://{self.network_id}\n")
        sh(OPENSSL, "req", "-x509", "-new", "-key", key, "-config", config, "-days", "30", "-out",
           path)
        return path, key

    def make(self, name, ca=None, algorithm="ML-DSA-87", network_id=None, san=None,
             usages="serverAuth, clientAuth", begin=-3600, end=86400, basic="CA:FALSE"):
        """(certificate, key) of a node; begin and end in seconds from now"""
        ca = ca or self.ca
        key, path = self.key(name, algorithm), self.path(name + ".pem")
        request, extensions = self.path(name + ".csr"), self.path(name + ".ext")
        san = san or f"URI:shadowmesh://{network_id or self.network_id}/{name}"
        sh(OPENSSL, "req", "-new", "-key", key, "-subj", "/CN=" + name, "-out", request)
        with open(extensions, "w") as file:
            file.write(f"basicConstraints = critical, {basic}\nkeyUsage = critical, digitalSignature\n"
                       f"subjectAltName = {san}\n"
                       + (f"extendedKeyUsage = {usages}\n" if usages else ""))
        dates = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + at)) for at in (begin,
                                                                                          end)]
        sh(OPENSSL, "x509", "-req", "-in", request, "-CA", ca[0], "-CAkey", ca[1], "-extfile",
           extensions,
           "-not_before", dates[0], "-not_after", dates[1], "-out", path)
        return path, key


# --- the openssl program on the line ---


class Openssl:
    """s_client or s_server; with stdin and stdout of raw bytes if quiet."""

    def __init__(self, machine, arguments, certificate=None, groups=GROUP, alpn=ALPN,
                 version="-tls1_3",
                 quiet=False):
        arguments = [*arguments, version]
        if certificate:
            arguments += ["-cert", certificate[0], "-key", certificate[1]]
        if groups:
            arguments += ["-groups", groups]
        if alpn:
            arguments += ["-alpn", alpn]
        if quiet:
            arguments += ["-quiet"]
        self.errors = tempfile.TemporaryFile()
        self.process = machine.popen(OPENSSL, *arguments, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=self.errors, bufsize=0)
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.errors.close()

    def read(self, timeout):
        """More of what it prints; False at the end."""
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            return True
        more = os.read(self.process.stdout.fileno(), 65536)
        self.received += more
        return bool(more)

    def read_all(self, timeout=10):
        """All that it prints until it ends by itself."""
        end = now() + timeout * SLOW
        while self.read(0.1):
            assert now() < end, f"openssl did not end; it said {self.received!r}"
        self.process.wait()
        self.errors.seek(0)
        return self.received.decode(errors="replace") + self.errors.read().decode(errors="replace")

    def send(self, data):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)


def s_client(machine, to, *options, **more):
    return Openssl(machine, ["s_client", "-connect", f"{to}:{CONTROL_PORT}", *options], **more)


def s_server(machine, certificate, *options, **more):
    """Listens at the control port when this returns."""
    server = Openssl(machine, ["s_server", "-accept", str(CONTROL_PORT), "-Verify", "1", *options],
                     certificate=certificate, **more)
    wait_listening(machine)
    return server


def wait_listening(machine, port=CONTROL_PORT):
    wait_for(lambda: re.search(rf":{port:04X} 0+:0000 0A",
                               machine.sh("cat", "/proc/net/tcp", "/proc/net/tcp6")),
             what="a listener")


def client_hello(machine):
    """The first bytes that an honest client would send."""
    with machine.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        with Openssl(machine, ["s_client", "-connect", to]):
            conn, _ = listener.accept()
            conn.settimeout(10 * SLOW)
            data = b""
            with conn:
                while len(data) < 5 or len(data) < 5 + struct.unpack("!H", data[3:5])[0]:
                    data += conn.recv(65536)
    return data


# --- control messages ---


def message(kind, value=b""):
    return struct.pack("!HH", kind, len(value)) + value


def hello(version=1, mode=1, ciphers=1, preferred=0, workers=1, data_port=9443, control_port=0,
          mtu=1400, session=0x01020304, instance=7, features=0, more=b""):
    return message(HELLO,
                   struct.pack("!HBBBBHHHIQQ", version, mode, ciphers, preferred, workers,
                               data_port,
                                      control_port, mtu, session, instance, features) + more)


class Member(Openssl):
    """With a certificate of the network, and a mind of its own. As server: listens, is dialled."""

    def __init__(self, machine, to, certificate):
        if to is None:
            arguments = ["s_server", "-accept", str(CONTROL_PORT), "-Verify", "1", "-naccept", "1"]
        else:
            arguments = ["s_client", "-connect", f"{to}:{CONTROL_PORT}"]
        super().__init__(machine, arguments, certificate=certificate, quiet=True)
        if to is None:
            wait_listening(machine)
        self.messages = []

    def expect(self, kind, timeout=5):
        """Waits for a message of that kind; gives its value."""
        end = now() + timeout * SLOW
        while True:
            for one, value in self.take():
                self.messages.append((one, value))
                if one == kind:
                    return value
            seen = [f"{one:#06x}" for one, _ in self.messages]
            assert now() < end, f"no {kind:#06x} among {seen}"
            assert self.read(0.1) or self.complete(), f"it ended before {kind:#06x}; came {seen}"

    def complete(self):
        return len(self.received) >= 4 and len(self.received) >= 4 + struct.unpack_from(
            "!H", self.received, 2)[0]

    def take(self):
        while self.complete():
            kind, length = struct.unpack_from("!HH", self.received)
            value, self.received = self.received[4:4 + length], self.received[4 + length:]
            yield kind, value

    def expect_close(self, timeout=5):
        """(name of the reason, text) of CLOSE"""
        value = self.expect(CLOSE, timeout)
        return CLOSE_REASONS.get(struct.unpack_from("!H", value)[0]), value[2:].decode()

    def join(self):
        """HELLO and READY both ways: a session carries data."""
        self.expect(HELLO)
        self.send(hello())
        self.expect(READY)
        self.send(message(READY))


# --- who must not be disturbed ---


class Watch:
    """Pings from one daemon's interface to another's address, hundred a second, until the end."""

    def __init__(self, side, address):
        self.sock = side.machine.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP,
                                        timeout=0.2)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.address = address
        self.ident = next(idents) & 0xFFFF
        self.sent = 0
        self.missing = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.send,
                                                                              self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self):
        while not self.stopping.wait(0.01):
            with self.lock:
                number = self.sent = self.sent + 1
                self.missing.add(number)
            body = struct.pack("!HHI", self.ident, number & 0xFFFF, number)
            with contextlib.suppress(OSError):
                self.sock.sendto(struct.pack("!BBH", 8, 0, checksum(b"\x08\0" + body)) + body,
                                 (self.address, 0))

    def receive(self):
        while not self.stopping.is_set():
            try:
                data = self.sock.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            at = 4 * (data[0] & 15)
            if data[at] != 0 or struct.unpack_from("!H", data, at + 4)[0] != self.ident:
                continue
            with self.lock:
                self.missing.discard(struct.unpack_from("!I", data, at + 8)[0])

    def check(self):
        """Every ping that was sent so far has been or is yet answered."""
        with self.lock:
            until = self.sent

        def answered():
            with self.lock:
                return not any(number <= until for number in self.missing)

        try:
            wait_for(answered, 2, "pings")
        except AssertionError:
            with self.lock:
                lost = sorted(number for number in self.missing if number <= until)
            raise AssertionError(f"the third peer lost {len(lost)} of {until} pings: {lost[:20]}") from None

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.sock.close()


class House:
    """alice, who is attacked; bob, who is her peer and must not notice; mallory's machine beside them."""

    def __init__(self, lab, folder, sections=None, each=None, authority=None, growth=48 << 20):
        self.lab = lab
        self.authority = authority or Authority.get()
        self.alice, self.bob = lab.mesh("alice", "bob", sections=sections, each=each,
                                        authority=self.authority)
        self.mallory, = lab.internet("mallory")
        self.forge = Forge(folder, self.authority)
        self.watch = Watch(self.alice, self.bob.ip4)
        self.growth = 1 << 30 if SANITIZED else growth  # a sanitizer keeps what is freed
        self.rss = self.alice.status()["memory_rss_bytes"]
        self.session = self.alice.peer("bob")["session"]["index"]

    def check(self):
        """What must hold after every attack."""
        self.watch.check()
        peer = self.alice.peer("bob")
        assert peer["state"] == "up" and peer["session"]["index"] == self.session, peer
        rss = self.alice.status()["memory_rss_bytes"]
        assert rss < self.rss + self.growth, f"memory grew from {self.rss} to {rss}"

    def send_home(self):
        """Ends the daemons that a test left."""
        for daemon in self.lab.daemons:
            if daemon not in (self.alice, self.bob) and daemon.running():
                daemon.stop()

    def close(self):
        self.watch.stop()
        self.lab.close()

    def daemon(self, name, certificate=None, sections=None, machine=None, peers=("alice",),
               **options):
        """One of ours on mallory's machine; certificate: (certificate, key), or else as `ca issue` makes it"""
        machine = machine or self.mallory
        if certificate is None:
            return self.lab.daemon(machine, name, sections=sections, peers=peers,
                                   authority=self.authority, **options)
        sections = {"Network": {"CA": self.authority.certificate},
                    "Node": {"Certificate": certificate[0], "PrivateKey": certificate[1]},
                    **(sections or {})}
        return Daemon(self.lab, machine, name, sections=sections,
                      peers=map(self.lab.peer_section, peers))

    @contextlib.contextmanager
    def dialling(self, name, daemon=None, machine=None, port=CONTROL_PORT):
        """alice (or another) looks for that name on mallory's machine (or another)."""
        daemon = daemon or self.alice
        before = list(daemon.peers_conf)
        daemon.peers_conf.append({"Name": name,
                                  "Endpoint": self.lab.endpoint(machine or self.mallory, port)})
        daemon.write_config()
        daemon.ask("reload")
        try:
            yield
        finally:
            daemon.peers_conf[:] = before
            daemon.write_config()
            daemon.ask("reload")

    def counter(self, *names, daemon=None):
        """control.NAME.NAME of the status, 0 if it is not there"""
        value = (daemon or self.alice).status()["control"]
        for name in names:
            value = value.get(name, 0) if isinstance(value, dict) else 0
        return value

    @contextlib.contextmanager
    def counts(self, *names, daemon=None):
        """That counter goes up meanwhile."""
        before = self.counter(*names, daemon=daemon)
        yield
        wait_for(lambda: self.counter(*names, daemon=daemon) > before, 5,
                 f"counter {'.'.join(names)} to rise")
