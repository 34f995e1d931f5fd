# SPDX-License-Identifier: MIT
"""
What programs send, through real daemons: ICMP, TCP, UDP, ARP, multicast; over each underlay, cipher and
number of workers.

    [ alice ] ==== internet ==== [ bob ]        and [ carol ] where three are needed: see lab.py
"""

import contextlib
import socket
import struct
import threading

import pytest

from faults import card_drops
from lab import (Lab, family_of, neighbour, patterned, ping, tcp_both_ways, udp_numbered, iperf3, wait_for)

UDP_SEGMENT = 103  # of <linux/udp.h>


def address_of(daemon, family):
    return daemon.ip4 if family == 4 else daemon.ip6


def assert_nothing_lost(*daemons):
    """No packet of any session is missing, and no frame was dropped once the sessions were there."""
    for daemon in daemons:
        for name, peer in daemon.peers().items():
            counters = peer["counters"]
            assert (counters["lost"], counters["late"], counters["duplicate"], counters["forged"]) == (
                0, 0, 0, 0), f"{daemon} from {name}: {counters}"
        drops = daemon.drops()
        drops.pop("no_session", None)  # the kernel's own, before there was anybody to send to
        assert not drops, f"{daemon}: {drops}"


# --- ICMP ---


@pytest.mark.parametrize("family", [4, 6])
def test_icmp(lab, family):
    alice, bob = lab.mesh("alice", "bob")
    full = 1472 if family == 4 else 1452
    for a, b in ((alice, bob), (bob, alice)):
        to = address_of(b, family)
        for result in (ping(a, to, count=200, interval=0.002),
                       ping(a, to, count=50, interval=0.002, size=full, df=True),
                       ping(a, to, count=50, interval=0.002, size=full + 1),
                       ping(a, to, count=50, interval=0.002, size=8000),
                       ping(a, to, count=10, interval=0.2, size=60000)):
            assert result.lost == 0 and result.duplicates == 0, result.text
    too_big = ping(alice, address_of(bob, family), count=1, size=full + 1, df=True, deadline=1)
    assert too_big.received == 0, "the card's MTU is 1500"
    assert_nothing_lost(alice, bob)


def test_icmp_both_directions_at_once(lab):
    alice, bob = lab.mesh("alice", "bob")
    addresses = {alice: bob.ip4, bob: alice.ip4}
    results = {}

    def run(daemon):
        results[daemon] = ping(daemon, addresses[daemon], count=300, interval=0.002, size=1400)

    threads = [threading.Thread(target=run, args=(daemon,)) for daemon in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[d].lost for d in (alice, bob)] == [0, 0]
    assert_nothing_lost(alice, bob)


# --- TCP and UDP ---


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_both_ways(lab, family):
    alice, bob = lab.mesh("alice", "bob")
    tcp_both_ways(alice, bob, address_of(bob, family), mbytes=50)
    assert alice.peer(bob)["state"] == "up"


@pytest.mark.parametrize("size", [4, 1000, 1472, 9000])
def test_udp(lab, size):
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        assert udp_numbered(a, b, b.ip4, count=300, size=size) == list(range(300))
        assert udp_numbered(a, b, b.ip6, count=100, size=size) == list(range(100))
    assert_nothing_lost(alice, bob)


def udp_overflows(daemon):
    """Datagrams for which a socket of its machine had no room."""
    names, values = [line.split() for line in daemon.machine.sh("cat", "/proc/net/snmp").splitlines()
                     if line.startswith("Udp:")]
    return int(dict(zip(names, values))["RcvbufErrors"])


def test_iperf3_udp_without_loss(lab):
    alice, bob = lab.mesh("alice", "bob")
    report = iperf3(alice, bob, bob.ip4, "-u", "-b", "30M", "-l", "1400", "-w", "4M", seconds=1)
    total = report["end"]["sum"]
    assert total["packets"] > 1000
    # on a busy machine the cards' queues and its own socket may overflow; the tunnel may not lose any
    at_cards = card_drops(alice, "tx") + card_drops(bob, "rx")
    assert total["lost_packets"] <= at_cards + udp_overflows(bob), report
    wait_for(lambda: bob.peer(alice)["counters"]["rx_frames"] + at_cards >= total["packets"], what="all of them")
    assert_nothing_lost(alice, bob)


