# SPDX-License-Identifier: MIT
"""
Who is refused, what both sides say about it, and that nobody else notices.

    alice <== pings, hundred a second ==> bob            mallory: strangers, our daemons with odd
      ^                                                  certificates, the openssl program, members
      +------------------ TCP 8443 ---------------------- that misbehave, raw sockets

After every test: no ping between alice and bob was lost, their session is the same, alice's memory
has not grown.
"""

import contextlib
import os
import random
import re
import socket
import struct
import threading
import time

import pytest

from lab import CONTROL_PORT, SHADOWMESH, SLOW, Authority, Daemon, Lab, fingerprint, now, ping, sh, wait_for
from strangers import (ENDPOINTS, HELLO, PING, PONG, READY, REKEY_REPLY, REKEY_REQUEST,
                       REKEY_WANTED,
                       House, Member, client_hello, hello, message, s_client, s_server)

REFUSED_AGAIN = 3.75  # s: after a refusal nobody asks again sooner (5 s less a quarter)
LIMITED = "(warn |debug)"  # as warning while the rate limit allows, else for who debugs


@pytest.fixture(scope="module")
def whole_house(tmp_path_factory):
    made = House(Lab(), str(tmp_path_factory.mktemp("forge")))
    yield made
    made.close()


# --- certificates: openssl shows them to alice, as client and as server ---

CERTIFICATES = {
    # how it is made, reason, what alice logs
    "foreign": (dict(ca="foreign"), "not-trusted",
                "the certificate of '{name}' is not signed by a CA of this network"),
    "ecdsa-ca": (dict(ca="EC"), "not-trusted",
                 "the certificate of '{name}' is signed with ecdsa-with-SHA[0-9]+, not ML-DSA-87: a classical CA"),
    "rsa-ca": (dict(ca="RSA"), "not-trusted",
               "the certificate of '{name}' is signed with sha256WithRSAEncryption, not ML-DSA-87: a classical CA"),
    "expired": (dict(begin=-90000, end=-60), "expired", "the certificate of '{name}' expired on"),
    "future": (dict(begin=3600, end=90000), "expired",
               "the certificate of '{name}' is not valid before .*: is the clock right"),
    "network": (dict(network_id="ab" * 16), "network",
                "the certificate of '{name}' is of network abab[0-9a-f]+, not "),
    "no-san": (dict(san="DNS:mallory.example"), "not-trusted",
               "the certificate of '{name}' is not of our profile"),
    "bad-san": (dict(san="URI:shadowmesh://{id}/No_Name!"), "not-trusted",
                "the certificate of '{name}' is not of our profile"),
    "two-names": (dict(san="URI:shadowmesh://{id}/{name}, URI:shadowmesh://{id}/bob"),
                  "not-trusted",
                  "the certificate of '{name}' is not of our profile"),
    "no-client": (dict(usages="serverAuth"), "not-trusted",
                  "its extended key usage lacks serverAuth or clientAuth"),
    "no-server": (dict(usages="clientAuth"), "not-trusted",
                  "its extended key usage lacks serverAuth or clientAuth"),
    "is-ca": (dict(basic="CA:TRUE"), "not-trusted", "it is a CA's certificate, not a node's"),
}


@pytest.fixture(scope="module")
def authorities(whole_house):
    forge = whole_house.forge
    return {"foreign": forge.make_authority("foreign-ca"),
            "EC": forge.make_authority("ec-ca", "EC"),
            "RSA": forge.make_authority("rsa-ca", "RSA")}


def forged(house, authorities, case, kind="odd"):
    """(name, certificate, reason, pattern). A name of its own for each test that alice dials: she says the
    same of the same peer once a minute."""
    how, reason, pattern = CERTIFICATES[case]
    name = f"{kind}-{case}"
    how = dict(how, ca=authorities.get(how.get("ca")))
    if "san" in how:
        how["san"] = how["san"].format(id=house.forge.network_id, name=name)
    if not os.path.exists(house.forge.path(name + ".pem")):
        house.forge.make(name, **how)
    return (name, (house.forge.path(name + ".pem"), house.forge.path(name + ".key")), reason,
            pattern.format(name=name))


def served(house, pattern):
    """What alice logs about whom she refused as server."""
    return f"control: refused {re.escape(house.mallory.ip4)}:[0-9]+: {pattern}"


