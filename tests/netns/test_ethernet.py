# SPDX-License-Identifier: MIT
"""
Frames as such: every size, tag and EtherType crosses byte by byte; large ones in parts; what a member may
not send does not arrive.

    raw socket -> [ smesh0 ] alice ==== internet ==== bob [ smesh0 ] -> raw socket
"""

import itertools
import socket
import struct

import pytest

from lab import (EXPERIMENTAL, Capture, Datagram, checksum, patterned, ping, tcp_both_ways, wait_for)

BROADCAST = b"\xff" * 6
STRANGER = bytes.fromhex("06aabbccdd01")  # a MAC that nobody owns


def frame(destination, source, ethertype=EXPERIMENTAL, payload=b"", tag=None):
    tag = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return destination + source + tag + struct.pack("!H", ethertype) + payload


def check_crosses(a, b, one, timeout=5.0):
    """Sent on a's card, it arrives on b's, unchanged and once."""
    with b.raw(timeout=timeout) as into, a.raw() as out:
        out.send(one)
        assert into.wait(lambda got: got[:14] == one[:14]) == one
        assert ping(a, b.ip4, count=1).lost == 0
        assert [got for got in into.drain() if got == one] == []


# --- untouched ---


def test_full_size_vlan_frame(lab):
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        for destination in (b.mac, BROADCAST, bytes.fromhex("01005e0000fb")):
            one = frame(destination, a.mac, 0x0800 + 1, patterned("vlan", 1500), tag=0x2ABC)
            assert len(one) == 1518
            check_crosses(a, b, one)


def test_unknown_ethertype(lab):
    alice, bob = lab.mesh("alice", "bob")
    for a, b in ((alice, bob), (bob, alice)):
        for destination in (b.mac, BROADCAST):
            check_crosses(a, b, frame(destination, a.mac, EXPERIMENTAL, patterned("x", 1500)))


def test_every_length(lab):
    """From the smallest frame to the largest; the first bytes of the payload look like IP versions."""
    alice, bob = lab.mesh("alice", "bob")
    sizes = [*range(0, 70), *range(1380, 1501), 128, 256, 512, 1024]
    with bob.raw(EXPERIMENTAL) as into, alice.raw() as out:
        for size in sizes:
            for first in (0x45, 0x60, 0x00) if size in (46, 1500) else (0x45,):
                one = frame(bob.mac, alice.mac, payload=(bytes([first]) + patterned(size, size))[:size])
                out.send(one)
                assert into.receive() == one
    assert alice.drops().keys() <= {"no_session"}
    assert not bob.drops().keys() - {"no_session"}


@pytest.mark.parametrize("one", [
    pytest.param(frame(bytes.fromhex("0180c2000000"), STRANGER, 38, b"\x42\x42\x03" + bytes(35)), id="BPDU"),
    pytest.param(frame(BROADCAST, STRANGER, 0x8137, patterned("ipx", 200)), id="IPX"),
    pytest.param(frame(bytes.fromhex("0180c200000e"), STRANGER, 0x88CC, patterned("lldp", 100)), id="LLDP"),
    pytest.param(frame(BROADCAST, STRANGER, 0x8100, struct.pack("!HH", 7, EXPERIMENTAL) +
                       patterned("qinq", 900), tag=5), id="two tags"),
    pytest.param(frame(BROADCAST, STRANGER, EXPERIMENTAL, patterned("p", 60), tag=0xE000), id="priority tag"),
])
def test_odd_frames(lab, one):
    alice, bob = lab.mesh("alice", "bob")
    check_crosses(alice, bob, one)
    # the stranger is learned at alice's now; it may move to bob's
    with bob.raw() as out:
        out.send(one)
    assert ping(bob, alice.ip4).lost == 0


def test_order_is_kept(lab):
    alice, bob = lab.mesh("alice", "bob")
    with bob.raw(EXPERIMENTAL) as into, alice.raw() as out:
        for n in range(2000):
            out.send(frame(bob.mac, alice.mac, payload=struct.pack("!I", n) + bytes(100)))
            if n % 50 == 49:  # the card's queue is finite
                for k in range(n - 49, n + 1):
                    assert struct.unpack_from("!I", into.receive(), 14)[0] == k


# --- large ---


def capture_wire(alice, bob):
    """A capture at alice's card that sees what a wire between the two would carry."""
    for daemon in (alice, bob):
        daemon.machine.segment()
    return Capture(alice.machine)


def underlay_sizes(capture):
    """Of the datagrams with frames in them; lane 0 has control messages and probes."""
    return [len(payload) for payload in capture.udp() if payload[2] != 0]


