# SPDX-License-Identifier: MIT
"""
Super-frames and batches: used where they were seen to work, left alone where not, tried again later.

    [ alice ] ==== internet ==== [ bob ]        see lab.py
"""

import os
import re
import sys

import pytest

from faults import Flow, Transfer, nft
from lab import now, ping, tcp_both_ways, wait_for

RESUME = 5.0
RETRY = 60.0

# veth hands over what was sent in one message as one packet, longer than any on a wire
LOSES_BATCHES = """
table inet card {
	chain in {
		type filter hook prerouting priority 0
		udp dport 9443 meta length > 1600 drop
	}
}
"""

# Runs a command for which unshare(2) is refused, as in a container.
WITHOUT_UNSHARE = """
import ctypes, os, struct, sys
number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
code = b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0),             # load the number of the system call
    (0x15, 0, 1, number),
    (0x06, 0, 0, 0x00050001),    # EPERM
    (0x06, 0, 0, 0x7fff0000)))   # allowed
room = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(room)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(os.environ.get("SM_TEST_OFFLOAD") == "no", reason="offloads are off")


def offload(daemon):
    return daemon.status()["offload"]


def peer_offload(a, b):
    return a.peer(b)["offload"]


def wait_tested(*daemons):
    for daemon in daemons:
        wait_for(lambda daemon=daemon: offload(daemon)["selftest"]["state"] == "done", 20, "the self-test")


def wait_batches(a, b, state, timeout=5.0):
    wait_for(lambda: peer_offload(a, b)["batches_state"] == state, timeout, f"batches of {a} {state}")


# --- the self-test ---


@pytest.mark.parametrize("mode", ["tap", "tun"])
def test_selftest(lab, mode):
    alice, bob = lab.mesh("alice", "bob", sections={"Network": {"Mode": mode}})
    wait_tested(alice, bob)
    for daemon in (alice, bob):
        found = offload(daemon)
        assert {key: found["selftest"][key] for key in ("tcp", "udp", "batches_sent", "batches_received")} == {
            "tcp": "works", "udp": "works", "batches_sent": "works", "batches_received": "works"}
        assert found["tcp"] and found["udp"] and found["batches"] and found["batches_received"]
        assert found["reason"] == ""
        assert re.search(r"self-test of the offloads: all work", daemon.log())
        text = daemon.cli("status").stdout
        assert re.search(r"^offload +TCP, UDP, batches sent, batches received$", text, re.M), text
    wait_batches(alice, bob, "proven")
    features = alice.machine.sh("ethtool", "-k", "smesh0")
    assert re.search(r"tcp-segmentation-offload: on", features)
    # what was switched on amid everything carries a connection
    before = alice.counters()["tap_read_frames"]
    tcp_both_ways(alice, bob, bob.ip4, mbytes=20)
    assert alice.counters()["tap_read_frames"] - before < 5000, "in super-frames"


def test_selftest_without_namespaces(lab):
    """Where none can be made, that is said, and all goes on as if it had been found to work."""
    alice, bob = lab.mesh("alice", "bob", start=False)
    for daemon in (alice, bob):
        daemon.start(wait=False, wrapper=(sys.executable, "-c", WITHOUT_UNSHARE))
    for daemon in (alice, bob):
        daemon.wait_ready()
    lab.wait_mesh(alice, bob)
    for daemon in (alice, bob):
        wait_for(lambda daemon=daemon: offload(daemon)["selftest"]["state"] == "not run", 20, "the self-test")
        assert "namespace" in offload(daemon)["selftest"]["reason"]
        assert offload(daemon)["tcp"] and offload(daemon)["reason"] == ""
        daemon.wait_log(r"self-test of the offloads could not be run \(no network namespace")
    wait_batches(alice, bob, "proven")
    tcp_both_ways(alice, bob, bob.ip4, mbytes=5)


def test_switched_off(lab):
    alice, bob = lab.mesh("alice", "bob", each={"alice": {"Transport": {"Offload": "no"}}})
    wait_tested(bob)
    found = offload(alice)
    assert found["selftest"]["state"] == "not wanted"
    assert not (found["tcp"] or found["udp"] or found["batches"] or found["batches_received"])
    assert peer_offload(alice, bob)["batches_state"] == "off"
    wait_batches(bob, alice, "proven")
    tcp_both_ways(alice, bob, bob.ip4, mbytes=5)
    text = alice.cli("status").stdout
    assert re.search(r"^offload +none; switched off in the configuration$", text, re.M), text


# --- batches that are lost on the way ---


def test_batches_are_lost_and_come_back(lab):
    alice, bob = lab.mesh("alice", "bob")
    # bbr would take the fault for a slow path, and minutes to believe otherwise
    alice.machine.sh("sh", "-c", "echo reno >/proc/sys/net/ipv4/tcp_congestion_control")
    wait_batches(alice, bob, "proven")
    wait_batches(bob, alice, "proven")
    flows = [Flow(alice, bob, bob.ip4, size=1350), Flow(bob, alice, alice.ip4, size=1350)]
    transfer = Transfer(alice, bob, bob.ip4, 20_000_000)
    transfer.wait_more(1 << 20)
    nft(bob.machine, LOSES_BATCHES)
    since = now()
    wait_batches(alice, bob, "lost", RESUME)
    fell_back = now()
    for flow in flows:
        flow.wait_resumed(since, RESUME)
    transfer.wait_more(4 << 20)
    assert now() - since < RESUME + 3.0, "and it goes on as fast as single datagrams go"
    found = peer_offload(alice, bob)
    assert not found["batches"] and found["reason"] == "batches are lost on the way"
    assert peer_offload(bob, alice)["batches"], "the other direction is sound"
    alice.wait_log(r"datagrams to peer bob go one by one .*: batches are lost on the way")

    nft(bob.machine, "delete table inet card")
    wait_batches(alice, bob, "proven", RETRY + 5 - (now() - fell_back))
    alice.wait_log(r"datagrams to peer bob go in batches again")
    transfer.wait_more(1 << 20)
    transfer.end()
    for flow in flows:
        flow.stop()


def test_batches_never_get_through(lab):
    """From the start: nothing is lost, since nothing goes in batches before one was answered."""
    alice, bob = lab.mesh("alice", "bob", start=False)
    for daemon in (alice, bob):
        nft(daemon.machine, LOSES_BATCHES)
        daemon.start(wait=False)
    for daemon in (alice, bob):
        daemon.wait_ready()
    lab.wait_mesh(alice, bob)
    wait_tested(alice, bob)
    tcp_both_ways(alice, bob, bob.ip4, mbytes=20)
    assert ping(alice, bob.ip4, count=50, size=1472).lost == 0
    wait_batches(alice, bob, "lost")
    wait_batches(bob, alice, "lost")
    for a, b in ((alice, bob), (bob, alice)):
        assert a.peer(b)["counters"]["lost"] <= 4 * 10, "the probes, and nothing else"