@pytest.mark.parametrize("case", CERTIFICATES)
def test_certificate_of_a_client(house, authorities, case):
    name, certificate, reason, pattern = forged(house, authorities, case)
    at = house.alice.log_size()
    with house.counts("refused", reason):
        with s_client(house.mallory, house.alice.machine.ip4, certificate=certificate) as client:
            text = client.read_all()
    house.alice.wait_log(served(house, pattern), position=at)
    assert "alert" in text
    assert house.alice.peer(name) is None


@pytest.mark.parametrize("case", CERTIFICATES)
def test_certificate_of_a_server(house, authorities, case):
    name, certificate, reason, pattern = forged(house, authorities, case, "server")
    at = house.alice.log_size()
    with s_server(house.mallory, certificate), house.counts("dial_refused",
                                                            reason), house.dialling(name):
        house.alice.wait_log(f"warn  peer {name} at {house.mallory.ip4}:{CONTROL_PORT}: {pattern}",
                             position=at)
        entry = wait_for(lambda: (e := house.alice.peer(name)) and e["state"] == "backoff" and e)
        assert re.search(pattern, entry["last_error"])


def test_no_certificate(house):
    at = house.alice.log_size()
    with house.counts("refused", "not-trusted"):
        with s_client(house.mallory, house.alice.machine.ip4) as client:
            client.read_all()
    house.alice.wait_log(served(house, "the peer sent no certificate"), position=at)


def test_classical_key_in_a_certificate_of_the_ca(house):
    """It cannot sign with mldsa87, so its client shows nothing and its server finds nothing in common."""
    certificate = house.forge.make("odd-key", algorithm="EC")
    at = house.alice.log_size()
    with s_client(house.mallory, house.alice.machine.ip4, certificate=certificate) as client:
        client.read_all()
    house.alice.wait_log(served(house, "the peer sent no certificate"), position=at)
    with s_server(house.mallory, certificate), house.dialling("odd-key"):
        house.alice.wait_log("peer odd-key at .*: the peer found no common group, cipher or signature",
                             position=at)


# --- certificates: one of our own daemons holds them, both dial ---


@pytest.mark.parametrize("case, told", [
    ("expired", "expired or not yet valid"),
    ("future", "expired or not yet valid"),
])
def test_daemon_with_a_certificate_out_of_time(house, authorities, case, told):
    name, certificate, reason, pattern = forged(house, authorities, case, "daemon")
    odd = house.daemon(name, certificate)
    at = house.alice.log_size()
    with house.counts("refused", reason), house.counts("dial_refused",
                                                       reason), house.dialling(name):
        odd.start()
        odd.wait_log("error our own certificate: " + pattern)
        house.alice.wait_log(served(house, pattern), position=at)
        house.alice.wait_log(f"warn  peer {name} at [^ ]*: {pattern}", 10, position=at)
        told = f"the peer refused our certificate: it is {told}"
        odd.wait_log(f"warn  peer alice: closed by the peer: {reason}: {told}")
        odd.wait_log(f"warn  control: refused {house.alice.machine.ip4}:[0-9]+: {told}", 10)
        assert house.counter("refused", reason, daemon=odd) >= 1
        assert house.counter("closed_by_peer", reason, daemon=odd) >= 1
        assert told in odd.peer("alice")["last_error"]
    odd.stop()


def test_refused_daemon_backs_off(house, authorities):
    """It learns of the refusal after its handshake; it must not begin anew at once, for ever."""
    name, certificate, *_ = forged(house, authorities, "expired")
    odd = house.daemon(name, certificate).start()
    since = time.monotonic()
    odd.wait_log("closed by the peer: expired")
    before = house.counter("accepted")
    for _ in range(5):
        ping(house.alice, house.bob.ip4, count=20, interval=0.01)
    wait_for(lambda: odd.peer("alice")["state"] == "backoff", what="the back-off")
    more = house.counter("accepted") - before
    assert more <= 1 + (time.monotonic() - since) // REFUSED_AGAIN
    odd.stop()