def test_jumbo_without_parts(lab):
    alice, bob = lab.mesh("alice", "bob", mtu=9216, sections={"Interface": {"MTU": 9000}})
    for a, b in ((alice, bob), (bob, alice)):
        wait_for(lambda a=a, b=b: a.peer(b)["path"]["mtu"] > 9100, 10, f"{a} to find the path's MTU")
    with capture_wire(alice, bob) as capture:
        for a, b in ((alice, bob), (bob, alice)):
            assert ping(a, b.ip4, count=20, size=8972, df=True).lost == 0
            assert ping(a, b.ip6, count=20, size=8952, df=True).lost == 0
    sizes = [size for size in underlay_sizes(capture) if size > 1000]
    assert len(sizes) == 2 * 2 * 2 * 20, "one datagram for each frame"
    assert min(sizes) > 9000
    check_crosses(alice, bob, frame(bob.mac, alice.mac, payload=patterned("jumbo", 9000), tag=9))
    tcp_both_ways(alice, bob, bob.ip4, mbytes=20)


@pytest.mark.parametrize("families,path_mtu", [((4,), 1500), ((6,), 1500), ((4,), 1280)],
                         ids=["IPv4", "IPv6", "PathMTU 1280"])
def test_jumbo_in_parts(lab, families, path_mtu):
    sections = {"Interface": {"MTU": 9000}}
    if path_mtu != 1500:
        sections["Transport"] = {"PathMTU": path_mtu}
    alice, bob = lab.mesh("alice", "bob", families=families, sections=sections)
    with capture_wire(alice, bob) as capture:
        for a, b in ((alice, bob), (bob, alice)):
            for size in (1372, 1400, 1444, 1472, 2800, 8972):
                assert ping(a, b.ip4, count=5, size=size, df=True).lost == 0, size
    overhead = 28 if families == (4,) else 48
    sizes = underlay_sizes(capture)
    assert max(sizes) <= path_mtu - overhead
    assert len(sizes) > 2 * 2 * 5 * (6 + 6 + 1), "the largest need seven datagrams each"
    # nothing was fragmented underneath
    assert all(Datagram.parse(f) is None or f[12:14] == b"\x86\xdd" or
               struct.unpack_from("!H", f, 20)[0] & 0x3FFF == 0 for f in capture.frames)
    tcp_both_ways(alice, bob, bob.ip4, mbytes=10)
    check_crosses(alice, bob, frame(bob.mac, alice.mac, payload=patterned("large", 9000), tag=0xFFE))
    for daemon in (alice, bob):
        assert daemon.drops().keys() <= {"no_session"}


def test_full_frames_over_small_underlay(lab):
    """A LAN of 1500 stays one of 1500 on a path that carries 1400."""
    alice, bob = lab.mesh("alice", "bob", mtu=1400)
    for a, b in ((alice, bob), (bob, alice)):
        assert ping(a, b.ip4, count=20, size=1472, df=True).lost == 0
    tcp_both_ways(alice, bob, bob.ip4, mbytes=5)


def test_different_mtu_is_told(lab):
    alice, bob = lab.mesh("alice", "bob", each={"alice": {"Interface": {"MTU": 1400}}})
    assert "peer bob has MTU 1500, this node 1400" in alice.log()
    assert "peer alice has MTU 1400, this node 1500" in bob.log()
    assert ping(bob, alice.ip4, size=1300).lost == 0


# --- what does not belong to the sender ---


def star(lab):
    """bob knows alice and carol; those two know only bob, and so cannot tell what the other owns."""
    alice, bob, carol = lab.mesh("alice", "bob", "carol",
                                 peers={"alice": ["bob"], "bob": ["alice", "carol"], "carol": ["bob"]})
    bob.wait_up(alice, carol)
    alice.wait_up(bob)
    carol.wait_up(bob)
    return alice, bob, carol


def arp(source_mac, sender_mac, sender_ip, target_ip, operation=1):
    return frame(BROADCAST, source_mac, 0x0806, struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender_mac, socket.inet_aton(sender_ip),
        bytes(6), socket.inet_aton(target_ip)))


