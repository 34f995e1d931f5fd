# SPDX-License-Identifier: MIT
"""
The faults of the earlier system, each with the test that would have caught it.

    raw sockets -> [ smesh0 ] alice ==== internet ==== bob [ smesh0 ] <- raw sockets
                                            |   |
                                       capture  mallory: datagrams without a key

It bound its UDP socket twice; installed the frame handler after the endpoint exchange, so early frames fell
on the floor; never started the initiator's receiver; sent non-IPv4 frames unencrypted; believed the source of
the first unauthenticated datagram; had one TAP reader per peer, so that two peers stole each other's frames;
cut VLAN-tagged frames off at 1514 bytes; and warned where an address could not be set.
"""

import os
import re
import socket
import struct
import threading
import time

import pytest

from lab import (EXPERIMENTAL, Capture, Datagram, patterned, ping, udp_numbered, wait_for)

BROADCAST = b"\xff" * 6


def frame(destination, source, payload, ethertype=EXPERIMENTAL):
    return destination + source + struct.pack("!H", ethertype) + payload


# --- early frames ---


class Pump:
    """Sends numbered broadcast frames on a daemon's card without a pause, and notes when. No more than the
    card's queue holds wait for the daemon."""

    def __init__(self, daemon, mac):
        self.daemon = daemon
        self.port = daemon.raw(EXPERIMENTAL)
        self.mac = mac
        self.sent_at = []
        self.ending = False
        self.thread = threading.Thread(target=self.run)

    def taken(self):
        return self.daemon.counters()["tap_read_frames"]

    def run(self):
        before = self.taken()
        while not self.ending:
            if len(self.sent_at) % 200 == 0:
                wanted = before + len(self.sent_at) - 200
                wait_for(lambda w=wanted: self.taken() >= w, what=f"{self.daemon} to take frames")
            self.sent_at.append(time.monotonic())
            self.port.send(frame(BROADCAST, self.mac,
                                 struct.pack("!I", len(self.sent_at) - 1) + bytes(60)))
            time.sleep(0.0003)

    def stop(self):
        self.ending = True
        self.thread.join()

    def arrived(self):
        """Numbers of the other side's frames, in order."""
        return [struct.unpack_from("!I", one, 14)[0] for one in self.port.drain()]


def assert_all_received(sender, receiver, before=0):
    """Every frame that one counts as sent the other counts as received; the kernels may add some meanwhile."""
    wait_for(lambda: sender.peer(receiver)["counters"]["tx_frames"] - before
             == receiver.peer(sender)["counters"]["rx_frames"], 5,
             f"{receiver} to have got what {sender} sent")


@pytest.mark.parametrize("dialler", ["alice", "bob", "both"])
def test_frames_of_the_first_instant(lab, dialler):
    """Frames flow at both ends before, while and after the two connect. From the first one that arrives
    none is missing; each that a daemon sent the other received; and none that came when both said "up" is
    missing."""
    peers = {"alice": ["bob"], "bob": ["alice"]}
    if dialler != "both":
        peers["bob" if dialler == "alice" else "alice"] = []
    alice, bob = lab.mesh("alice", "bob", peers=peers, start=False)
    # the one that is dialled is there first: then the other's start is the instant that counts
    first, second = (bob, alice) if dialler == "alice" else (alice, bob)
    first.start()
    pumps = [Pump(first, first.mac)]
    pumps[0].thread.start()
    second.start()
    pumps.append(Pump(second, second.mac))
    pumps[1].thread.start()
    lab.wait_mesh(alice, bob)
    up_at = time.monotonic()
    wait_for(lambda: all(len([t for t in p.sent_at if t > up_at]) > 100 for p in pumps), what="frames")
    for pump in pumps:
        pump.stop()
    # the last frames are through when one that follows them is
    assert ping(alice, bob.ip4, count=3).lost == 0 and ping(bob, alice.ip4, count=3).lost == 0

    for sender, receiver in (pumps, pumps[::-1]):
        numbers = receiver.arrived()
        assert numbers, "nothing arrived"
        assert numbers == list(range(numbers[0], len(sender.sent_at))), "a gap, a double or a wrong order"
        assert not [t for t in sender.sent_at[:numbers[0]] if t > up_at], "both were up, and it was lost"
    for daemon, other in ((alice, bob), (bob, alice)):
        assert_all_received(daemon, other)
        got = other.peer(daemon)["counters"]
        assert got["lost"] == got["late"] == got["duplicate"] == got["forged"] == 0
        drops = daemon.drops()
        assert drops.keys() <= {"no_session"}, drops


