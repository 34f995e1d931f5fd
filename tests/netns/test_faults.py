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

import pytest

from faults import HOLE, RESUME, Block, Flows, Transfer, card_drops, nft, pause_until
from lab import (CONTROL_PORT, DATA_PORT, EXPERIMENTAL, SANITIZED, SLOW, Lab, now, patterned, ping,
                 tcp_both_ways, wait_for)


def kill_and_start(daemon, flows, within=RESUME):
    """SIGKILL, then a start; traffic is back soon after that."""
    daemon.kill()
    flows.wait_stopped()
    since = now()
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
                pause_until(now() + after)
                daemon.kill()
            since = now()
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
            since = now()
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
        since = now()
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
        since = now()
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
        since = now()
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
            since = now()
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
        begin = now()
        for daemon in (bob, carol):
            wait_for(lambda d=daemon: alice.peer(d)["state"] == "silent", 8, "alice to notice")
        pause_until(begin + 5)
        lab.replug(bob.machine)
        since = block.end()
        for flows in (unplugged, silent):
            flows.wait_resumed(since)
        for transfer in transfers:
            transfer.wait_more(1 << 20)
            transfer.end()
        for daemon in (bob, carol):
            alice.wait_up(daemon)
            daemon.wait_up(alice)
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
    """Its address in the underlay changes; gives the moment when the old one was gone.

    Both subnets are on the link; routes go with the last address.
    """
    daemon.machine.ip(f"addr del {before}/24 dev eth0")
    since = now()
    daemon.machine.ip(f"addr add {after}/24 dev eth0")
    for subnet in ("198.51.100.0/24", "203.0.113.0/24"):
        daemon.machine.ip(f"route replace {subnet} dev eth0")
    return since


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
            since = move(daemon, before, after)
            flows.wait_resumed(since)
            assert other.peer(daemon)["path"]["remote"] == f"{after}:{DATA_PORT}"
        transfer.wait_more(1 << 20)
        transfer.end()
        assert alice.peer(bob)["session"]["rekeys"] == 0
        assert alice.peer(bob)["session"]["index"] == index, "one session for all of it"


def test_address_changes_v6(lab):
    alice, bob = lab.mesh("alice", "bob", families=(6,))
    with Flows(alice, bob) as flows:
        for daemon, before, after in ((alice, "2001:db8::1", "2001:db8::aaaa"),
                                      (bob, "2001:db8::2", "2001:db8::bbbb")):
            daemon.machine.ip(f"addr del {before}/64 dev eth0")
            since = now()
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
            since = now()
            if i == 3:
                router.ip(f"addr del {router.ip4}/24 dev eth0")
                router.ip("addr add 198.51.100.99/24 dev eth0")
            forget_connections(router)
            wait_for(lambda b=before: alice.peer(bob)["path"]["remote"] != b, what="alice to follow")
            flows.wait_resumed(since)
        assert alice.peer(bob)["path"]["remote"].startswith("198.51.100.99:")


