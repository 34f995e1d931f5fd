# SPDX-License-Identifier: MIT
"""
Routes in TUN mode follow the certificates of those who are connected.

    [ smesh0, TUN ] alice ==== internet ==== bob [ smesh0 ], with networks behind bob
"""

import os

from lab import Authority, NETWORK, ping, wait_for

TUN = {"Network": {"Mode": "tun"}}


def routes(daemon):
    """Where the kernel would use the card to get to, of both families."""
    return {route["dst"] for family in ("-4", "-6")
            for route in daemon.machine.ip_json(f"{family} route show dev {daemon.ifname}")
            if not route["dst"].startswith("fe80:")}


def test_routes_follow_a_renewed_certificate(lab):
    """The same key, other networks: the session's place is taken without a gap, the routes change."""
    authority = Authority(NETWORK, os.path.join(lab.tmp, "ca"))
    alice, bob = lab.mesh("alice", "bob", sections=TUN, authority=authority,
                          issue=("--prefix", "10.66.0.0/16", "--prefix", "10.67.0.0/16", "--prefix", "fd66::/48"))
    old, new = {"10.66.0.0/16", "10.67.0.0/16", "fd66::/48"}, {"10.67.0.0/16", "10.68.0.0/16", "fd68::/48"}
    wait_for(lambda: routes(alice) & (old | new) == old, what="the routes")
    position = alice.log_size()
    certificate, _ = authority.issue("bob", "--key", bob.sections["Node"]["PrivateKey"], "--address", "10.7.0.2/24",
                                     "--prefix", "10.67.0.0/16", "--prefix", "10.68.0.0/16", "--prefix", "fd68::/48",
                                     fresh=True)
    bob.configure("Node", Certificate=certificate)
    bob.ask("reload")
    # one after the other
    wait_for(lambda: routes(alice) & (old | new) == new, what="the new routes")
    assert "peer bob: up ->" not in alice.log(position)
    assert ping(alice, bob.ip4).lost == 0
    bob.stop()
    wait_for(lambda: not routes(alice) & new, what="no route")


def test_persistent_card_keeps_no_route(lab):
    """One that was there before keeps existing; nothing may lead to it that nobody answers."""
    machines = lab.internet("alice", "bob")
    alice, bob = (lab.daemon(machine, sections=TUN, peers=[other],
                              issue=("--prefix", f"10.6{machine.number}.0.0/16", "--prefix", f"fd6{machine.number}::/48"))
                  for machine, other in zip(machines, ("bob", "alice")))
    alice.machine.ip("tuntap add smesh0 mode tun")
    alice.machine.ip("link set smesh0 up")
    alice.machine.ip("addr add 192.0.2.99/32 dev smesh0")  # else the kernel drops all routes with our address
    alice.machine.ip("route add 10.99.0.0/16 dev smesh0")
    alice.persistent = True
    before = routes(alice)
    for daemon in (alice, bob):
        daemon.start()
    lab.wait_mesh(alice, bob)
    wait_for(lambda: {"10.62.0.0/16", "fd62::/48"} <= routes(alice), what="the routes")
    assert ping(alice, bob.ip4).lost == 0
    alice.stop()
    assert routes(alice) == before, "what is not ours stays, and nothing else"
    alice.start()
    lab.wait_mesh(alice, bob)
    wait_for(lambda: "10.62.0.0/16" in routes(alice), what="the route")
