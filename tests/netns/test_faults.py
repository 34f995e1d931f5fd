# SPDX-License-Identifier: MIT
"""
Faults and their end: daemons killed and stopped, links down, addresses moved, firewalls, clocks, bad
wires. Each test measures with numbered datagrams, both ways every 20 ms, when traffic is back.

    [ alice ] ==== internet ==== [ bob ]        see lab.py
"""

import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from faults import RESUME, Block, Flow, Flows, Transfer, nft, pause_until
from lab import (CONTROL_PORT, DATA_PORT, EXPERIMENTAL, SANITIZED, SHADOWMESH, SLOW, Lab, iperf3,
                 patterned, ping, tcp_both_ways, wait_for)


def kill_and_start(daemon, flows, within=RESUME):
    """SIGKILL, then a start; traffic is back soon after that."""
    daemon.kill()
    flows.wait_stopped()
    since = time.monotonic()
    daemon.start(wait=False)
    took = flows.wait_resumed(since, within)
    daemon.wait_ready()
    return took


# --- daemons that end ---


@pytest.mark.parametrize("endpoints", ["both", "alice", "bob"])
def test_killed_when_idle(lab, endpoints):
    """Whoever of them has the other's endpoint."""
    peers = {"alice": ["bob"] if endpoints != "bob" else [{"Name": "bob"}],
             "bob": ["alice"] if endpoints != "alice" else [{"Name": "alice"}]}
    alice, bob = lab.mesh("alice", "bob", peers=peers)
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        for daemon in (alice, bob):
            kill_and_start(daemon, flows)


def test_killed_during_handshake(lab):
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob) as flows:
        for daemon in (alice, bob):
            daemon.kill()
            for after in (0.005, 0.02, 0.035, 0.05, 0.08):
                daemon.start(wait=False)
                pause_until(time.monotonic() + after)
                daemon.kill()
            since = time.monotonic()
            daemon.start(wait=False)
            flows.wait_resumed(since)
            daemon.wait_ready()


@pytest.mark.parametrize("rekey", ["120s", "1s"])
def test_killed_during_bulk(lab, rekey):
    alice, bob = lab.mesh("alice", "bob", sections={"Transport": {"RekeyAfter": rekey}})
    with Flows(alice, bob) as flows:
        for daemon, other in ((alice, bob), (bob, alice)):
            transfers = [Transfer(alice, bob, bob.ip4, 20_000_000), Transfer(bob, alice, alice.ip4, 20_000_000)]
            for transfer in transfers:
                transfer.wait_more(1 << 20)
            if rekey == "1s":
                before = other.peer(daemon)["session"]["epoch"]
                wait_for(lambda o=other, d=daemon: o.peer(d)["session"]["epoch"] > before,
                         what="an epoch", interval=0.002)
            kill_and_start(daemon, flows)
            for transfer in transfers:
                transfer.abandon()


def test_terminated_and_started(lab):
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob) as flows:
        for daemon, other in ((alice, bob), (bob, alice)):
            daemon.stop()
            wait_for(lambda o=other, d=daemon: not o.is_up(d), what="the other side to notice")
            since = time.monotonic()
            daemon.start(wait=False)
            flows.wait_resumed(since)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_both_restarted_at_once(lab, how):
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob) as flows:
        for daemon in (alice, bob):
            daemon.signal(how)
        for daemon in (alice, bob):
            daemon.process.wait(10)
        since = time.monotonic()
        for daemon in (alice, bob):
            daemon.start(wait=False)
        flows.wait_resumed(since)


def test_killed_for_long(lab):
    """Only alice has an endpoint, and by the time bob is back her attempts have become rare."""
    alice, bob = lab.mesh("alice", "bob", peers={"alice": ["bob"], "bob": [{"Name": "alice"}]})
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        bob.kill()
        wait_for(lambda: alice.peer(bob)["attempts"] >= 7, 15, "many attempts")
        since = time.monotonic()
        bob.start(wait=False)
        flows.wait_resumed(since)


