# SPDX-License-Identifier: MIT
"""
The TAP as the port of a bridge, with hosts behind it that know nothing of the mesh.

    [ printer eth0 10.7.0.51 ]                                     [ camera eth0 10.7.0.52 ]
          |                                                              |
    [ br0: camera-side port, smesh0 ] alice == internet == bob [ smesh0, port: br0 ]
                                             |
                                           carol [ smesh0 10.7.0.3 ]   no bridge
"""

import threading

import pytest

from lab import EXPERIMENTAL, neighbour, ping, tcp_both_ways, udp_numbered, wait_for

ULA_OFF = {"Interface": {"ULA": "no"}}


def put_in_bridge(daemon, stp=False):
    """The card becomes a port; its address goes to the bridge, whose MAC the card's owner must own."""
    machine = daemon.machine
    address = daemon.ip4
    machine.ip(f"link add br0 type bridge stp_state {int(stp)} forward_delay 0")
    machine.ip(f"link set br0 address {daemon.mac.hex(':')}")
    machine.ip("link set smesh0 master br0")
    machine.ip("addr flush dev smesh0")
    machine.ip(f"addr add {address}/24 dev br0")
    machine.ip("link set br0 up")


def put_behind(lab, daemon, name, number):
    """A host at a port of the daemon's bridge."""
    host = lab.machine(name)
    lab.cable(host, "eth0", daemon.machine, name)
    daemon.machine.ip(f"link set {name} master br0")
    host.ip(f"addr add 10.7.0.{number}/24 dev eth0")
    host.ip(f"addr add fd77::{number}/64 dev eth0 nodad")
    host.overlay4, host.overlay6 = f"10.7.0.{number}", f"fd77::{number}"
    return host


@pytest.fixture
def bridged(lab):
    alice, bob, carol = lab.mesh("alice", "bob", "carol", sections=ULA_OFF)
    for daemon in (alice, bob):
        put_in_bridge(daemon)
    printer = put_behind(lab, alice, "printer", 51)
    camera = put_behind(lab, bob, "camera", 52)
    return alice, bob, carol, printer, camera


def test_hosts_behind_both_ends(bridged):
    alice, bob, carol, printer, camera = bridged
    for source in (printer, camera, alice, bob, carol):
        for target in (printer.overlay4, camera.overlay4, "10.7.0.1", "10.7.0.2", "10.7.0.3"):
            result = ping(source, target, count=3)
            assert result.lost == 0, f"{source} to {target}: {result.text}"
    assert ping(printer, camera.overlay6, count=20).lost == 0
    assert ping(printer, camera.overlay4, count=20, size=1472, df=True).lost == 0
    mac = camera.ip_json("link show eth0")[0]["address"]
    assert neighbour(printer, camera.overlay4, "eth0")["lladdr"] == mac
    tcp_both_ways(printer, camera, camera.overlay4, mbytes=20)
    assert udp_numbered(camera, printer, printer.overlay4, count=200) == list(range(200))


def test_learned_mac_is_not_flooded(bridged):
    _, _, carol, printer, camera = bridged
    assert ping(printer, camera.overlay4, count=3).lost == 0
    with carol.raw(0x0800) as port:
        assert ping(printer, camera.overlay4, count=100, interval=0.002).lost == 0
        assert [one for one in port.drain() if one[23] == 1] == [], "a third host saw them"
    # one to somebody unknown reaches all
    with carol.raw(EXPERIMENTAL) as port, printer.raw("eth0") as out:
        one = bytes.fromhex("06aabbccdd77") + bytes.fromhex(
            printer.ip_json("link show eth0")[0]["address"].replace(":", "")) + b"\x88\xb5 who is it"
        out.send(one)
        assert port.receive()[:len(one)] == one


def test_host_moves_to_the_other_end(lab, bridged):
    alice, bob, carol, printer, _ = bridged
    mac = printer.ip_json("link show eth0")[0]["address"]
    assert ping(carol, printer.overlay4).lost == 0
    alice.machine.ip("link del printer")  # and with it the host's card
    lab.cable(printer, "eth0", bob.machine, "printer")
    printer.ip("link set eth0 down")
    printer.ip(f"link set eth0 address {mac}")
    printer.ip(f"addr add {printer.overlay4}/24 dev eth0")
    bob.machine.ip("link set printer master br0")
    printer.ip("link set eth0 up")
    # what it sends tells everybody where it is now
    wait_for(lambda: ping(printer, "10.7.0.3", count=1, deadline=1).received, 10, "the host at bob's")
    for source in (carol, alice, bob):
        assert ping(source, printer.overlay4, count=5).lost == 0


def test_many_hosts(lab, bridged):
    """Broadcasts and their answers of many neighbours at once, all learned."""
    alice, bob, _, _, _ = bridged
    left = [put_behind(lab, alice, f"l{i}", 60 + i) for i in range(4)]
    right = [put_behind(lab, bob, f"r{i}", 70 + i) for i in range(4)]
    results = {}

    def run(a, b):
        results[a, b] = ping(a, b.overlay4, count=20, interval=0.01)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(left, right)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(result.lost == 0 for result in results.values())


def test_vxlan_in_a_bridge_on_top(lab, bridged):
    """Another overlay inside ours, from a bridged host."""
    _, _, _, printer, camera = bridged
    for host, other, number in ((printer, camera, 1), (camera, printer, 2)):
        host.ip(f"link add vx0 type vxlan id 7 remote {other.overlay4} dstport 4789 dev eth0")
        host.ip("link set vx0 mtu 1450 up")
        host.ip(f"addr add 10.99.0.{number}/24 dev vx0")
    assert ping(printer, "10.99.0.2", count=10, size=1422, df=True).lost == 0
    tcp_both_ways(printer, camera, "10.99.0.2", mbytes=10)