def test_reconnecting_loses_nothing_that_was_sent(lab):
    """The same when both were connected before, three times over, each end in turn restarted."""
    alice, bob = lab.mesh("alice", "bob")
    for daemon, other in ((alice, bob), (bob, alice), (alice, bob)):
        daemon.stop()
        wait_for(lambda other=other, daemon=daemon: not other.is_up(daemon), what="the end")
        before = other.peer(daemon)["counters"]
        pump = Pump(other, other.mac)
        pump.thread.start()
        daemon.start()
        into = daemon.raw(EXPERIMENTAL)
        lab.wait_mesh(daemon, other)
        up_at = time.monotonic()
        wait_for(lambda pump=pump, up_at=up_at: len([t for t in pump.sent_at if t > up_at]) > 50,
                 what="frames")
        pump.stop()
        assert ping(other, daemon.ip4, count=3).lost == 0
        numbers = [struct.unpack_from("!I", one, 14)[0] for one in into.drain()]
        assert numbers == list(range(numbers[0], len(pump.sent_at)))
        assert_all_received(other, daemon, before["tx_frames"])
        assert daemon.peer(other)["counters"]["lost"] == 0


# --- receivers ---


@pytest.mark.parametrize("dialler", ["alice", "bob"])
def test_initiator_and_listener_both_receive(lab, dialler):
    """Whoever began the connection, frames come in at both ends."""
    listener = "bob" if dialler == "alice" else "alice"
    alice, bob = lab.mesh("alice", "bob", peers={dialler: [listener], listener: []})
    lab.wait_mesh(alice, bob)
    roles = {d.name: d.peer(o)["session"]["role"] for d, o in ((alice, bob), (bob, alice))}
    assert roles == {dialler: "client", listener: "server"}
    for a, b in ((alice, bob), (bob, alice)):
        # one way only, so that no answer's way is needed
        assert udp_numbered(a, b, b.ip4, count=50) == list(range(50))
        assert ping(a, b.ip4).lost == 0
    for daemon, other in ((alice, bob), (bob, alice)):
        assert daemon.peer(other)["counters"]["rx_frames"] >= 60


@pytest.mark.parametrize("workers", [1, 3])
def test_udp_socket_is_bound_once(lab, workers):
    """As the kernel saw it: one bind for each worker's socket, none of them in vain."""
    machine, = lab.internet("alice")
    # the leak check of a sanitized build does not work under strace
    alice = lab.daemon(machine, sections={"Transport": {"Workers": workers}},
                       env={"ASAN_OPTIONS": "detect_leaks=0"})
    trace = alice.folder + "/trace"
    alice.start(wrapper=("strace", "-D", "-f", "-e", "trace=bind", "-o", trace))
    sockets = machine.sh("sh", "-c", "cat /proc/net/udp /proc/net/udp6").count(":24E3 ")
    assert sockets == workers
    alice.stop()
    wait_for(lambda: "+++ exited" in open(trace).read(), what="the trace's end")
    with open(trace) as file:
        binds = [line for line in file if re.search(r"sin6?_port=htons\(9443\)", line)]
    assert len(binds) == workers, binds
    assert all(line.rstrip().endswith("= 0") for line in binds), binds
    assert "EADDRINUSE" not in open(trace).read()