def test_power_loss(lab):
    """bob's machine goes without a word, and comes back while alice holds her connection for alive."""
    alice, bob = lab.mesh("alice", "bob", peers={"alice": ["bob"], "bob": [{"Name": "alice"}]})
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        with Block(bob, outward=[""]):
            bob.kill()
            bob.machine.sh("ss", "-K", "sport", f"= :{CONTROL_PORT}", check=False)
            wait_for(lambda: "timer:" not in bob.machine.sh("ss", "-Htno", "sport", f"= :{CONTROL_PORT}"),
                     what="the kernel to forget the connection")
        since = time.monotonic()
        bob.start(wait=False)
        flows.wait_resumed(since)


HOSTS = 'mount --bind "$HOSTS_FILE" /etc/hosts; exec "$@"'


def test_name_with_a_new_address(lab):
    """alice's endpoint for bob is a DNS name; bob comes back elsewhere."""
    peers = {"alice": [{"Name": "bob", "Endpoint": f"bob.example:{CONTROL_PORT}"}],
             "bob": [{"Name": "alice"}]}
    alice, bob = lab.mesh("alice", "bob", families=(4,), peers=peers, start=False)
    hosts = os.path.join(lab.tmp, "hosts")

    def write_hosts(address):
        with open(hosts, "w") as file:  # in place: it is mounted
            file.write(f"127.0.0.1 localhost\n{address} bob.example\n")

    write_hosts(bob.machine.ip4)
    alice.extra_env["HOSTS_FILE"] = hosts
    alice.start(wait=False, wrapper=("unshare", "-m", "sh", "-c", HOSTS, "--"))
    bob.start()
    alice.wait_ready()
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        for before, after in (("198.51.100.2", "198.51.100.77"), ("198.51.100.77", "198.51.100.2")):
            bob.kill()
            move(bob, before, after)
            write_hosts(after)
            flows.wait_stopped()
            since = time.monotonic()
            bob.start(wait=False)
            flows.wait_resumed(since)
            assert alice.peer(bob)["path"]["remote"] == f"{after}:{DATA_PORT}"


# --- links ---


def test_link_down_5_s(lab):
    """bob's cable is out, carol's packets are lost in silence; TCP goes on where it was."""
    alice, bob, carol = lab.mesh("alice", "bob", "carol")
    with Flows(alice, bob) as unplugged, Flows(alice, carol) as silent:
        transfers = [Transfer(alice, bob, bob.ip4, 20_000_000), Transfer(carol, alice, alice.ip4, 20_000_000)]
        for transfer in transfers:
            transfer.wait_more(1 << 20)
        lab.unplug(bob.machine)
        block = Block(carol, [""], [""])
        begin = time.monotonic()
        for daemon in (bob, carol):
            wait_for(lambda d=daemon: alice.peer(d)["state"] == "silent", what="alice to notice")
        pause_until(begin + 5)
        lab.replug(bob.machine)
        since = block.end()
        for flows in (unplugged, silent):
            flows.wait_resumed(since)
        for transfer in transfers:
            transfer.wait_more(1 << 20)
            transfer.end()
        for daemon in (bob, carol):
            assert alice.is_up(daemon) and daemon.is_up(alice)
            assert alice.peer(daemon)["session"]["rekeys"] == 0, "the session has survived"


def test_udp_blocked(lab):
    """To and from bob, to carol, and from dave, while TCP works."""
    udp = f"udp dport {DATA_PORT}"
    alice, *others = lab.mesh("alice", "bob", "carol", "dave")
    rules = {"bob": ([udp], [udp]), "carol": ([udp], []), "dave": ([], [udp])}
    flows = [Flows(alice, other) for other in others]
    blocks = [Block(other, *rules[other.name]) for other in others]
    for other in others:
        a, b = (alice, other) if other.name == "dave" else (other, alice)
        wait_for(lambda a=a, b=b: a.peer(b)["state"] == "silent", 8, f"{a} to notice")
    for other in others:
        assert alice.peer(other)["tls"] == other.peer(alice)["tls"] == "up"
    ends = [block.end() for block in blocks]
    for flow, since in zip(flows, ends):
        flow.wait_resumed(since)
        flow.stop()
    lab.wait_mesh(alice, *others)


# --- addresses ---


def move(daemon, before, after):
    """Its address in the underlay changes. Both subnets are on the link; routes go with the last address."""
    daemon.machine.ip(f"addr del {before}/24 dev eth0")
    daemon.machine.ip(f"addr add {after}/24 dev eth0")
    for subnet in ("198.51.100.0/24", "203.0.113.0/24"):
        daemon.machine.ip(f"route replace {subnet} dev eth0")