OFFLOADS = pytest.mark.parametrize("offload", [("yes", "yes"), ("no", "yes"), ("yes", "no"), ("no", "no")],
                                   ids=["both", "bob only", "alice only", "none"])


def mesh_with_offloads(lab, offload, **options):
    return lab.mesh("alice", "bob", each={
        name: {"Transport": {"Offload": value}} for name, value in zip(("alice", "bob"), offload)}, **options)


def udp_in_one_piece(a, b, address, count=40, size=1200, port=5003):
    """Sends datagrams in one call, which the kernel gives to its card in one piece if that cuts; the last one
    is shorter. Each arrives, in order, with what was in it."""
    assert ping(a, address, count=1).lost == 0
    receiver = b.socket(family_of(address), socket.SOCK_DGRAM, timeout=2)
    receiver.bind((address, port))
    sender = a.socket(family_of(address), socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
    whole = patterned("in one piece", count * size + size // 3)
    sender.sendto(whole, (address, port))
    for at in range(0, len(whole), size):
        assert receiver.recv(1 << 16) == whole[at:at + size]
    sender.close()
    receiver.close()


@OFFLOADS
def test_offload(lab, offload):
    """Whatever the two can do in one piece, all arrives as it was sent."""
    alice, bob = mesh_with_offloads(lab, offload)
    for a, b in ((alice, bob), (bob, alice)):
        for to in (b.ip4, b.ip6):
            assert ping(a, to, count=50, interval=0.002, size=1400).lost == 0
            assert udp_numbered(a, b, to, count=200, size=1200, pause=0) == list(range(200))
            for size in (1200, 100):
                udp_in_one_piece(a, b, to, size=size)
    assert_nothing_lost(alice, bob)
    for to in (bob.ip4, bob.ip6):
        tcp_both_ways(alice, bob, to, mbytes=15)


# --- neighbours ---


@pytest.mark.parametrize("family", [4, 6])
def test_neighbours_are_resolved(lab, family):
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        a.machine.ip("neigh flush dev smesh0")
        to = address_of(b, family)
        assert ping(a, to, count=1).lost == 0
        # one that the other has just asked for our address is confirmed 5 s later (delay_first_probe_time)
        wait_for(lambda a=a, to=to: neighbour(a, to).get("state") == ["REACHABLE"], 10, "a neighbour")
        entry = neighbour(a, to)
        assert entry["lladdr"] == b.mac.hex(":"), entry


def test_arping(lab):
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        to = b.ip4
        for _ in range(3):  # it ends with the answer
            text = a.machine.sh("arping", "-c", "1", "-C", "1", "-W", "5", "-i", "smesh0", to)
            assert "1 packets transmitted, 1 packets received" in text, text
            assert b.mac.hex(":") in text


# --- one to many ---


def group_receiver(daemon, group, port):
    index = daemon.status()["interface"]["ifindex"]
    if ":" in group:
        sock = daemon.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::", port))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                        socket.inet_pton(socket.AF_INET6, group) + struct.pack("=i", index))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    else:
        sock = daemon.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if group != "255.255.255.255":
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                            socket.inet_aton(group) + struct.pack("=4si", bytes(4), index))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF,
                        struct.pack("=4s4si", bytes(4), bytes(4), index))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"smesh0")
    return sock


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "255.255.255.255"])
def test_multicast_reaches_all(lab, group):
    daemons = lab.mesh("alice", "bob", "carol")
    sockets = [group_receiver(daemon, group, 5353) for daemon in daemons]
    for i, sender in enumerate(sockets):
        # the largest mDNS message that needs no fragments, and a small one
        for size in (1440, 60):
            message = patterned(f"{group} {i}", size)
            sender.sendto(message, (group, 5353))
            if group == "255.255.255.255":
                assert sender.recv(9000) == message  # the kernel's own copy
            for k, receiver in enumerate(sockets):
                if k != i:
                    assert receiver.recv(9000) == message
    for sock in sockets:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(9000)  # once, and not to the sender
    assert_nothing_lost(*daemons)


