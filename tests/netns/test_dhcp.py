# SPDX-License-Identifier: MIT
"""
DHCP across the tunnel: dnsmasq behind one end's card, udhcpc behind the other's, which has no address.

    [ smesh0: udhcpc ] alice ==== internet ==== bob [ smesh0 10.7.0.2/24: dnsmasq ]
"""

import os
import subprocess

from lab import neighbour, ping, tcp_both_ways, wait_for

SCRIPT = """#!/bin/sh
# what the lease says, as a line; resolv.conf is left alone
case $1 in
bound | renew)
	ip addr flush dev "$interface" scope global
	ip addr add "$ip/$mask" dev "$interface"
	[ -z "$router" ] || ip route replace default via "$router"
	;;
deconfig) ip -4 addr flush dev "$interface" scope global ;;
esac
echo "$1 $ip $router $domain" >>"$LEASE_LOG"
"""


def serve(bob, folder):
    """dnsmasq at bob's, in the foreground; --no-ping: or the offer comes too late."""
    log = open(os.path.join(folder, "dnsmasq.log"), "w+")
    process = bob.machine.popen(
        "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-ping", "--log-dhcp",
        "--interface=smesh0", "--bind-interfaces", "--dhcp-range=10.7.0.100,10.7.0.150,2m",
        "--dhcp-option=option:router,10.7.0.2", "--domain=mesh.test", "--dhcp-authoritative",
        f"--dhcp-leasefile={folder}/leases", f"--pid-file={folder}/dnsmasq.pid",
        stdout=log, stderr=subprocess.STDOUT)
    bob.lab.files.append(log)
    wait_for(lambda: ":0043 " in bob.machine.sh("cat", "/proc/net/udp"), what="dnsmasq to listen")
    return process


def ask(alice, folder, *options):
    script = os.path.join(folder, "lease.sh")
    lease_log = os.path.join(folder, "lease.log")
    with open(script, "w") as file:
        file.write(SCRIPT)
    os.chmod(script, 0o755)
    text = alice.machine.sh("udhcpc", "-i", "smesh0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s",
                            script, *options, env=dict(os.environ, LEASE_LOG=lease_log), timeout=15)
    with open(lease_log) as file:
        bound = [line.split() for line in file if line.startswith("bound")]
    assert bound, text
    return bound[-1]


def test_dhcp_across_the_tunnel(lab):
    lab.internet("alice", "bob")
    alice = lab.daemon(lab.machines["alice"], address=(), peers=["bob"])
    bob = lab.daemon(lab.machines["bob"], peers=["alice"])
    for daemon in (alice, bob):
        daemon.start()
    lab.wait_mesh(alice, bob)
    assert "10.7.0." not in alice.machine.ip("-4 addr show dev smesh0")
    serve(bob, bob.folder)

    _, address, router, domain = ask(alice, alice.folder)
    assert (router, domain) == ("10.7.0.2", "mesh.test")
    assert 100 <= int(address.split(".")[3]) <= 150
    assert ping(alice, bob.ip4).lost == 0
    assert ping(bob, address).lost == 0
    assert neighbour(bob, address)["lladdr"] == alice.mac.hex(":")
    tcp_both_ways(bob, alice, address, mbytes=2)

    # the same card gets the same address again, also after its daemon was away
    alice.restart()
    lab.wait_mesh(alice, bob)
    assert ask(alice, alice.folder)[1] == address
    assert ping(bob, address).lost == 0