def test_several_peers_on_one_card(lab):
    """No peer's traffic disturbs another's: there is one reader, and a switch behind it."""
    hub, *others = lab.mesh("alice", "bob", "carol", "dave")
    results = {}

    def run(daemon, to, key):
        results[key] = ping(daemon, to, count=200, interval=0.003, size=1000)

    threads = []
    for daemon in others:
        threads.append(threading.Thread(target=run, args=(hub, daemon.ip4, (hub, daemon))))
        threads.append(threading.Thread(target=run, args=(daemon, hub.ip4, (daemon, hub))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {str(key): result.lost for key, result in results.items() if result.lost} == {}
    assert len(results) == 6
    # each of them has one TAP queue open, and only one
    for daemon in (hub, *others):
        fds = [os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.pid}/fd")
               if os.path.lexists(f"/proc/{daemon.pid}/fd/{fd}")]
        assert fds.count("/dev/net/tun") == 1
        assert not {"forged", "filtered", "unknown_session"} & daemon.drops().keys()


# --- secrecy ---


def test_no_frame_travels_in_the_clear(lab):
    """Whatever its EtherType and whatever its first byte: no 16 bytes of it are seen underneath."""
    alice, bob = lab.mesh("alice", "bob")
    plain = {}
    with Capture(alice.machine) as capture, bob.raw() as into, alice.raw() as out:
        for i, ethertype in enumerate((EXPERIMENTAL, 0x0806, 0x86DD, 0x8137, 0x88CC, 0x0800, 0x8863, 100)):
            for first in (b"\x45", b"\x60", b"\x00", b"\xff"):
                payload = first + patterned(f"{i} {first}", 99)
                one = frame(bob.mac, alice.mac, payload, ethertype)
                plain[ethertype, first] = payload
                out.send(one)
                got = into.wait(lambda got, p=payload: p[:32] in got)
                assert got == one
        # and a frame whose first byte looks like an IP version where an Ethernet header stands
        for first in (0x46, 0x4A, 0x66):
            odd = bytes([first]) + bytes.fromhex("00deadbeef") + alice.mac + b"\x88\xb5" + \
                patterned(first, 200)
            out.send(odd)
            assert into.wait(lambda got, odd=odd: got[:6] == odd[:6]) == odd
            plain["first byte", first] = odd[14:]
        plain["icmp"] = patterned("icmp", 200)
        assert ping(alice, bob.ip4, size=plain["icmp"]).lost == 0
        plain["macs"] = bob.mac + alice.mac + b"\x08\x00\x45\x00"
        # what does travel in the clear is found
        assert ping(alice, bob.machine.ip4, size=b"in the clear" * 10, count=1).lost == 0
    assert capture.find_any_part(b"in the clear" * 10)
    assert len(capture.udp()) > 30
    for name, payload in plain.items():
        assert capture.find_any_part(payload) == [], f"{name} in the clear"


# --- believing strangers ---


def junk(session=b"\0\0\0\0"):
    """Datagrams such as a stranger could send: noise, STUN-like, and with a header like ours."""
    return [b"", b"\x80", os.urandom(16), os.urandom(64), os.urandom(1400), bytes(100),
            b"\x80\x00\x01\x00" + session + struct.pack("!Q", 1) + os.urandom(60),
            b"\x80\x00\x00\x00" + session + struct.pack("!Q", 1 << 40) + os.urandom(200),
            b"\x00\x01\x00\x00\x21\x12\xa4\x42" + os.urandom(12)]


def test_first_datagram_is_not_believed(lab):
    """A stranger's datagrams come first, before there is any session: the peer's address is the peer's."""
    alice, bob = lab.mesh("alice", "bob", start=False)
    mallory, = lab.internet("mallory")
    strange = mallory.socket(socket.AF_INET, socket.SOCK_DGRAM)
    strange.bind(("0.0.0.0", 9443))
    alice.start()

    def attack():
        for one in junk():
            for target in ("198.51.100.1", "198.51.100.2"):
                strange.sendto(one, (target, 9443))

    for _ in range(20):
        attack()
    bob.start()
    for _ in range(20):
        attack()
    lab.wait_mesh(alice, bob)
    assert ping(alice, bob.ip4).lost == 0
    assert alice.peer(bob)["path"]["remote"] == "198.51.100.2:9443"
    assert bob.peer(alice)["path"]["remote"] == "198.51.100.1:9443"
    strange.setblocking(False)
    with pytest.raises(BlockingIOError):
        strange.recv(2000)  # a stranger gets no answer
    assert alice.peer("mallory") is None


def test_stolen_headers_move_nothing(lab):
    """Real datagrams, sent again and changed from another address: dropped, counted, not followed."""
    alice, bob = lab.mesh("alice", "bob")
    mallory, = lab.internet("mallory")
    alice.machine.segment()
    with Capture(alice.machine) as capture:
        assert ping(alice, bob.ip4, count=30, interval=0.002).lost == 0
    real = [view.payload for view in map(Datagram.parse, capture.frames)
            if view and view.dport == 9443 and view.destination == bob.machine.ip4]
    assert len(real) >= 30
    strange = mallory.socket(socket.AF_INET, socket.SOCK_DGRAM)
    forged = 0
    with bob.raw(0x0800) as into:
        for one in real:
            replay = one
            flipped = one[:20] + bytes([one[20] ^ 1]) + one[21:]
            ahead = one[:8] + struct.pack("!Q", struct.unpack_from("!Q", one, 8)[0] + 5000) + one[16:]
            for bad in (replay, flipped, ahead, one[:-1], one + b"\0"):
                strange.sendto(bad, (bob.machine.ip4, 9443))
                forged += 1
        wait_for(lambda: sum(bob.drops().get(name, 0) for name in ("forged", "replayed", "malformed"))
                 >= forged, what="all of them to be dropped")
        assert into.drain() == [], "something reached the card"
    drops = bob.drops()
    assert drops["replayed"] >= len(real) and drops["forged"] >= 3 * len(real), drops
    path = bob.peer(alice)["path"]
    assert path["remote"] == "198.51.100.1:9443" and path["moves"] == 0
    # the window was not moved by "ahead"
    assert ping(alice, bob.ip4, count=50, interval=0.002).lost == 0
    assert bob.peer(alice)["counters"]["lost"] == 0


# --- the rest ---


def test_tagged_frame_of_full_size_is_not_cut(lab):
    """1518 bytes; the earlier system read 1514 of them."""
    alice, bob = lab.mesh("alice", "bob")
    one = bob.mac + alice.mac + struct.pack("!HHH", 0x8100, 42, 0x0900) + patterned("tagged", 1500)
    assert len(one) == 1518
    with bob.raw() as into, alice.raw() as out:
        out.send(one)
        assert into.wait(lambda got: got[12:14] == b"\x81\x00") == one


def test_address_that_is_taken_by_nobody_may_not_be_a_warning(lab):
    """An address that cannot be set ends the start with an error: no tunnel that looks up and is not."""
    machine, = lab.internet("alice")
    machine.sh("sh", "-c", "for i in all default; do"
               " echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
    alice = lab.daemon(machine, address=("10.7.0.1/24", "fd77::1/64"))
    log = alice.refuse()
    assert re.search(r" error .*cannot set address fd77::1/64: ", log), log
    assert "READY=1" not in alice.notified
    alice.check_gone()


def test_arp_and_ping_agree(lab):
    """The symptom itself: ARP REACHABLE, and yet "Destination Host Unreachable"."""
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        result = ping(a, b.ip4, count=20)
        assert result.lost == 0 and "Unreachable" not in result.text, result.text
        listener = b.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((b.ip4, 5555))
        listener.listen(1)
        with a.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((b.ip4, 5555))  # "No route to host" there
        listener.close()
