# SPDX-License-Identifier: MIT
"""
The network card: what it is given at start, what may go wrong with it, TUN mode.

    [ smesh0, TAP or TUN ] alice ==== internet ==== bob [ smesh0 ]
"""

import ipaddress
import os
import re
import shutil
import time

import pytest

from lab import (NETWORK, SHADOWMESH, Authority, Daemon, fingerprint, ping, sh, tcp_both_ways, udp_numbered,
                 wait_for)


def link(daemon):
    return daemon.machine.ip_json(f"link show dev {daemon.ifname}")[0]


def kernel_addresses(daemon):
    """{"10.7.0.1/24", ...} without the link-local ones"""
    return {f"{a['local']}/{a['prefixlen']}"
            for a in daemon.machine.ip_json(f"addr show dev {daemon.ifname}")[0]["addr_info"]
            if a["scope"] != "link"}


def one(lab, **options):
    machine, = lab.internet("alice")
    return lab.daemon(machine, **options)


# --- what is asked for is done ---


def test_card_is_as_configured(lab):
    alice = one(lab, sections={"Interface": {
        "Name": "mesh7", "MTU": 1280, "MAC": "02:00:5e:10:00:01", "TxQueueLen": 321,
        "Address": ["10.9.0.1/16", "fd99::1/64", "192.168.77.1/32"]}}).start()
    card, status = link(alice), alice.status()["interface"]
    assert card["mtu"] == status["mtu"] == 1280
    assert card["address"] == status["mac"] == "02:00:5e:10:00:01"
    assert card["txqlen"] == 321
    assert "UP" in card["flags"]
    assert card["linkinfo"]["info_data"]["type"] == "tap"
    assert kernel_addresses(alice) == set(status["addresses"])
    assert {"10.9.0.1/16", "fd99::1/64", "192.168.77.1/32"} < kernel_addresses(alice)
    assert len(status["addresses"]) == 4, "and the ULA"


def test_addresses_of_the_certificate(lab):
    alice = one(lab, address=["10.7.0.1/24", "fd77::1/64"],
                sections={"Interface": {"ULA": "no"}}).start()
    assert kernel_addresses(alice) == {"10.7.0.1/24", "fd77::1/64"}


def test_numbered_name(lab):
    alice = one(lab, sections={"Interface": {"Name": "smesh%d"}})
    alice.machine.ip("link add smesh0 type bridge")
    alice.start()
    assert alice.status()["interface"]["name"] == "smesh1"
    alice.sections["Interface"]["Name"] = "smesh1"  # what must be gone after the end
    alice.stop()


def test_derived_address_survives_a_new_key(lab):
    """MAC and ULA follow from network and name: a new key and certificate keep the card."""
    alice = one(lab).start()
    before = link(alice)["address"], kernel_addresses(alice)
    alice.stop()
    old_key = alice.sections["Node"]["PrivateKey"]
    certificate, key = Authority.get().issue("alice", "--address", "10.7.0.1/24", fresh=True)
    assert fingerprint(key) != fingerprint(old_key)
    alice.configure("Node", Certificate=certificate, PrivateKey=key)
    alice.start()
    assert (link(alice)["address"], kernel_addresses(alice)) == before


def test_persistent_card_is_taken_over(lab):
    machines = lab.internet("alice", "bob")
    for machine in machines:
        machine.ip("tuntap add smesh0 mode tap")
    alice, bob = (lab.daemon(m, peers=[n]) for m, n in zip(machines, ("bob", "alice")))
    index = link(alice)["ifindex"]
    for daemon in (alice, bob):
        daemon.persistent = True
        daemon.start()
    lab.wait_mesh(alice, bob)
    assert ping(alice, bob.ip4).lost == 0
    assert link(alice)["ifindex"] == index
    alice.stop()
    assert link(alice)["ifindex"] == index
    assert kernel_addresses(alice) == set(), "no address is left that nobody answers"
    alice.start()
    lab.wait_mesh(alice, bob)
    assert ping(bob, alice.ip4).lost == 0


def test_persistent_card_with_queues(lab):
    alice = one(lab, sections={"Transport": {"Workers": 2}})
    alice.machine.ip("tuntap add smesh0 mode tap")
    log = alice.refuse()
    assert "smesh0 exists without multi_queue and 2 workers are wanted" in log
    alice.machine.ip("link del smesh0")
    alice.machine.ip("tuntap add smesh0 mode tap multi_queue")
    alice.persistent = True
    alice.start()
    assert alice.status()["transport"]["workers"] == 2


