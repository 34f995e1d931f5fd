# SPDX-License-Identifier: MIT
"""
Several networks on one machine, and what keeps them apart: ports, names, cards.

    [ home0 10.7.0.1 ]  alice  [ work0 10.8.0.1 ]
      8443/9443 |                  | 8444/9444
                +==== internet ====+
      8443/9443 |                  | 8444/9444
    [ home0 10.7.0.2 ]   bob   [ work0 10.8.0.2 ]
"""

import json
import os
import re
import socket
import threading

import pytest

from lab import EXPERIMENTAL, Authority, ping, tcp_both_ways

PORTS = {"home": (8443, 9443, "10.7.0"), "work": (8444, 9444, "10.8.0")}


def network(lab, machines, name, **sections):
    """A daemon of that network on each machine, not started."""
    control, data, subnet = PORTS[name]
    everybody = [machine.name for machine in machines]
    daemons = []
    for machine in machines:
        peers = [{"Name": other, "Endpoint": lab.endpoint(lab.machines[other], control)}
                 for other in everybody if other != machine.name]
        daemons.append(lab.daemon(
            machine, network=name, peers=peers, address=f"{subnet}.{machine.number}/24",
            sections={"Interface": {"Name": name + "0"},
                      "Transport": {"ControlPort": control, "DataPort": data}, **sections}))
    return daemons


def start(*daemons):
    for daemon in daemons:
        daemon.start(wait=False)
    for daemon in daemons:
        daemon.wait_ready()