def test_address_changes(lab):
    """alice's, then bob's, then alice's again, into another subnet and back; the session stays."""
    alice, bob = lab.mesh("alice", "bob", families=(4,))
    for daemon in (alice, bob):
        daemon.machine.ip("route add 203.0.113.0/24 dev eth0")
    moves = ((alice, "198.51.100.1", "198.51.100.101"), (bob, "198.51.100.2", "198.51.100.102"),
             (alice, "198.51.100.101", "203.0.113.1"), (bob, "198.51.100.102", "203.0.113.2"),
             (alice, "203.0.113.1", "198.51.100.1"))
    transfer = Transfer(alice, bob, bob.ip4, 5_000_000)
    with Flows(alice, bob) as flows:
        index = alice.peer(bob)["session"]["index"]
        for daemon, before, after in moves:
            other = alice if daemon is bob else bob
            since = time.monotonic()
            move(daemon, before, after)
            flows.wait_resumed(since)
            wait_for(lambda o=other, d=daemon: o.peer(d)["path"]["remote"].startswith(after + ":"),
                     what=f"{other} to follow")
        transfer.wait_more(1 << 20)
        transfer.end()
        assert alice.peer(bob)["session"]["rekeys"] == 0
        assert alice.peer(bob)["session"]["index"] == index, "one session for all of it"


def test_address_changes_v6(lab):
    alice, bob = lab.mesh("alice", "bob", families=(6,))
    with Flows(alice, bob) as flows:
        for daemon, before, after in ((alice, "2001:db8::1", "2001:db8::aaaa"),
                                      (bob, "2001:db8::2", "2001:db8::bbbb")):
            since = time.monotonic()
            daemon.machine.ip(f"addr del {before}/64 dev eth0")
            daemon.machine.ip(f"addr add {after}/64 dev eth0 nodad")
            flows.wait_resumed(since)
            other = alice if daemon is bob else bob
            assert other.peer(daemon)["path"]["remote"] == f"[{after}]:{DATA_PORT}"


NAT = """
table ip nat {
	chain post { type nat hook postrouting priority 100; oifname "eth0" masquerade fully-random; }
	chain in { type filter hook input priority 0; iifname "eth0" ct state new drop; }
}
"""


def forget_connections(machine):
    """What `conntrack -F` does: IPCTNL_MSG_CT_DELETE for all (nfnetlink_conntrack.h)."""
    with machine.inside():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    with sock:
        request, ack = 1, 4
        sock.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, request | ack, 1, 0, socket.AF_INET, 0, 0))
        answer = sock.recv(4096)
        assert struct.unpack_from("=IHHIIi", answer)[5] == 0, answer


def test_nat_rebinds(lab):
    """
    [ bob ] 192.168.7.2 -- 192.168.7.1 [ router ] ==== internet ==== [ alice ]

    The router forgets its connections, so that bob comes from another port; then its address changes.
    """
    machine, router, bob_machine = lab.machine("alice"), lab.machine("router"), lab.machine("bob")
    lab.internet("alice", "router", families=(4,))
    lab.cable(router, "lan", bob_machine, "eth0")
    router.ip("addr add 192.168.7.1/24 dev lan")
    router.sh("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    nft(router, NAT)
    bob_machine.ip("addr add 192.168.7.2/24 dev eth0")
    bob_machine.ip("route add default via 192.168.7.1")
    alice = lab.daemon(machine, peers=[{"Name": "bob"}])
    bob = lab.daemon(bob_machine, peers=["alice"])
    alice.start()
    bob.start()
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        for i in range(4):
            before = alice.peer(bob)["path"]["remote"]
            since = time.monotonic()
            if i == 3:
                router.ip(f"addr del {router.ip4}/24 dev eth0")
                router.ip("addr add 198.51.100.99/24 dev eth0")
            forget_connections(router)
            wait_for(lambda b=before: alice.peer(bob)["path"]["remote"] != b, what="alice to follow")
            flows.wait_resumed(since)
        assert alice.peer(bob)["path"]["remote"].startswith("198.51.100.99:")