def advertisement(source_mac, address, link_mac):
    """An unsolicited neighbour advertisement for somebody's IPv6 address."""
    source = socket.inet_pton(socket.AF_INET6, address)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHI16s", 136, 0, 0, 0x20000000, source) + b"\x02\x01" + link_mac
    total = checksum(source + group + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    packet = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + group + body
    return frame(bytes.fromhex("333300000001"), source_mac, 0x86DD, packet)


def check_dropped(sender, receiver, reason, *frames):
    """The frames do not reach the receiver's card, and its counter says why."""
    before = receiver.drops().get(reason, 0)
    with receiver.raw() as into, sender.raw() as out:
        for one in frames:
            out.send(one)
        wait_for(lambda: receiver.drops().get(reason, 0) >= before + len(frames),
                 what=f"{reason} in {receiver.drops()}")
        # a frame that is allowed and comes after them
        last = frame(receiver.mac, sender.mac, payload=b"after")
        out.send(last)
        seen = []
        into.wait(lambda got: seen.append(got) or got[:19] == last[:19])
    assert not [got for got in seen if any(got[:14] == one[:14] for one in frames)]
    assert receiver.drops()[reason] == before + len(frames)


def test_foreign_mac_is_dropped(lab):
    alice, bob, carol = star(lab)
    check_dropped(carol, bob, "source_owned",
                  frame(bob.mac, alice.mac, payload=b"I am alice"),
                  frame(BROADCAST, alice.mac, payload=b"I am alice"),
                  frame(bob.mac, alice.mac, payload=b"I am alice", tag=3))
    # and alice is reached where she is
    assert ping(bob, alice.ip4).lost == 0
    assert ping(alice, bob.ip4).lost == 0


def test_foreign_arp_claim_is_dropped(lab):
    alice, bob, carol = star(lab)
    alice_ip, bob_ip = alice.ip4, bob.ip4
    claims = [arp(carol.mac, carol.mac, alice_ip, bob_ip),               # request
              arp(carol.mac, carol.mac, alice_ip, bob_ip, operation=2),  # reply
              arp(STRANGER, STRANGER, alice_ip, alice_ip)]               # gratuitous, from an unowned MAC
    check_dropped(carol, bob, "claim", *claims)
    assert ping(bob, alice_ip).lost == 0
    # her own address she may claim
    with bob.raw(0x0806) as into, carol.raw() as out:
        out.send(arp(carol.mac, carol.mac, carol.ip4, bob_ip))
        into.wait(lambda got: got[6:12] == carol.mac)


@pytest.mark.parametrize("certified", [True, False], ids=["certified", "derived"])
def test_foreign_neighbour_advertisement_is_dropped(lab, certified):
    """The addresses of a certificate, and the one that follows from network and name."""
    if certified:
        lab_mesh_issue = {"alice": "fd77::1/64", "bob": "fd77::2/64", "carol": "fd77::3/64"}
        names = list(lab_mesh_issue)
        lab.internet(*names)
        daemons = [lab.daemon(lab.machines[n], address=lab_mesh_issue[n],
                              sections={"Interface": {"ULA": "no"}},
                              peers=["bob"] if n != "bob" else ["alice", "carol"]) for n in names]
        for daemon in daemons:
            daemon.start()
        alice, bob, carol = daemons
        bob.wait_up(alice, carol)
        carol.wait_up(bob)
    else:
        alice, bob, carol = star(lab)
    check_dropped(carol, bob, "claim", advertisement(carol.mac, alice.ip6, carol.mac),
                  advertisement(STRANGER, alice.ip6, STRANGER))
    assert ping(bob, alice.ip6).lost == 0


def test_own_switch_refuses_first(lab):
    """Where the sender's daemon knows the owner, the frame does not even leave the machine."""
    alice, bob, carol = lab.mesh("alice", "bob", "carol")
    spoofed = frame(bob.mac, alice.mac, payload=b"I am alice")
    claim = arp(carol.mac, carol.mac, alice.ip4, bob.ip4)
    with carol.raw() as out, bob.raw() as into:
        out.send(spoofed)
        out.send(claim)
        wait_for(lambda: {"source_owned", "claim"} <= carol.drops().keys(), what="drops at carol's")
        assert ping(carol, bob.ip4, count=1).lost == 0
        assert not [got for got in into.drain() if got[:len(spoofed)] == spoofed or got[:42] == claim]
    assert not {"source_owned", "claim"} & bob.drops().keys()


def test_group_source_is_dropped(lab):
    alice, bob = lab.mesh("alice", "bob")
    with alice.raw() as out:
        out.send(frame(bob.mac, bytes.fromhex("03aabbccdd01"), payload=b"x"))
        wait_for(lambda: alice.drops().get("source_group") == 1, what="source_group")
    assert ping(alice, bob.ip4).lost == 0


def test_split_horizon(lab):
    """What comes from the mesh never goes back into it: alice and carol, who share only bob, stay apart."""
    alice, bob, carol = star(lab)
    with carol.raw(EXPERIMENTAL) as into, bob.raw(EXPERIMENTAL) as middle, alice.raw() as out:
        for number, destination in itertools.product(range(5), (BROADCAST, carol.mac)):
            one = frame(destination, alice.mac, payload=bytes([number]) + b"not for carol")
            out.send(one)
            if destination == BROADCAST:
                assert middle.wait(lambda got, one=one: got[:12] == one[:12]) == one
        assert ping(bob, carol.ip4).lost == 0
        assert into.drain() == []
    assert bob.peer(carol)["state"] == "up"