# --- clocks ---

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Clock:
    """A daemon's wall clock, apart from the machine's; it can be set while the daemon runs."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.path = os.path.join(daemon.folder, "clock")
        self.set("+0")
        daemon.extra_env.update(LD_PRELOAD=FAKETIME, FAKETIME_TIMESTAMP_FILE=self.path, FAKETIME_NO_CACHE="1",
                                FAKETIME_DONT_FAKE_MONOTONIC="1")

    def set(self, offset):
        with open(self.path + ".new", "w") as file:
            file.write(offset + "\n")
        os.rename(self.path + ".new", self.path)

    def days_left(self):
        """Of its certificate, as the daemon sees it."""
        return self.daemon.status()["node"]["certificate"]["days_left"]


def clock_steps(lab):
    """A day forward and back, on one side, while traffic flows; and it can connect anew each time."""
    alice, bob = lab.mesh("alice", "bob", start=False)
    clock = Clock(bob)
    alice.start(wait=False)
    bob.start()
    alice.wait_ready()
    lab.wait_mesh(alice, bob)
    normal, uptime = clock.days_left(), bob.status()["uptime_us"]
    with Flows(alice, bob) as flows:
        for offset, days in (("+1d", -1), ("-1d", 1), ("+0", 0)):
            session = alice.peer(bob)["session"]["index"]
            since = now()
            clock.set(offset)
            wait_for(lambda d=days: clock.days_left() - normal in (d, d - 1), what="the clock to step")
            flows.run_for(0.5)
            assert flows.longest_hole(since) <= HOLE
            assert alice.peer(bob)["session"]["index"] == session
            alice.kill()
            flows.wait_stopped()
            since = now()
            alice.start(wait=False)
            flows.wait_resumed(since)
            alice.wait_ready()
    assert bob.status()["uptime_us"] - uptime < 100e6, "only the wall clock was to step"


if not SANITIZED:  # a sanitizer does not run under a preloaded library
    def test_clock_steps_by_a_day(lab):
        clock_steps(lab)


# --- bad wires ---

# between the two wires: what a bit flip did is not to be caught by UDP's checksum
NO_CHECKSUM = f"""
table bridge wire {{
	chain forward {{ type filter hook forward priority 0; ether type ip udp dport {DATA_PORT} udp checksum set 0; }}
}}
"""


class Watch:
    """Frames of our own EtherType from one card to the other's: each is seen at most once and whole."""

    def __init__(self, a, b, wire, seed):
        self.wire = wire
        self.out, self.into = a.raw(EXPERIMENTAL), b.raw(EXPERIMENTAL)
        self.head = b.mac + a.mac + struct.pack("!H", EXPERIMENTAL)
        self.body = patterned(seed, 1200)
        self.count = 0

    def frame(self, number):
        size = 60 + number * 7 % 1100
        return self.head + struct.pack("!I", number) + self.body[:size]

    def send(self, count, batch=200):
        """Never more at once than the queues of the card and of the wire's end hold."""
        for i in range(count):
            if i % batch == 0:
                wanted = self.taken() + batch
            self.out.send(self.frame(self.count))
            self.count += 1
            if i % batch == batch - 1:
                wait_for(lambda w=wanted: self.taken() >= w, what="the wire to take them")

    def taken(self):
        return self.wire.stats()["a2b"]["in_frames"]

    def arrived(self):
        """The numbers of all that has come by now; an AssertionError for a strange or repeated one."""
        numbers = []
        for frame in self.into.drain():
            number = struct.unpack_from("!I", frame, 14)[0]
            assert number < self.count and frame == self.frame(number), f"not what was sent: {frame.hex()}"
            numbers.append(number)
        assert len(set(numbers)) == len(numbers), "a frame came twice"
        return numbers


WIRES = [
    ("duplicate 5%", "duplicate", 1.0),
    ("reorder 5% reorder-gap 3", "late", 1.0),
    ("loss 1%", "lost", 0.95),
    ("loss 10%", "lost", 0.8),
    ("corrupt 1%", "forged", 0.95),
]


def frames_destroyed(wire):
    """Lost or damaged, in either direction; each of them cost one frame of the overlay at most."""
    return sum(way["lost"] + way["corrupted"] for way in wire.stats().values() if isinstance(way, dict))


def test_bad_wires(lab):
    """Duplicates, disorder, loss, flipped bits: counted under their names, harmless above."""
    alice, bob = lab.mesh("alice", "bob", families=(4,), impair=("--seed", "7"))
    nft(lab.bridge, NO_CHECKSUM)
    wire = lab.wires["alice"]
    for number, (settings, counter, share) in enumerate(WIRES):
        before = bob.peer(alice)["counters"]
        watch = Watch(alice, bob, wire, number)
        wire.say("set " + settings)
        watch.send(2000)
        tcp_both_ways(alice, bob, bob.ip4, mbytes=1, port=5001 + number)
        destroyed = frames_destroyed(wire)
        result = ping(alice, bob.ip4, count=100, interval=0.002, deadline=2)
        assert result.received > 0 and result.lost <= frames_destroyed(wire) - destroyed, result.text
        assert alice.is_up(bob) and bob.is_up(alice)
        wire.say("clear")
        assert ping(alice, bob.ip4, count=1).received == 1  # behind all that was sent
        arrived = watch.arrived()
        assert len(arrived) >= 2000 * share * 0.98, f"{settings}: {len(arrived)} of 2000 arrived"
        after = bob.peer(alice)["counters"]
        assert after[counter] > before[counter], f"{settings}: {before}, {after}"
        if counter == "duplicate":
            assert bob.drops()["replayed"] >= after["duplicate"]
        if counter == "forged":
            assert bob.drops()["forged"] > 0 and wire.stats()["a2b"]["corrupted"] > 0


# --- keys ---


def test_rekey_under_load(lab):
    """TCP and a flood of UDP both ways, new keys every second: no packet is lost by that."""
    alice, bob = lab.mesh("alice", "bob", sections={"Transport": {"RekeyAfter": "1s"}})
    begin = now()
    transfers = [Transfer(alice, bob, bob.ip4, 30_000_000), Transfer(bob, alice, alice.ip4, 30_000_000)]
    with Flows(alice, bob, interval=0.0005, size=1000) as flows:
        flows.run_for(10)
        seconds = now() - begin
        for transfer in transfers:
            assert transfer.end() > 10 << 20
        for flow in flows.flows:
            # TCP may fill the cards' queues; nothing else may be missing
            flow.stop_whole(lambda f=flow: card_drops(f.a, "tx") + card_drops(f.b, "rx"))
    for a, b in ((alice, bob), (bob, alice)):
        entry = a.peer(b)
        assert entry["session"]["rekeys"] >= seconds / 2.5 / SLOW, entry["session"]
        counters = {name: entry["counters"][name] for name in ("lost", "late", "duplicate", "forged")}
        assert not any(counters.values()), f"{a} from {b}: {counters}"
        assert not a.drops().keys() - {"no_session"}, a.drops()