def test_daemon_of_another_network(house):
    """A CA of its own with another network id under the same name: each refuses the other."""
    other = Authority.get("other")
    name = "odd-network"
    odd = house.daemon(name, other.issue(name))
    odd.sections["Network"]["CA"] = other.certificate
    at = house.alice.log_size()
    with house.dialling(name), house.counts("refused", "network"), house.counts("dial_refused",
                                                                                "network"):
        odd.start()
        # whoever is the client looks first
        odd.wait_log("warn  peer alice at .*: the certificate of 'alice' is of network [0-9a-f]+, not ")
        house.alice.wait_log(served(house,
                                    "the peer refused our certificate: it is of another network"),
                             position=at)
        house.alice.wait_log(f"warn  peer {name} at .*: the certificate of '{name}' is of network",
                             10, position=at)
        odd.wait_log("control: refused .*: the peer refused our certificate: it is of another network", 10)
    odd.stop()


def test_daemon_of_a_foreign_ca(house, authorities):
    """The same network id, another CA."""
    name, certificate, *_ = forged(house, authorities, "foreign", "daemon")
    odd = house.daemon(name, certificate)
    odd.sections["Network"]["CA"] = authorities["foreign"][0]
    at = house.alice.log_size()
    unknown = "is not signed by a CA of this network"
    told = "the peer refused our certificate: it does not trust who signed it"
    with house.dialling(name), house.counts("refused", "not-trusted"), house.counts("dial_refused",
                                                                                    "not-trusted"):
        odd.start()
        odd.wait_log(f"warn  peer alice at .*: the certificate of 'alice' {unknown}")
        house.alice.wait_log(served(house, told), position=at)
        house.alice.wait_log(f"warn  peer {name} at .*: the certificate of '{name}' {unknown}", 10,
                             position=at)
        odd.wait_log(f"control: refused .*: {told}", 10)
    odd.stop()


# --- TLS that is not ours ---


TLS = {
    "classical-group": (dict(groups="X25519:P-384"), "cipher",
                        "no common key exchange group: ours are post-quantum only"),
    "wrong-alpn": (dict(alpn="h2"), "version",
                   "the peer asks for another protocol than shadowmesh/1"),
    "no-alpn": (dict(alpn=None), "version", "the peer asks for no protocol"),
    "tls-1.2": (dict(version="-tls1_2", groups=None), "version", "the peer speaks TLS 1.2 at most"),
}


@pytest.mark.parametrize("case", TLS)
def test_client_with_another_tls(house, case):
    how, reason, pattern = TLS[case]
    certificate = Authority.get().issue("odd-tls")
    at = house.alice.log_size()
    with house.counts("refused", reason):
        with s_client(house.mallory, house.alice.machine.ip4, certificate=certificate,
                      **how) as client:
            text = client.read_all()
    house.alice.wait_log(served(house, pattern), position=at)
    assert "no peer certificate available" in text


TLS_SERVERS = {
    "classical-group": (dict(groups="X25519:P-384"), "cipher",
                        "the peer found no common group, cipher or signature"),
    "wrong-alpn": (dict(alpn="h2"), "version", "the peer does not speak shadowmesh/1"),
    "no-alpn": (dict(alpn=None), "version", "the peer did not agree on shadowmesh/1"),
    "tls-1.2": (dict(version="-tls1_2", groups=None), "version", "the peer does not speak TLS 1.3"),
}


@pytest.mark.parametrize("case", TLS_SERVERS)
def test_server_with_another_tls(house, case):
    how, reason, pattern = TLS_SERVERS[case]
    name = "server-" + case.replace(".", "-")
    certificate = Authority.get().issue(name)
    at = house.alice.log_size()
    with s_server(house.mallory, certificate, **how), house.counts("dial_refused",
                                                                   reason), house.dialling(name):
        house.alice.wait_log(f"warn  peer {name} at .*: {pattern}", position=at)


# --- what is no TLS at all ---

NOISE = {
    "random": random.Random(8443).randbytes(3000).replace(b"\x16", b"\x17"),
    "http": b"GET / HTTP/1.1\r\nHost: alice\r\nUser-Agent: scanner\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "tls-then-noise": b"\x16\x03\x01\x00\x40" + bytes(range(64)),
    "huge-hello": b"\x16\x03\x01\x40\x00\x01\x00\xff\xff\x03\x03" + bytes(16384),
}


@pytest.mark.parametrize("case", NOISE)
def test_client_without_tls(house, case):
    at = house.alice.log_size()
    with house.counts("refused", "protocol"):
        with house.mallory.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((house.alice.machine.ip4, CONTROL_PORT))
            sock.sendall(NOISE[case])
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) == b"", "noise was answered"
    house.alice.wait_log(served(house,
                                "(what the peer sent is not TLS|a ClientHello of more than 16384 bytes)"),
                         position=at)


