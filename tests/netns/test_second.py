# SPDX-License-Identifier: MIT
"""
docs/PROTOCOL.md is enough to write a second implementation from: here is one (second.py), and it gets on with
ours as client and as server, under both data ciphers.

                     internet
    [ alice ] ======= bridge ======= [ mallory ]
     shadowmesh up                    second.py: openssl s_client or s_server, Python
"""

import ipaddress
import struct

import pytest

from lab import CONTROL_PORT, DATA_PORT, Authority, checksum, now, wait_for
from second import Second
from paper import AES256GCM, CHACHA20POLY1305, address, mac_of, message, node_id
from strangers import CLOSE, ENDPOINTS, OBSERVED, PING, PONG, REKEY_WANTED

OURS, THEIRS = "10.7.0.99", "10.7.0.1"
BROADCAST = bytes([255] * 6)
SHUTDOWN = 1
PONG_PAUSE = 0.02  # seconds


def ip(text):
    return ipaddress.ip_address(text).packed


def arp(operation, sender_mac, sender, target_mac, target):
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + ip(sender) + target_mac + ip(target)


def echo(number, length):
    """An ICMP echo request with that many bytes behind its header, as an IPv4 packet"""
    body = struct.pack(">BBHHH", 8, 0, 0, 0x5ec0, number) + bytes(i % 251 for i in range(length))
    body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 64, 1, 0) + ip(OURS) + ip(THEIRS)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def frame_of(second, condition):
    """A frame from alice that fulfils it"""
    def found():
        return next((frame for frame in second.frames if condition(frame)), None)

    second.until(lambda: found() is not None, "a frame")
    frame = found()
    second.frames.remove(frame)
    return frame


def ping(second, alice_mac, number, length):
    second.put_frame(alice_mac + second.mac + b"\x08\x00" + echo(number, length))
    reply = frame_of(second, lambda f: f[12:14] == b"\x08\x00" and f[23] == 1 and f[34] == 0 and
                     struct.unpack_from(">H", f, 40)[0] == number)
    assert reply[:14] == second.mac + alice_mac + b"\x08\x00"
    assert reply[42:] == bytes(i % 251 for i in range(length))


@pytest.fixture(params=[(True, AES256GCM), (True, CHACHA20POLY1305), (False, AES256GCM)],
                ids=["client-aes", "client-chacha", "server-aes"])
def pair(lab, request):
    """(alice's daemon, the second implementation), both with READY sent and received"""
    client, suite = request.param
    machine, mallory = lab.internet("alice", "mallory", families=(4,))
    alice = lab.daemon(machine, peers=[] if client else ["mallory"]).start()
    second = Second(mallory, machine.ip4, Authority.get().issue("mallory"),
                    alice.sections["Node"]["Certificate"], "mallory",
                    bytes.fromhex(alice.status()["network_id"]), suite, client)
    try:
        second.greet()
        yield alice, second
    finally:
        second.close()


def rekey(alice, second):
    """alice is told to want new keys: the client asks, the server has it asked"""
    alice.ask("rekey", node="mallory")
    if second.client:
        assert second.expect(REKEY_WANTED) == b""
        second.rekey_as_client()
    else:
        second.rekey_as_server()


def test_it_is_enough(pair):
    alice, second = pair
    wait_for(lambda: alice.is_up("mallory"), what="alice to see it up")
    peer, status = alice.peer("mallory"), alice.status()
    alice_node = node_id(second.network, b"alice")
    assert peer["id"] == second.node.hex() and peer["mac"].replace(":", "") == second.mac.hex()
    assert status["node"]["id"] == alice_node.hex()
    assert peer["session"]["role"] == ("server" if second.client else "client")
    assert peer["session"]["cipher"] == ("aes-256-gcm" if second.suite == AES256GCM else "chacha20-poly1305")
    alice_mac = mac_of(alice_node)
    assert status["interface"]["mac"].replace(":", "") == alice_mac.hex()

    # "Control messages"
    count, kind, family, port, control = struct.unpack_from(">BBBHH", second.expect(ENDPOINTS))
    assert (count, kind, family, port, control) == (1, 0, 4, DATA_PORT, CONTROL_PORT)
    observed = second.expect(OBSERVED)
    assert observed[0] == 4 and observed[3:] == ip(second.ip) + b"\0"
    second.send(message(PING, bytes(range(8))))
    assert second.expect(PONG) == bytes(range(8))
    second.send(message(0x0777, b"unknown and not critical"))

    # "Paths", "Switching", "Parts"
    assert second.probe() == address(second.ip, DATA_PORT)
    second.put_frame(BROADCAST + second.mac + b"\x08\x06" + arp(1, second.mac, OURS, bytes(6), THEIRS))
    reply = frame_of(second, lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2")
    assert reply[14:42] == arp(2, alice_mac, THEIRS, second.mac, OURS)
    ping(second, alice_mac, 1, 64)
    ping(second, alice_mac, 2, 1472)
    assert second.parts, "a full frame came in parts"

    # "Rekeying"
    rekey(alice, second)
    wait_for(lambda: second.probe() and alice.peer("mallory")["session"]["epoch"] == 1, what="alice to go over")
    ping(second, alice_mac, 3, 1472)
    assert second.current.seen and alice.peer("mallory")["session"]["rekeys"] == 1

    # "Control stream"
    second.end()
    wait_for(lambda: alice.peer("mallory")["tls"] == "down", what="alice to see TLS gone")
    for i in range(3):
        second.put_stream(message(PING, bytes([i] * 8)))
        assert second.wait_message(PONG) == bytes([i] * 8)
        second.until(lambda: second.stream_acked == second.stream_sent, "an acknowledgement")
        wait_for(lambda at=now(): now() > at + PONG_PAUSE, what="the time in which no second PING is answered")
    second.put_stream(message(CLOSE, struct.pack(">H", SHUTDOWN)))
    wait_for(lambda: alice.status()["control"]["closed_by_peer"].get("shutdown") == 1,
             what="alice to count the end")
    assert alice.peer("mallory")["session"] is None