# --- what an administrator does ---


def test_card_down_and_up(lab):
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob) as flows:
        for daemon in (alice, bob):
            daemon.machine.ip("link set smesh0 down")
            flows.wait_stopped()
            since = now()
            daemon.machine.ip("link set smesh0 up")
            flows.wait_resumed(since)
    assert alice.peer(bob)["session"]["rekeys"] == 0


def check_crosses(a, b, size):
    """Echoes of that size come back, but for those that found no room beside the TCP in a card's queue."""
    while True:
        before = card_drops(a, "tx") + card_drops(b, "tx")
        result = ping(a, b.ip4, count=2, size=size, df=True)
        assert result.lost <= card_drops(a, "tx") + card_drops(b, "tx") - before, result.text
        if result.received:
            break


def test_underlay_mtu_changes(lab):
    """The network's MTU is lowered at both ends while TCP runs both ways, and raised again; full frames and
    those just above and below the limit cross all the time."""
    alice, bob = lab.mesh("alice", "bob")
    transfers = [Transfer(alice, bob, bob.ip4, 20_000_000), Transfer(bob, alice, alice.ip4, 20_000_000)]
    with Flows(alice, bob) as flows:
        for mtu in (1300, 1280, 1500):
            for daemon in (alice, bob):
                lab.bridge.ip(f"link set {daemon.name} mtu {mtu}")
                daemon.machine.ip(f"link set eth0 mtu {mtu}")
            since = now()
            flows.wait_resumed(since)
            for transfer in transfers:
                transfer.wait_more(1 << 20)
            for a, b in ((alice, bob), (bob, alice)):
                wait_for(lambda a=a, b=b, mtu=mtu: a.peer(b)["path"]["mtu"] == mtu, what=f"{a} to notice")
                for size in (1472, *range(1150, 1473, 23)):
                    check_crosses(a, b, size)
    for transfer in transfers:
        transfer.end()


def test_stopped_for_10_s(lab):
    """SIGSTOP and SIGCONT, as a debugger or a frozen machine does."""
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob) as flows:
        bob.signal(signal.SIGSTOP)
        begin = now()
        wait_for(lambda: alice.peer(bob)["state"] == "silent", 8, "alice to notice")
        pause_until(begin + 10)
        since = now()
        bob.signal(signal.SIGCONT)
        flows.wait_resumed(since)
        alice.wait_up(bob)


def test_reload_loses_nothing(lab):
    alice, bob = lab.mesh("alice", "bob")
    with Flows(alice, bob, interval=0.001) as flows:
        for _ in range(5):
            for daemon in (alice, bob):
                position = daemon.log_size()
                daemon.signal(signal.SIGHUP)
                daemon.wait_log("reloaded", position=position)
        flows.run_for(0.2)
        flows.stop_whole()
    assert alice.peer(bob)["session"]["rekeys"] == 0


# --- disks ---