def test_three_nodes_pairwise_at_once(lab):
    alice, bob, carol = lab.mesh("alice", "bob", "carol")
    problems, pings = [], {}

    def transfer(a, b, port):
        try:
            tcp_both_ways(a, b, b.ip4, mbytes=15, port=port)
        except (AssertionError, OSError) as error:
            problems.append(f"{a} and {b}: {error!r}")

    def probe(a, b):
        pings[a, b] = ping(a, b.ip6, count=50, interval=0.01, deadline=10)

    pairs = ((alice, bob), (bob, carol), (carol, alice))
    threads = [threading.Thread(target=transfer, args=(a, b, 5100 + i))
               for i, (a, b) in enumerate(pairs)]
    threads += [threading.Thread(target=probe, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [p.text for p in pings.values() if p.received == 0] == []


# --- underlays, ciphers, workers ---


@pytest.mark.parametrize("families", [(4,), (6,)], ids=["IPv4 only", "IPv6 only"])
def test_one_family_underneath(lab, families):
    alice, bob = lab.mesh("alice", "bob", families=families)
    for a, b in ((alice, bob), (bob, alice)):
        assert ping(a, b.ip4).lost == 0
        assert ping(a, b.ip6).lost == 0
        assert ping(a, b.ip4, size=1472, df=True).lost == 0
    tcp_both_ways(alice, bob, bob.ip4, mbytes=5)
    remote = alice.peer(bob)["path"]["remote"]
    assert remote == ("198.51.100.2:9443" if families == (4,) else "[2001:db8::2]:9443")
    assert_nothing_lost(alice, bob)


def test_machine_without_ipv6(lab):
    """IPv6 switched off in the kernel, at both ends: an IPv4 network all the same."""
    machines = [lab.machine("alice"), lab.machine("bob")]
    for machine in machines:
        machine.sh("sh", "-c", "for i in all default; do"
                   " echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
    alice, bob = lab.mesh("alice", "bob", families=(4,), sections={"Interface": {"ULA": "no"}})
    assert ping(alice, bob.ip4).lost == 0


@pytest.mark.parametrize("both", [True, False], ids=["both", "one"])
def test_chacha20(lab, both):
    chacha = {"Network": {"Cipher": "chacha20-poly1305"}}
    alice, bob = lab.mesh("alice", "bob", each={"alice": chacha, "bob": chacha if both else {}})
    for a, b in ((alice, bob), (bob, alice)):
        assert a.peer(b)["session"]["cipher"] == "chacha20-poly1305"
        assert ping(a, b.ip4, count=50, size=1472, df=True).lost == 0
    assert "ChaCha20-Poly1305" in alice.log()
    tcp_both_ways(alice, bob, bob.ip4, mbytes=10)


def test_no_cipher_in_common(lab):
    alice, bob = lab.mesh("alice", "bob", peers={}, start=False, each={
        "alice": {"Network": {"Cipher": "chacha20-poly1305"}},
        "bob": {"Network": {"Cipher": "aes-256-gcm"}}})
    for daemon in (alice, bob):
        daemon.start()
    for daemon in (alice, bob):
        daemon.wait_log(r"(?i)(warn|error).*cipher")
    assert not alice.is_up(bob) and not bob.is_up(alice)


def dropped_by_name(a, b):
    return card_drops(a, "tx") + sum(a.drops().values()) + sum(b.drops().values()) + card_drops(b, "rx")


@pytest.mark.parametrize("workers", [(2, 2), (4, 4), (1, 3)])
def test_several_workers(lab, workers):
    alice, bob = lab.mesh("alice", "bob", each={
        name: {"Transport": {"Workers": n}} for name, n in zip(("alice", "bob"), workers)})
    for daemon, n in zip((alice, bob), workers):
        assert daemon.status()["transport"]["workers"] == n
        queues = daemon.machine.sh("sh", "-c", "ls -d /proc/$0/task/*", str(daemon.pid)).split()
        assert len(queues) >= n
    # a flow stays on one queue and keeps its order
    for a, b in ((alice, bob), (bob, alice)):
        before = dropped_by_name(a, b)
        arrived = udp_numbered(a, b, b.ip4, count=1000, size=1000, pause=0, window=1000)
        assert arrived == sorted(set(arrived))
        # the card's queue is finite, and that between two workers (128); what does not fit is counted
        assert len(arrived) >= 100
        assert len(arrived) + dropped_by_name(a, b) - before >= 1000
        assert ping(a, b.ip4, count=100, interval=0.002).lost == 0
    problems = []

    def transfer(port):
        try:
            tcp_both_ways(alice, bob, bob.ip4, mbytes=15, port=port)
        except (AssertionError, OSError) as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=transfer, args=(5200 + i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    for a, b in ((alice, bob), (bob, alice)):
        counters = a.peer(b)["counters"]
        assert counters["forged"] == 0 and counters["duplicate"] == 0, counters
        # reordering on the way would show here: each lane has one sender and one owner
        assert counters["late"] <= counters["rx_frames"] / 1000, counters


def test_reconnects_by_itself(lab):
    alice, bob = lab.mesh("alice", "bob")
    for daemon, other in ((alice, bob), (bob, alice)):
        daemon.restart()
        Lab.wait_mesh(daemon, other)
        assert ping(daemon, other.ip4).lost == 0
        assert ping(other, daemon.ip4).lost == 0


@pytest.mark.parametrize("options", [
    ("--loss", "2%", "--delay", "5ms"),
    ("--reorder", "5%", "--duplicate", "5%", "--delay", "2ms", "--jitter", "1ms"),
    ("--corrupt", "1%",),
], ids=["loss", "disorder", "corruption"])
def test_bad_wire(lab, options):
    """Checksummed data gets through whatever the wire does; nothing forged or twice arrives."""
    alice, bob = lab.mesh("alice", "bob", impair=(*options, "--seed", "7"))
    tcp_both_ways(alice, bob, bob.ip4, mbytes=4)
    arrived = udp_numbered(alice, bob, bob.ip4, count=300, size=600)
    assert len(set(arrived)) == len(arrived), "a datagram came twice"
    assert len(arrived) > 200


def some_of_one_piece(a, b, address, size, count=40, rounds=5, port=5004):
    """The same on a wire that loses and disorders: what arrives is what was sent, and nothing twice.
    Gives the share that arrives."""
    receiver = b.socket(family_of(address), socket.SOCK_DGRAM, timeout=0.5)
    receiver.bind((address, port))
    sender = a.socket(family_of(address), socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
    missing = set()
    for i in range(rounds):
        whole = patterned(f"piece {i}", count * size)
        sender.sendto(whole, (address, port))
        missing |= {whole[at:at + size] for at in range(0, len(whole), size)}
    assert len(missing) == rounds * count
    with contextlib.suppress(TimeoutError):
        while missing:
            missing.remove(receiver.recv(1 << 16))  # a KeyError: damaged, or twice
    sender.close()
    receiver.close()
    return 1 - len(missing) / (rounds * count)


@OFFLOADS
def test_offload_on_a_bad_wire(lab, offload):
    """Lost and disordered pieces of super-frames, in every combination: no byte comes wrong, none twice."""
    alice, bob = mesh_with_offloads(lab, offload, impair=(
        "--loss", "1%", "--reorder", "3%", "--duplicate", "1%", "--delay", "1ms", "--jitter", "500us", "--seed", "11"))
    for to in (bob.ip4, bob.ip6):
        wait_for(lambda to=to: ping(alice, to, count=1).lost == 0, 20, what="a way")
        tcp_both_ways(alice, bob, to, mbytes=4)
        for size in (1200, 100):
            assert some_of_one_piece(alice, bob, to, size) > 0.5