@pytest.mark.parametrize("case", ["random", "http", "ssh"])
def test_server_without_tls(house, case):
    name = "server-" + case
    at = house.alice.log_size()
    with house.mallory.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", CONTROL_PORT))
        listener.listen(5)
        with house.counts("dial_refused", "protocol"), house.dialling(name):
            conn, _ = listener.accept()
            with conn:
                conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if case == "http" else NOISE[case])
                house.alice.wait_log(f"warn  peer {name} at .*: what the peer sent is not TLS",
                                     position=at)


# --- those who take their time ---


class Opened:
    """A connection to alice; waits in a thread for her to close it, and knows when she did."""

    def __init__(self, house, first=b"", drip=b""):
        self.sock = house.mallory.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=0.2)
        self.sock.connect((house.alice.machine.ip4, CONTROL_PORT))
        self.begin = time.monotonic()
        self.begin_running = now()
        self.port = self.sock.getsockname()[1]
        self.sock.sendall(first)
        self.drip = drip
        self.seconds = self.seconds_running = None
        self.thread = threading.Thread(target=self.wait, daemon=True)
        self.thread.start()

    def wait(self):
        sent = 0
        self.sock.settimeout(0.1)
        with contextlib.suppress(OSError):
            while True:
                if sent < len(self.drip) and time.monotonic() > self.begin + sent:
                    self.sock.sendall(self.drip[sent:sent + 1])
                    sent += 1
                try:
                    if not self.sock.recv(4096):
                        break
                except TimeoutError:
                    if now() > self.begin_running + 20 * SLOW:
                        return
        self.seconds = time.monotonic() - self.begin
        self.seconds_running = now() - self.begin_running

    def closed_after(self, least, most):
        """Not sooner by the clock, and not later by the time for which the machine ran."""
        self.thread.join()
        self.sock.close()
        assert self.seconds is not None, "it was never closed"
        assert self.seconds > least and self.seconds_running < most, (self.seconds, self.seconds_running)