@pytest.mark.parametrize("make,text", [
    ("tuntap add smesh0 mode tun", "smesh0 exists as a TUN and a TAP is wanted"),
    ("link add smesh0 type bridge", "smesh0 exists and is neither TAP nor TUN"),
])
def test_card_of_another_kind(lab, make, text):
    alice = one(lab)
    alice.machine.ip(make)
    assert text in alice.refuse()
    assert "smesh0" in alice.machine.links(), "what was there stays"


def test_card_that_somebody_reads(lab):
    """Two readers would steal each other's frames."""
    alice = one(lab)
    alice.machine.ip("tuntap add smesh0 mode tap multi_queue")
    reader = alice.machine.popen("socat", "-u", "TUN,tun-type=tap,tun-name=smesh0,iff-no-pi,"
                                 "tun-device=/dev/net/tun", "/dev/null")
    multi = alice.machine.popen("python3", "-c", """
import fcntl, os, struct, time
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"smesh0", 0x0002 | 0x1000 | 0x0100))
print("attached", flush=True)
time.sleep(1000)""", stdout=-1)
    assert multi.stdout.readline() == b"attached\n"
    reader.kill()
    log = alice.refuse()
    assert re.search(rf"smesh0 is in use by python3.* \(pid {multi.pid}\)", log), log


# --- failures are errors ---