def test_two_networks_on_one_machine(lab):
    machines = lab.internet("alice", "bob")
    home, work = network(lab, machines, "home"), network(lab, machines, "work")
    start(*home, *work)
    lab.wait_mesh(*home)
    lab.wait_mesh(*work)
    for daemons, subnet in ((home, "10.7.0"), (work, "10.8.0")):
        for a, b in (daemons, daemons[::-1]):
            assert b.ip4.startswith(subnet)
            assert ping(a, b.ip4, count=20).lost == 0
            assert ping(a, b.ip6, count=20).lost == 0
    problems = []

    def transfer(a, b, port):
        try:
            tcp_both_ways(a, b, b.ip4, mbytes=10, port=port)
        except (AssertionError, OSError) as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=transfer, args=(*daemons, 5300 + i))
               for i, daemons in enumerate((home, work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    # a frame of one network never reaches the other
    with work[1].raw(EXPERIMENTAL) as stranger, home[1].raw(EXPERIMENTAL) as into, \
            home[0].raw() as out:
        one = b"\xff" * 6 + home[0].mac + b"\x88\xb5" + bytes(range(50))
        out.send(one)
        assert into.receive() == one
        assert ping(work[0], work[1].ip4).lost == 0
        assert stranger.drain() == []
    # one ends, the other does not notice
    home[0].stop()
    assert ping(work[0], work[1].ip4).lost == 0
    assert work[0].peer("bob")["state"] == "up"


def test_which_network_is_asked(lab):
    machines = lab.internet("alice", "bob")
    (home, _), (work, _) = network(lab, machines, "home"), network(lab, machines, "work")
    alice = home.machine
    assert alice.cli("status").returncode == 3
    start(home)
    assert json.loads(alice.cli("status", "--json").stdout)["network"] == "home"
    start(work)
    refused = alice.cli("status")
    assert refused.returncode == 2
    assert re.search(r"home.*work", refused.stderr)
    for daemon in (home, work):
        done = alice.cli("status", daemon.network, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["network"] == daemon.network
    assert alice.cli("down", "home").returncode == 0
    assert home.wait() == 0
    assert json.loads(alice.cli("status", "--json").stdout)["network"] == "work"


# --- what is taken ---


@pytest.mark.parametrize("taken,kind", [("DataPort", "UDP"), ("ControlPort", "TCP")])
def test_port_of_another_daemon(lab, taken, kind):
    """Refused with the network and the process that hold it, and those do not notice."""
    machines = lab.internet("alice", "bob")
    home, (intruder, _) = network(lab, machines, "home"), network(lab, machines, "work")
    start(*home)
    lab.wait_mesh(*home)
    port = home[0].sections["Transport"][taken]
    intruder.configure("Transport", **{taken: port})
    log = intruder.refuse()
    assert re.search(rf"{kind} port {port} is taken by another shadowmesh \(network home, "
                     rf"pid {home[0].pid}\)", log), log
    assert ping(home[0], home[1].ip4).lost == 0
    assert "work0" not in intruder.machine.links()
    # and after its end the port is free
    home[0].stop()
    intruder.start()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("taken,kind", [("DataPort", "UDP"), ("ControlPort", "TCP")])
def test_port_of_a_foreign_process(lab, taken, kind, family):
    machine, _ = lab.internet("alice", "bob")
    alice = lab.daemon(machine)
    port = {"DataPort": 9443, "ControlPort": 8443}[taken]
    holder = machine.socket(family, socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM)
    # an innocent program would do so, and may not let a second daemon in
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    holder.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    if kind == "TCP":
        holder.listen(1)
    log = alice.refuse()
    with open("/proc/self/comm") as file:
        name = file.read().strip()
    assert re.search(rf"{kind} port {port} is taken by {re.escape(name)} \(pid {os.getpid()}\)", log), log
    assert "smesh0" not in machine.links()
    holder.close()
    alice.start()


def test_up_twice(lab):
    """The same network again: refused, the first one lives on. Also with other ports and card."""
    alice, bob = lab.mesh("alice", "bob")
    again = lab.daemon(alice.machine, peers=["bob"])
    log = again.refuse()
    assert f"network home is up already on this machine (pid {alice.pid})" in log
    again.configure("Transport", ControlPort=8555, DataPort=9555)
    again.configure("Interface", Name="smesh1")
    again.configure("Control", Socket=alice.machine.runtime + "/other.sock")
    assert f"network home is up already on this machine (pid {alice.pid})" in again.refuse()
    assert ping(alice, bob.ip4).lost == 0
    assert alice.status()["pid"] == alice.pid
    # after a crash nothing stands in the way
    alice.kill()
    alice.start()
    lab.wait_mesh(alice, bob)
    assert ping(alice, bob.ip4).lost == 0


def test_card_of_another_daemon(lab):
    machines = lab.internet("alice", "bob")
    (home, _), (work, _) = network(lab, machines, "home"), network(lab, machines, "work")
    start(home)
    work.configure("Interface", Name="home0")
    log = work.refuse()
    assert re.search(rf"home0 is in use by .*pid {home.pid}", log), log
    assert home.status()["interface"]["name"] == "home0"
    work.configure("Interface", Name="work0")
    start(work)


def test_certificate_of_another_network(lab):
    """A mix-up of two networks' files is seen at start, not at the first peer."""
    machine, _ = lab.internet("alice", "bob")
    home = network(lab, [machine], "home")
    certificate, key = Authority.get("work").issue("alice", "--address", "10.7.0.1/24")
    home[0].configure("Node", Certificate=certificate, PrivateKey=key)
    assert re.search(r"error .*ca\.pem: the CA is of network [0-9a-f]{32}, not", home[0].refuse())
    _, other_key = Authority.get("home").issue("bob", "--address", "10.7.0.2/24")
    right, _ = Authority.get("home").issue("alice", "--address", "10.7.0.1/24")
    home[0].configure("Node", Certificate=right, PrivateKey=other_key)
    assert "is not for the key in" in home[0].refuse()


def test_address_issued_anew(lab):
    """Two certificates with one address: the node that is there has it, not the one that has left."""
    alice, bob, carol = lab.internet("alice", "bob", "carol")
    gate = lab.daemon(alice)
    first = lab.daemon(bob, peers=["alice"], address="10.7.0.77/24")
    gate.start()
    first.start()
    gate.wait_up(first)
    assert ping(gate, "10.7.0.77").lost == 0
    first.stop()
    second = lab.daemon(carol, peers=["alice"], address="10.7.0.77/24")
    second.start()
    gate.wait_up(second)
    gate.machine.ip("neigh flush dev smesh0")
    assert ping(gate, "10.7.0.77").lost == 0
