# SPDX-License-Identifier: MIT
"""
Path MTU: what lies between two nodes carries less than their own links, and nobody tells them, since ICMP
errors are filtered, as on many real ways.

    alice           router west        router east           bob
    [ eth0 ] ====== [ end mid ] ------- [ mid end ] ====== [ eth0 ]
     1.2            1.1   2.1           2.2   3.1           3.2         net and host: 10.1.0.2, fd00:1::2
             1500           the middle: less        1500
"""

import struct

import pytest

from faults import Flow, Transfer, nft
from lab import Capture, now, ping, tcp_both_ways, wait_for

STEP = 8  # bytes: finer than that is not searched
RESUME_NARROW = 5.0

FILTER = """
table inet silence {
	chain out {
		type filter hook output priority 0
		icmp type destination-unreachable drop
		icmpv6 type packet-too-big drop
	}
}
"""


class Way:
    """Two machines with two routers between them."""

    def __init__(self, lab, links=1500, middle=1500):
        self.alice, self.west, self.east, self.bob = (
            lab.machine(name) for name in ("alice", "west", "east", "bob"))
        lab.cable(self.alice, "eth0", self.west, "end", links)
        lab.cable(self.west, "mid", self.east, "mid", middle)
        lab.cable(self.bob, "eth0", self.east, "end", links)
        for machine, ifname, net, host in ((self.alice, "eth0", 1, 2), (self.west, "end", 1, 1),
                                           (self.west, "mid", 2, 1), (self.east, "mid", 2, 2),
                                           (self.east, "end", 3, 1), (self.bob, "eth0", 3, 2)):
            machine.ip(f"addr add 10.{net}.0.{host}/24 dev {ifname}")
            machine.ip(f"addr add fd00:{net}::{host}/64 dev {ifname} nodad")
        for machine, gateway in ((self.alice, 1), (self.bob, 3)):
            machine.ip(f"route add default via 10.{gateway}.0.1")
            machine.ip(f"-6 route add default via fd00:{gateway}::1")
        for router, net, gateway in ((self.west, 3, 2), (self.east, 1, 1)):
            router.sh("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward;"
                                  " echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
            router.ip(f"route add 10.{net}.0.0/24 via 10.2.0.{gateway}")
            router.ip(f"-6 route add fd00:{net}::/64 via fd00:2::{gateway}")
            nft(router, FILTER)

    def narrow(self, mtu):
        for router in (self.west, self.east):
            router.ip(f"link set mid mtu {mtu}")

    def daemons(self, lab, family=4, sections=None):
        """Alice's and bob's, connected."""
        for machine, net in ((self.alice, 1), (self.bob, 3)):
            machine.ip4 = f"10.{net}.0.2" if family == 4 else None
            machine.ip6 = f"fd00:{net}::2" if family == 6 else None
        daemons = [lab.daemon(self.alice, peers=["bob"], sections=sections),
                   lab.daemon(self.bob, peers=["alice"], sections=sections)]
        for daemon in daemons:
            daemon.start(wait=False)
        for daemon in daemons:
            daemon.wait_ready()
        lab.wait_mesh(*daemons)
        return daemons


def path(a, b):
    return a.peer(b)["path"]


def wait_found(alice, bob, mtu, timeout=10.0):
    for a, b in ((alice, bob), (bob, alice)):
        wait_for(lambda a=a, b=b: path(a, b)["mtu_state"] == "complete" and
                 mtu - STEP < path(a, b)["mtu"] <= mtu, timeout, f"{a} to find {mtu}")


def fragments(capture):
    return [frame for frame in capture.frames
            if frame[12:14] == b"\x08\x00" and struct.unpack_from("!H", frame, 20)[0] & 0x3FFF or
            frame[12:14] == b"\x86\xdd" and frame[20] == 44]


def check_full_frames(alice, bob, count=10):
    for a, b in ((alice, bob), (bob, alice)):
        assert ping(a, b.ip4, count=count, size=1472, df=True).lost == 0


@pytest.mark.parametrize("family", [4, 6])
def test_narrow_middle(lab, family):
    """The middle carries 1400: full frames cross all the time, and nothing is fragmented on the way."""
    way = Way(lab, middle=1400)
    # the handshake's first attempt is lost in the same hole
    alice, bob = way.daemons(lab, family)
    with Capture(way.bob) as capture:
        check_full_frames(alice, bob)  # while the size is not known yet
        wait_found(alice, bob, 1400)
        check_full_frames(alice, bob)
        tcp_both_ways(alice, bob, bob.ip4, mbytes=5)
    assert not fragments(capture)
    for a, b in ((alice, bob), (bob, alice)):
        assert path(a, b)["black_holes"] == 0
        assert "too_big" not in a.drops()


def test_jumbo_all_the_way(lab):
    """What all links carry is used without configuration: one probe finds it."""
    way = Way(lab, links=9000, middle=9000)
    alice, bob = way.daemons(lab, sections={"Interface": {"MTU": 8900}})
    wait_found(alice, bob, 9000, timeout=2)
    for a, b in ((alice, bob), (bob, alice)):
        assert path(a, b)["mtu"] == 9000
        # the probes that prove batches are datagrams, too; the next ones are 10 s away
        wait_for(lambda a=a, b=b: a.peer(b)["offload"]["batches"], what="batches")
        before = a.counters()["udp_send_packets"]
        assert ping(a, b.ip4, count=20, size=8872, df=True).lost == 0
        assert a.counters()["udp_send_packets"] - before < 40, "one datagram for each frame"


def test_jumbo_links_narrow_middle(lab):
    way = Way(lab, links=9000, middle=1500)
    alice, bob = way.daemons(lab, sections={"Interface": {"MTU": 8900}})
    wait_found(alice, bob, 1500)
    assert path(alice, bob)["mtu"] == path(bob, alice)["mtu"] == 1500, "a usual size is found exactly"
    for a, b in ((alice, bob), (bob, alice)):
        assert ping(a, b.ip4, count=20, size=8872, df=True).lost == 0


@pytest.mark.parametrize("family", [4, 6])
def test_middle_becomes_narrow(lab, family):
    """1500, then 1300 amid a session: datagrams and TCP come back within 5 s, and the new size is found."""
    way = Way(lab)
    alice, bob = way.daemons(lab, family)
    wait_found(alice, bob, 1500)
    transfers = [Transfer(alice, bob, bob.ip4, 20_000_000), Transfer(bob, alice, alice.ip4, 20_000_000)]
    flows = [Flow(alice, bob, bob.ip4, size=1350), Flow(bob, alice, alice.ip4, size=1350)]
    for flow in flows:
        flow.wait_resumed(now())
    way.narrow(1300)
    since = now()
    for flow in flows:
        flow.wait_resumed(since, RESUME_NARROW)
    for transfer in transfers:
        transfer.wait_more(1 << 20)
    wait_found(alice, bob, 1300)
    for a, b in ((alice, bob), (bob, alice)):
        assert path(a, b)["black_holes"] >= 1
        assert a.peer(b)["state"] == "up"
    check_full_frames(alice, bob)
    for flow in flows:
        flow.stop()
    for transfer in transfers:
        transfer.end()


def test_fixed(lab):
    """PathMTU says it: nothing is probed."""
    way = Way(lab, middle=1400)
    alice, bob = way.daemons(lab, sections={"Transport": {"PathMTU": 1350}})
    check_full_frames(alice, bob)
    assert path(alice, bob)["mtu"] == 1350
    assert path(alice, bob)["mtu_state"] == "fixed"