def test_slow_ones_are_closed(house):
    """All at once: half a ClientHello, one byte a second, silence, TLS without HELLO, half a HELLO, and a
    server that never answers."""
    whole = client_hello(house.mallory)
    at = house.alice.log_size()
    listener = house.mallory.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", CONTROL_PORT))
    listener.listen(5)
    mute = [Member(house.mallory, house.alice.machine.ip4, Authority.get().issue(name))
            for name in ("mute", "half-mute")]
    with listener, mute[0], mute[1], house.counts("closed_by_us",
                                                  "timeout"), house.counts("refused", "timeout"), \
            house.dialling("deaf"):
        slow = {"half": Opened(house, whole[:len(whole) // 2]), "drip": Opened(house, drip=whole),
                "silent": Opened(house)}
        mute[1].send(hello()[:20])
        for name, one in slow.items():
            one.closed_after(2.5, 3 + 2 * SLOW)
            house.alice.wait_log(f"refused {house.mallory.ip4}:{one.port}: no TLS greeting came in time", position=at)
        for name, one in zip(("mute", "half-mute"), mute):
            assert one.expect_close(10) == ("timeout", "HELLO or READY did not come in time")
            house.alice.wait_log(f"warn  peer {name}: closed by us: timeout: HELLO or READY did not come in time",
                                 position=at)
        house.alice.wait_log("peer deaf at .*: the TLS handshake did not end in time", 10,
                             position=at)
        assert "handshake did not end" in house.alice.peer("deaf")["last_error"]


# --- members that misbehave ---


class Meeting:
    """A member of that name at alice's door."""

    def __init__(self, house, name):
        self.house, self.name = house, name
        self.certificate = Authority.get().issue(name)
        self.at = house.alice.log_size()
        self.member = None

    def __enter__(self):
        self.member = Member(self.house.mallory, self.house.alice.machine.ip4, self.certificate)
        return self

    def __exit__(self, *_):
        self.member.end()

    def is_closed_for(self, pattern, reason="protocol"):
        """The member is told, the log says it, the status says it."""
        name, text = self.member.expect_close()
        assert name == reason and re.fullmatch(pattern, text), (name, text)
        alice = self.house.alice
        if reason == "protocol":
            alice.wait_log(f"warn  peer {self.name}: {pattern}", position=self.at)
        alice.wait_log(f"warn  peer {self.name}: closed by us: {reason}: {pattern}",
                       position=self.at)
        entry = wait_for(lambda: (e := alice.peer(self.name)) and e["state"] in ("idle",
                                                                                 "backoff") and e)
        assert re.search(pattern, entry["last_error"]) and entry["session"] is None


BOUNDS = r"message (\w+) \(0x[0-9a-f]{4}\) has a length out of bounds"
MESSAGES = {
    "truncated-hello": (message(HELLO, hello()[4:-1]), BOUNDS),
    "empty-hello": (message(HELLO), BOUNDS),
    "oversized-hello": (hello(more=bytes(225)), BOUNDS),
    "oversized-ready": (message(READY, b"!"), BOUNDS),
    "oversized-unknown": (struct.pack("!HH", 0x0777, 4097), BOUNDS),
    "huge-unknown": (struct.pack("!HH", 0x0777, 65535), BOUNDS),
    "ready-first": (message(READY), r"message READY \(0x8002\) is out of order"),
    "ping-first": (message(PING, bytes(8)), r"message PING \(0x0005\) is out of order"),
    "endpoints-first": (message(ENDPOINTS, b"\0"), r"message ENDPOINTS \(0x0003\) is out of order"),
    "hello-twice": (hello() + hello(), r"message HELLO \(0x8001\) is out of order"),
    "ready-twice": (hello() + 2 * message(READY), r"message READY \(0x8002\) is out of order"),
    "critical": (message(0x8777, b"?"), r"message unknown \(0x8777\) is unknown and critical"),
    "critical-later": (hello() + message(0x8777),
                       r"message unknown \(0x8777\) is unknown and critical"),
    "bad-mode": (hello(mode=9), r"message HELLO \(0x8001\) is malformed"),
    "no-workers": (hello(workers=0), r"message HELLO \(0x8001\) is malformed"),
    "many-workers": (hello(workers=17), r"message HELLO \(0x8001\) is malformed"),
    "bad-endpoints": (hello() + message(READY) + message(ENDPOINTS, b"\x02\0"),
                      r"message ENDPOINTS \(0x0003\) is malformed"),
    "reply-of-a-client": (hello() + message(READY) + message(REKEY_REPLY, bytes(1669)),
                          r"message REKEY_REPLY \(0x8008\) is out of order"),
    "wanted-of-a-client": (hello() + message(READY) + message(REKEY_WANTED),
                           r"message REKEY_WANTED \(0x0009\) is out of order"),
    "garbage": (hello() + random.Random(9443).randbytes(1 << 16),
                r"message \w+ \(0x[0-9a-f]{4}\) .*"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_member_sends_what_it_must_not(house, case):
    data, pattern = MESSAGES[case]
    with house.counts("closed_by_us", "protocol"), Meeting(house, "member-" + case) as meeting:
        meeting.member.send(data)
        meeting.is_closed_for(pattern)


@pytest.mark.parametrize("case, data, reason, pattern", [
    ("version", hello(version=2), "version",
     r"member-of-version speaks protocol version 2, alice version 1"),
    ("mode", hello(mode=2), "mode",
     r"member-of-mode has Mode = tun, alice has Mode = tap: a network has one mode"),
    ("cipher", hello(ciphers=0x80), "cipher",
     r"member-of-cipher and alice have no data cipher in common"),
], ids=["version", "mode", "cipher"])
def test_member_does_not_match(house, case, data, reason, pattern):
    with house.counts("closed_by_us", reason), Meeting(house, "member-of-" + case) as meeting:
        meeting.member.send(data)
        meeting.is_closed_for(pattern, reason)


@pytest.mark.parametrize("kem", [bytes(1665), b"\xff" * 1665, b"\x04" + bytes(96) + b"\xff" * 1568],
                         ids=["zeros", "ones", "half"])
def test_rekey_request_with_an_invalid_key(house, kem):
    with Meeting(house, f"member-kem-{kem[0]}") as meeting:
        meeting.member.join()
        house.alice.wait_up(meeting.name)
        epoch = house.alice.peer(meeting.name)["session"]["epoch"]
        meeting.member.send(message(REKEY_REQUEST, struct.pack("!I", epoch + 1) + kem))
        meeting.is_closed_for(r"message REKEY_REQUEST \(0x8007\) is malformed")


def test_rekey_request_for_another_epoch(house):
    with Meeting(house, "member-epoch") as meeting:
        meeting.member.join()
        house.alice.wait_up(meeting.name)
        meeting.member.send(message(REKEY_REQUEST, struct.pack("!I", 1000) + bytes(1665)))
        meeting.is_closed_for(r"message REKEY_REQUEST \(0x8007\) is out of order")


def test_rekey_request_before_ready(house):
    with Meeting(house, "member-early") as meeting:
        meeting.member.send(hello() + message(REKEY_REQUEST, struct.pack("!I", 1) + bytes(1665)))
        meeting.is_closed_for(r"message REKEY_REQUEST \(0x8007\) is out of order")


def test_unknown_messages_are_skipped_and_the_session_comes_up(house):
    """Not critical ones, before HELLO, behind it, byte by byte, and what a later version appends to HELLO."""
    skipped = message(0x0777, b"from the future") + message(0x0008) + message(0x7FFF, bytes(4096))
    with Meeting(house, "member-new") as meeting:
        member = meeting.member
        member.expect(HELLO)
        member.send(skipped)
        for byte in hello(more=b"appended", features=1 << 63):
            member.send(bytes([byte]))
        member.send(skipped)
        member.expect(READY)
        member.send(message(READY) + skipped)
        house.alice.wait_up(meeting.name)
        member.send(message(PING, b"8 bytes!"))
        assert member.expect(PONG) == b"8 bytes!"
        assert house.alice.is_up(meeting.name)
        assert f"peer {meeting.name}: message" not in house.alice.log(meeting.at)


def test_member_leaves_in_the_middle_of_a_message(house):
    with Meeting(house, "member-cut") as meeting:
        meeting.member.expect(HELLO)
        meeting.member.send(hello()[:-1])
        meeting.member.end()
        house.alice.wait_log(f"peer {meeting.name}: control connection lost: ", position=meeting.at)
        wait_for(lambda: house.alice.peer(meeting.name)["state"] in ("idle", "backoff"))


@pytest.mark.parametrize("case, data, pattern", [
    ("request", hello() + message(READY) + message(REKEY_REQUEST, bytes(1669)),
     r"message REKEY_REQUEST \(0x8007\) is out of order"),
    ("critical", hello() + message(0x8778), r"message unknown \(0x8778\) is unknown and critical"),
], ids=["request", "critical"])
def test_server_sends_what_it_must_not(house, case, data, pattern):
    name = "member-server-" + case
    at = house.alice.log_size()
    with Member(house.mallory, None, Authority.get().issue(name)) as member, house.dialling(name):
        member.expect(HELLO, 10)
        member.send(data)
        assert re.fullmatch(pattern, member.expect_close()[1])
        house.alice.wait_log(f"warn  peer {name}: {pattern}", position=at)
        house.alice.wait_log(f"warn  peer {name}: closed by us: protocol: {pattern}", position=at)


# --- our daemons that do not fit together ---


def test_tap_against_tun_names_both(house):
    name = "routed"
    odd = house.daemon(name, sections={"Network": {"Mode": "tun"}})
    at = house.alice.log_size()
    with house.dialling(name):
        odd.start()
        pattern = ("peer {}: closed by (us|the peer): mode: "
                   "(routed has Mode = tun, alice has Mode = tap|alice has Mode = tap, routed has Mode = tun)")
        odd.wait_log(pattern.format("alice"))
        house.alice.wait_log(pattern.format(name), position=at)
        for daemon in (odd, house.alice):
            assert (house.counter("closed_by_us", "mode", daemon=daemon) +
                    house.counter("closed_by_peer", "mode", daemon=daemon)) >= 1
        assert "Mode = tun" in house.alice.peer(name)["last_error"]
        assert "Mode = tun" in odd.peer("alice")["last_error"]
        assert not odd.is_up("alice")
    odd.stop()


def test_connected_to_itself(house):
    at = house.alice.log_size()
    with house.counts("closed_by_us", "self"), house.dialling("echo", machine=house.alice.machine):
        house.alice.wait_log(LIMITED + r" refused alice: connected to itself \(self\)", position=at)
        wait_for(lambda: "connected to itself" in house.alice.peer("echo")["last_error"])


def test_two_nodes_with_one_name(house):
    """A second alice knocks at the first one's door, and at bob's it would be the newer certificate."""
    twin = house.daemon("alice", Authority.get().issue("alice", fresh=True), peers=())
    twin.peers_conf.append({"Name": "other", "Endpoint": house.lab.endpoint(house.alice.machine)})
    at = house.alice.log_size()
    with house.counts("closed_by_us", "self"):
        twin.start()
        pattern = LIMITED + r" refused alice: two nodes have the name alice \(self\)"
        twin.wait_log(pattern)
        house.alice.wait_log(pattern, position=at)
        assert "two nodes have the name alice" in twin.peer("other")["last_error"]
    twin.stop()


def test_another_answers_than_was_dialled(house):
    odd = house.daemon("carol", peers=()).start()
    at = house.alice.log_size()
    with house.counts("closed_by_us", "not-trusted"), house.dialling("dave"):
        house.alice.wait_log(LIMITED + r" refused carol: dialled dave, but carol answered \(not-trusted\)", position=at)
        odd.wait_log("warn  peer alice: closed by the peer: not-trusted: dialled dave, but carol answered")
        assert "carol answered" in house.alice.peer("dave")["last_error"]
    odd.stop()


# --- the access key ---


@pytest.fixture(scope="module")
def whole_vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    for name, digit in (("right", "5"), ("wrong", "6")):
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(64 * digit + "\n")
    made = House(Lab(), str(folder), sections={"Network": {"AccessKey": str(folder / "right")}})
    yield made
    made.close()


@pytest.fixture
def vault(whole_vault):
    yield whole_vault
    whole_vault.send_home()
    whole_vault.check()


def test_strangers_without_the_access_key_see_no_certificate(vault):
    at = vault.alice.log_size()
    for certificate in (None, Authority.get().issue("keyless")):
        with vault.counts("refused", "not-trusted"):
            with s_client(vault.mallory, vault.alice.machine.ip4,
                          certificate=certificate) as client:
                text = client.read_all()
        assert "no peer certificate available" in text and "BEGIN CERTIFICATE" not in text
        assert "access denied" in text.lower()
    vault.alice.wait_log(served(vault, ".*access key"), position=at)


@pytest.mark.parametrize("key", ["wrong", None])
def test_daemon_with_another_access_key(vault, key):
    """It turns alice away where it wants a key itself; without one, it is the client that is turned away."""
    name = f"key-{key}".lower()
    odd = vault.daemon(name, sections={"Network": {"AccessKey": key and vault.forge.path(key)}})
    at = vault.alice.log_size()
    with vault.counts("refused", "not-trusted"):
        odd.start()
        vault.alice.wait_log(served(vault, ".*access key"), position=at)
        odd.wait_log("warn  peer alice at .*: the peer turned us away: it wants its network's access key")
        assert vault.counter("dial_refused", "not-trusted", daemon=odd) >= 1
    if key:
        with vault.dialling(name), vault.counts("dial_refused", "not-trusted"):
            vault.alice.wait_log(f"warn  peer {name} at .*: the peer turned us away: it wants its network's access key",
                                 position=at)
            odd.wait_log(f"warn  control: refused {vault.alice.machine.ip4}:[0-9]+: .*access key")
    assert vault.alice.peer(name) is None or vault.alice.peer(name)["state"] != "up"
    assert not odd.is_up("alice")
    odd.stop()


def test_daemon_with_the_access_key(vault):
    friend = vault.daemon("friend",
                          sections={"Network": {"AccessKey": vault.forge.path("right")}}).start()
    friend.wait_up("alice")
    vault.alice.wait_up("friend")
    friend.stop()


# --- pins instead of a CA ---


def test_pinned_keys(lab, tmp_path):
    """gate pins anna and, with anna's neighbour's key, carl; ben is not pinned; anna is never disturbed."""
    machines = dict(zip(("gate", "anna", "ben", "carl"),
                        lab.internet("gate", "anna", "ben", "carl")))
    keys = {}
    for name in (*machines, "stolen"):
        keys[name] = str(tmp_path / f"{name}.key")
        sh(SHADOWMESH, "keygen", "--out", keys[name])
    prints = {name: fingerprint(path) for name, path in keys.items()}

    def pinned(name, peers):
        machine = machines[name]
        sections = {"Node": {"Name": name, "PrivateKey": keys[name]},
                    "Interface": {"Address": f"10.8.0.{machine.number}/24"}}
        return Daemon(lab, machine, name, sections=sections,
                      peers=[{"Name": other, "Endpoint": lab.endpoint(machines[other]),
                              "Fingerprint": value} for other, value in peers.items()])

    gate = pinned("gate", {"anna": prints["anna"], "carl": prints["stolen"]}).start()
    anna = pinned("anna", {"gate": prints["gate"]}).start()
    lab.wait_mesh(gate, anna)
    at = gate.log_size()
    ben = pinned("ben", {"gate": prints["gate"]}).start()
    carl = pinned("carl", {"gate": prints["gate"]}).start()
    told = "closed by the peer: not-trusted: the peer refused our certificate: it does not trust who signed it"
    for daemon in (ben, carl):
        gate.wait_log(f"control: refused {daemon.machine.ip4}:[0-9]+: the key of '{daemon.name}' is not pinned here",
                      position=at)
        daemon.wait_log(f"warn  peer gate: {told}")
        assert not daemon.is_up("gate")
    # gate dials carl too
    gate.wait_log("warn  peer carl at .*: the key of 'carl' is not pinned here", 15)
    carl.wait_log(f"control: refused {gate.machine.ip4}:[0-9]+: the peer refused our certificate",
                  15)
    assert gate.status()["control"]["refused"]["not-trusted"] >= 2
    assert gate.status()["control"]["dial_refused"]["not-trusted"] >= 1
    assert ping(anna, gate.ip4, count=50, interval=0.005).lost == 0


# --- refused at the start ---


def test_classical_ca_is_not_loaded(lab, house, authorities):
    name, certificate, *_ = forged(house, authorities, "ecdsa-ca")
    for kind in ("EC", "RSA"):
        odd = house.daemon(name, certificate)
        odd.sections["Network"]["CA"] = authorities[kind][0]
        text = odd.refuse()
        assert f"CA {authorities[kind][0]}: the CA's key is not ML-DSA-87; cure: a CA made by 'shadowmesh ca init'" in text
    # the right CA, and a leaf that another one signed
    text = house.daemon(name, certificate).refuse()
    assert re.search(f"certificate {certificate[0]}: .*a classical CA", text)


@pytest.mark.parametrize("case, pattern", [
    ("network", "the CA is of network [0-9a-f]+, not abab"), ("no-san", "shadowmesh://"),
    ("no-client", "extended key usage lacks"),
    ("foreign", "is not signed by a CA of this network"),
])
def test_certificate_that_all_would_refuse_is_refused_at_the_start(house, authorities, case,
                                                                   pattern):
    name, certificate, *_ = forged(house, authorities, case)
    text = house.daemon(name, certificate).refuse()
    assert re.search(f"error (certificate {certificate[0]}|CA .*): .*{pattern}", text), text


def test_private_key_that_others_can_read(house, tmp_path):
    certificate, key = Authority.get().issue("open-key", fresh=True)
    os.chmod(key, 0o644)
    odd = house.daemon("open-key", (certificate, key))
    text = odd.refuse()
    assert re.search(rf"{key}: others have access \(mode 0644\): 'chmod 600' it", text), text
    os.chmod(key, 0o600)
    odd.expected_exit = 0
    odd.start().stop()


def test_key_of_another_certificate(house):
    certificate, _ = Authority.get().issue("one-half")
    _, key = Authority.get().issue("other-half")
    text = house.daemon("one-half", (certificate, key)).refuse()
    assert f"certificate {certificate} is not for the key in {key}" in text


@pytest.mark.parametrize("line, pattern", [
    ("Colour = blue", r"\[Network\] Colour: unknown key"),
    ("Mode = bridge", "tap.*tun"),
    ("[Nodes]", r"unknown section"),
    ("Mode", "expected 'Key = value'"),
], ids=["key", "value", "section", "form"])
def test_configuration_errors_name_file_and_line(house, line, pattern):
    odd = house.daemon("slip")
    odd.write_config()
    with open(odd.config_path) as file:
        lines = file.read().splitlines()
    lines.insert(1, line)
    with open(odd.config_path, "w") as file:
        file.write("\n".join(lines) + "\n")
    for command in (("up", "-c", odd.config_path), ("config", "check", odd.config_path)):
        done = house.mallory.cli(*command)
        assert done.returncode not in (0, 124), done
        assert re.search(f"{re.escape(odd.config_path)}:2: .*{pattern}", done.stderr), done.stderr
    assert not os.path.exists(odd.socket_path)
    assert odd.process is None