def test_log_on_a_full_disk(lab):
    """The log's disk is full: what is said is lost, frames are not; and it goes on when there is room."""
    alice, bob = lab.mesh("alice", "bob", start=False)
    mount = os.path.join(lab.tmp, "disk")
    os.mkdir(mount)
    script = f"mount -t tmpfs -o size=64k disk {mount} && exec 2>>{mount}/log && exec \"$@\""
    alice.start(wait=False)
    bob.start(wrapper=("unshare", "-m", "sh", "-c", script, "--"))
    alice.wait_ready()
    lab.wait_mesh(alice, bob)
    disk = f"/proc/{bob.pid}/root{mount}"
    with Flows(alice, bob) as flows:
        since = now()
        with pytest.raises(OSError), open(f"{disk}/fill", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        size = os.path.getsize(f"{disk}/log")
        for _ in range(50):  # each says something
            bob.ask("reload")
        assert os.path.getsize(f"{disk}/log") <= -(-size // 4096) * 4096, "is the disk full?"
        flows.run_for(0.5)
        assert flows.longest_hole(since) <= HOLE
        os.unlink(f"{disk}/fill")
        size = os.path.getsize(f"{disk}/log")
        bob.ask("reload")
        wait_for(lambda: os.path.getsize(f"{disk}/log") > size, what="the log to go on")


def test_read_only_runtime_directory(lab):
    """At start it is refused by name; while running nothing comes of it but what is left at the end."""
    alice, bob = lab.mesh("alice", "bob")
    folder = bob.machine.runtime
    script = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec \"$@\""
    bob.stop()
    position = bob.log_size()
    bob.start(wait=False, wrapper=("unshare", "-m", "sh", "-c", script, "--"))
    assert bob.wait() == 1
    said = bob.log(position)
    assert re.search(rf"error .*{re.escape(folder)}.*Read-only file system", said), said

    script = f"mount --bind {folder} {folder} && exec \"$@\""
    bob.start(wrapper=("unshare", "-m", "sh", "-c", script, "--"))
    lab.wait_mesh(alice, bob)
    with Flows(alice, bob) as flows:
        since = now()
        # a mount on top: the one below has its lock files open for writing
        subprocess.run(["nsenter", f"--mount=/proc/{bob.pid}/ns/mnt", "sh", "-c",
                        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"], check=True)
        bob.signal(signal.SIGHUP)
        bob.wait_log("reloaded", position=position)
        assert bob.is_up(alice)
        flows.run_for(0.5)
        assert flows.longest_hole(since) <= HOLE
    bob.signal(signal.SIGTERM)
    assert bob.wait() == 0
    os.unlink(bob.socket_path)  # it could not


# --- long ones, which ran beside all the others ---


class Outages:
    """
    [ alice ] ==== internet ====+==== [ bob ]    unplugged for a minute
                                +==== [ carol ]  all packets lost in silence for a minute
                                +==== [ dave ]   TCP lost in silence, UDP passes; RekeyAfter = 4s
    """

    LENGTH = 60

    def __init__(self):
        self.lab = Lab()
        self.alice, self.bob, self.carol, self.dave = self.lab.mesh(
            "alice", "bob", "carol", "dave", sections={"Transport": {"RekeyAfter": "4s"}, "Log": {"Level": "notice"}})
        self.flows = {one.name: Flows(self.alice, one, interval=0.05)
                      for one in (self.bob, self.carol, self.dave)}
        self.begin = now()
        self.lab.unplug(self.bob.machine)
        self.silence = Block(self.carol, [""], [""])
        tcp = [f"tcp dport {CONTROL_PORT}", f"tcp sport {CONTROL_PORT}"]
        self.no_tcp = Block(self.dave, tcp, tcp)

    def close(self):
        for flows in self.flows.values():
            flows.__exit__(True)
        self.lab.close()


@pytest.fixture(scope="module", autouse=True)
def outages(request):
    wanted = [item for item in request.session.items
              if item.module is request.module and "outages" in item.function.__code__.co_varnames]
    made = Outages() if wanted else None
    yield made
    if made:
        made.close()


def test_tcp_blocked_for_long(outages):
    """The session lives without its control connection and rekeys over the sealed stream."""
    alice, dave, flows = outages.alice, outages.dave, outages.flows["dave"]
    for a, b in ((alice, dave), (dave, alice)):
        wait_for(lambda a=a, b=b: a.peer(b)["tls"] == "down", 40, f"{a} to give up TCP")
    session = alice.peer(dave)["session"]["index"]
    epochs = [a.peer(b)["session"]["epoch"] for a, b in ((alice, dave), (dave, alice))]
    for (a, b), epoch in zip(((alice, dave), (dave, alice)), epochs):
        wait_for(lambda a=a, b=b, e=epoch: a.peer(b)["session"]["epoch"] >= e + 3, 30, "three rekeyings")
        assert a.peer(b)["tls"] == "down" and a.is_up(b)
    assert alice.peer(dave)["session"]["index"] == session
    assert flows.longest_hole(outages.begin) <= HOLE, "nobody but TCP noticed"
    for a, b in ((alice, dave), (dave, alice)):
        assert not any(a.peer(b)["counters"][name] for name in ("lost", "forged", "duplicate"))
    back = outages.no_tcp.end()
    for a, b in ((alice, dave), (dave, alice)):
        wait_for(lambda a=a, b=b: a.peer(b)["tls"] == "up", 6, f"{a} to have TCP again")
    flows.run_for(0.5)
    assert flows.longest_hole(back) <= HOLE


def test_link_down_60_s(outages):
    pause_until(outages.begin + outages.LENGTH)
    alice = outages.alice
    assert alice.peer("bob")["state"] != "up" and alice.peer("carol")["state"] != "up"
    outages.lab.replug(outages.bob.machine)
    since = outages.silence.end()
    for name in ("bob", "carol"):
        outages.flows[name].wait_resumed(since, 5)
    for daemon in (outages.bob, outages.carol):
        alice.wait_up(daemon)
        wait_for(lambda d=daemon: alice.peer(d)["tls"] == "up", 10, "the control connection")