def test_address_that_cannot_be_set(lab):
    """The earlier system warned, and ran a tunnel without an address."""
    alice = one(lab, sections={"Interface": {"Address": "fd99::1/64"}})
    alice.machine.sh("sh", "-c", "for i in all default; do"
                     " echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
    log = alice.refuse()
    assert re.search(r" error .*smesh0: cannot set address fd99::1/64", log), log
    assert "smesh0" not in alice.machine.links()


def test_mtu_that_cannot_be_set(lab):
    """A persistent card in a bond or VLAN can refuse; here a MTU below what IPv6 addresses allow."""
    alice = one(lab, sections={"Interface": {"MTU": 1000, "Address": ["10.7.0.1/24", "fd99::1/64"]}})
    log = alice.refuse()
    assert re.search(r" error .*smesh0: cannot set ", log), log


def test_card_is_removed_while_running(lab):
    alice, bob = lab.mesh("alice", "bob")
    alice.machine.ip("link del smesh0")
    assert alice.wait(5) == 1
    alice.expected_exit = None
    assert re.search(r" error .*smesh0 is gone", alice.log())
    wait_for(lambda: not bob.is_up(alice), what="bob to know")
    # as a service manager would
    alice.start()
    lab.wait_mesh(alice, bob)
    assert ping(alice, bob.ip4).lost == 0


def test_card_is_set_down_and_up(lab):
    alice, bob = lab.mesh("alice", "bob", sections={"Interface": {"ULA": "no"}})
    alice.machine.ip("link set smesh0 down")
    assert ping(bob, alice.ip4, count=1, deadline=0.2).received == 0
    alice.machine.ip("link set smesh0 up")
    assert ping(alice, bob.ip4).lost == 0
    assert ping(bob, alice.ip4).lost == 0
    assert alice.running()


# --- two cards, one subnet ---


@pytest.mark.parametrize("other", ["10.7.0.77/24", "10.7.0.130/25", "10.0.0.1/8"])
def test_same_subnet_is_warned_about(lab, other):
    """Half of the frames would go astray, and ARP would still say REACHABLE."""
    alice = one(lab)
    alice.machine.ip("link add lan0 type veth peer name lan1")
    alice.machine.ip("link set lan0 up")
    alice.machine.ip(f"addr add {other} dev lan0")
    alice.start()
    warning = re.search(r" warn (.*share a subnet.*)", alice.log())
    assert warning, alice.log()
    for part in ("smesh0 (10.7.0.1/24)", f"lan0 ({other})"):
        assert part in warning[1]


def test_other_subnets_are_not_warned_about(lab):
    alice = one(lab)
    alice.machine.ip("link add lan0 type veth peer name lan1")
    alice.machine.ip("link set lan0 up")
    alice.machine.ip("addr add 10.7.1.1/24 dev lan0")
    alice.start()
    assert " warn " not in alice.log()


# --- TUN ---

TUN = {"Network": {"Mode": "tun"}}


def test_tun(lab):
    """Addresses, prefixes and routes come from the certificates; a host behind each end."""
    machines = lab.internet("alice", "bob", "carol")
    prefixes = {"alice": ("10.61.0.0/16", "fd61::/48"), "bob": ("10.62.0.0/16", "fd62::/48"), "carol": ()}
    daemons = []
    for machine in machines:
        issue = [word for p in prefixes[machine.name] for word in ("--prefix", p)]
        # each in a subnet of its own: only routes can lead there
        daemons.append(lab.daemon(machine, sections=TUN, issue=tuple(issue),
                                  address=(f"10.7.{machine.number}.1/24", f"fd7{machine.number}::1/64"),
                                  peers=[n for n in prefixes if n != machine.name]))
    for daemon in daemons:
        daemon.start()
    lab.wait_mesh(*daemons)
    alice, bob, carol = daemons
    assert link(alice)["linkinfo"]["info_data"]["type"] == "tun"
    assert alice.status()["mode"] == "tun"

    hosts = {}
    for daemon, number in ((alice, 61), (bob, 62)):
        host = hosts[daemon] = lab.machine(f"host{number}")
        lab.cable(host, "eth0", daemon.machine, "lan0")
        for machine, part in ((daemon.machine, 1), (host, 2)):
            card = "lan0" if part == 1 else "eth0"
            machine.ip(f"addr add 10.{number}.0.{part}/24 dev {card}")
            machine.ip(f"addr add fd{number}::{part}/64 dev {card} nodad")
        host.ip(f"route add default via 10.{number}.0.1")
        host.ip(f"-6 route add default via fd{number}::1")
        daemon.machine.sh("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward;"
                          " echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")

    for a in daemons:
        for b in daemons:
            if a is not b:
                for to in (b.ip4, f"fd7{b.machine.number}::1", b.overlay(6)):
                    assert ping(a, to).lost == 0, f"{a} to {to}"
    assert ping(hosts[alice], "10.62.0.2", count=20).lost == 0
    assert ping(hosts[bob], "fd61::2", count=20).lost == 0
    assert ping(hosts[alice], "10.62.0.2", count=5, size=1472, df=True).lost == 0
    assert ping(carol, "10.62.0.2").lost == 0
    tcp_both_ways(hosts[alice], hosts[bob], "10.62.0.2", mbytes=10)
    assert udp_numbered(alice, bob, bob.ip4, count=200) == list(range(200))

    # an address that no certificate gives to the sender does not come in
    carol.machine.ip("addr add 10.61.0.99/32 dev lo")
    before = carol.drops().get("source_ip", 0) + bob.drops().get("source_ip", 0)
    assert ping(carol, bob.ip4, count=3, deadline=0.2, source="10.61.0.99").received == 0
    wait_for(lambda: carol.drops().get("source_ip", 0) + bob.drops().get("source_ip", 0) >= before + 3,
             what="the drops")

    # routes leave with their peer
    assert "10.62.0.0/16" in alice.machine.ip("route show dev smesh0")
    bob.stop()
    wait_for(lambda: "10.62.0.0/16" not in alice.machine.ip("route show dev smesh0"), what="no route")
    assert ping(alice, carol.ip4).lost == 0


def test_tun_routes_of_a_revoked_peer(lab):
    """They leave with the session, and come back with the next certificate."""
    authority = Authority(NETWORK, os.path.join(lab.tmp, "ca"))
    crl = os.path.join(lab.tmp, "alice.crl")
    shutil.copy(authority.crl, crl)
    alice, bob = lab.mesh("alice", "bob", sections=TUN, each={"alice": {"Network": {"CRL": crl}}},
                          issue=("--prefix", "10.66.0.0/16"), authority=authority)
    wait_for(lambda: "10.66.0.0/16" in alice.machine.ip("route show dev smesh0"), what="the route")
    authority.run("revoke", "bob")
    shutil.copy(authority.crl, crl)
    alice.ask("reload")
    wait_for(lambda: not alice.is_up(bob), what="the session's end")
    wait_for(lambda: "10.66.0.0/16" not in alice.machine.ip("route show dev smesh0"), what="no route")
    certificate, key = authority.issue("bob", "--prefix", "10.67.0.0/16", "--address", "10.7.0.2/24", fresh=True)
    bob.configure("Node", Certificate=certificate, PrivateKey=key)
    bob.ask("reload")
    lab.wait_mesh(alice, bob)
    wait_for(lambda: "10.67.0.0/16" in alice.machine.ip("route show dev smesh0"), what="the new route")


def test_tun_without_routes(lab):
    tun = {"Network": {"Mode": "tun"}, "Interface": {"Routes": "no"}}
    alice, bob = lab.mesh("alice", "bob", sections=tun, issue=("--prefix", "10.66.0.0/16"))
    assert "10.66" not in alice.machine.ip("route")
    assert ping(alice, bob.ip4).lost == 0


def test_tun_derived_addresses(lab):
    """The ULA is the sender's own too."""
    alice, bob = lab.mesh("alice", "bob", sections=TUN)
    for a, b in ((alice, bob), (bob, alice)):
        ula = [x for x in map(ipaddress.ip_interface, b.status()["interface"]["addresses"])
               if x.version == 6]
        assert len(ula) == 1
        assert ping(a, str(ula[0].ip)).lost == 0
    assert not {"source_ip", "no_route"} & {
        name for name, n in bob.drops().items() if n > 20}


def test_mode_mismatch(lab):
    alice, bob = lab.mesh("alice", "bob", peers={}, each={"bob": TUN})
    for daemon, own, other in ((alice, "tap", "tun"), (bob, "tun", "tap")):
        text = daemon.wait_log(r"(?i) (?:warn|error) .*\b(tap|tun)\b.*\b(tap|tun)\b.*")
        assert {text[1].lower(), text[2].lower()} == {own, other}, text[0]
    assert not alice.is_up(bob)


# --- without a CA ---


def pinned(lab, names, wrong=(), mode="tap"):
    """Daemons that know each other's fingerprints; those in wrong are known by another key."""
    machines = lab.internet(*names)
    keys, prints = {}, {}
    for name in (*names, "stranger"):
        keys[name] = f"{lab.tmp}/{name}.key"
        prints[name] = sh(SHADOWMESH, "keygen", "-o", keys[name]).strip()  # as it is printed
    daemons = []
    for machine in machines:
        peers = [{"Name": name, "Endpoint": lab.endpoint(lab.machines[name]),
                  "Fingerprint": prints["stranger" if name in wrong else name]}
                 for name in names if name != machine.name]
        daemons.append(Daemon(lab, machine, machine.name, peers=peers, sections={
            "Network": {"Mode": mode},
            "Node": {"Name": machine.name, "PrivateKey": keys[machine.name]},
            "Interface": {"Address": f"10.7.0.{machine.number}/24"}}))
    for daemon in daemons:
        daemon.start()
    return daemons


@pytest.mark.parametrize("mode", ["tap", "tun"])
def test_pinned(lab, mode):
    daemons = pinned(lab, ("alice", "bob", "carol"), mode=mode)
    lab.wait_mesh(*daemons)
    for a in daemons:
        for b in daemons:
            if a is not b:
                assert ping(a, b.ip4).lost == 0
                assert ping(a, b.ip6).lost == 0
    assert mode == "tun" or len({d.mac for d in daemons}) == 3
    tcp_both_ways(daemons[0], daemons[1], daemons[1].ip4, mbytes=5)


def test_pinned_to_another_key(lab):
    begin = time.monotonic()
    alice, bob, carol = pinned(lab, ("alice", "bob", "carol"), wrong=("carol",))
    lab.wait_mesh(alice, bob)
    for daemon in (alice, bob):
        daemon.wait_log(r" warn .*the key of 'carol' is not pinned here")
    carol.wait_log(r" warn .*the peer refused our certificate")
    assert not alice.is_up(carol) and not bob.is_up(carol)
    assert ping(alice, bob.ip4, count=50, interval=0.02).lost == 0
    # a peer that says no is not asked again and again: each of two at most every 5 s, less a quarter
    dialled, accepted = carol.status()["control"]["dialled"], alice.status()["control"]["accepted"]
    again = 2 * ((time.monotonic() - begin) // 3.75)
    assert dialled <= 4 + again and accepted <= 6 + again


# --- the access key ---


def test_access_key(lab):
    secret, other = (f"{lab.tmp}/{name}.access" for name in ("right", "wrong"))
    for path, digit in ((secret, "a7"), (other, "5c")):
        with open(path, "w") as file:
            file.write(digit * 32 + "\n")
        sh("chmod", "600", path)
    alice, bob = lab.mesh("alice", "bob", sections={"Network": {"AccessKey": secret}})
    assert ping(alice, bob.ip4).lost == 0
    carol_machine, dave_machine = lab.internet("carol", "dave")
    carol = lab.daemon(carol_machine, peers=["alice"], sections={"Network": {"AccessKey": other}}).start()
    dave = lab.daemon(dave_machine, peers=["alice"]).start()
    for daemon in (carol, dave):
        daemon.wait_log(r"peer alice.* at .*", timeout=5)
        assert not daemon.is_up(alice)
    assert "a7" * 16 not in alice.log() + bob.log()
    wait_for(lambda: alice.status()["control"]["refused"], what="refused connections in the status")
    assert alice.peer("carol") is None and alice.peer("dave") is None
    assert ping(alice, bob.ip4).lost == 0
