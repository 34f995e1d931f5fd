# SPDX-License-Identifier: MIT
"""
What the tests of faults share: flows of numbered datagrams, in which holes are looked for, and transfers that
go on until they are told to end.

A fault's end is a moment of now(); "resumed" means that from some datagram on, sent after
that moment, a run of them arrived without a hole, and its first arrival is what counts.
"""

import contextlib
import hashlib
import itertools
import json
import select
import socket
import struct
import subprocess
import threading

from lab import SLOW, SO_RCVBUFFORCE, family_of, machine_of, now, patterned, sh, wait_for

INTERVAL = 0.02  # seconds between the datagrams of a flow
RUN = 10         # so many without a hole are no accident
RESUME = 3.0     # seconds in which traffic must be back
HOLE = 5         # so many lost in a row are none that a user notices
ports = itertools.count(20000)


class Flow:
    """Numbered datagrams from one side to the other's address, all the time; the sockets survive
    whatever happens to the interfaces under them. A datagram with other bytes is an error at stop()."""

    def __init__(self, a, b, address, interval=INTERVAL, size=100):
        self.a, self.b, self.address, self.interval = a, b, address, interval
        self.port = next(ports)
        self.sent = []      # time by number
        self.arrived = []   # (time, number)
        self.problems = []
        self.body = patterned("flow", size - 4)
        family = family_of(address)
        self.receiver = machine_of(b).socket(family, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.receiver.bind(("", self.port))
        self.receiver.setblocking(False)
        self.sender = machine_of(a).socket(family, socket.SOCK_DGRAM)
        self.sender.setblocking(False)
        self.held = False   # nothing more is sent, what comes is still taken
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        due = now()
        while not self.ended.is_set():
            left = INTERVAL if self.held else due - now()
            if left <= 0:
                self.sent.append(now())
                # no interface, no route, no neighbour: all that is loss
                with contextlib.suppress(OSError):
                    self.sender.sendto(struct.pack("!I", len(self.sent) - 1) + self.body,
                                       (self.address, self.port))
                due = max(due + self.interval, now() - 10 * self.interval)
            elif select.select([self.receiver], [], [], left)[0]:
                self.receive()
        self.receive()

    def receive(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.receiver.recv(1 << 16)
                number = struct.unpack_from("!I", data)[0] if len(data) >= 4 else -1
                if data[4:] != self.body or number >= len(self.sent):
                    self.problems.append(f"a datagram of other bytes came: {data[:32].hex()}")
                self.arrived.append((now(), number))

    def resumed(self, since, run=RUN):
        """Seconds from that moment to the first arrival of a whole run sent after it; None: not yet."""
        count = 0
        first = last = None
        for at, number in self.arrived[:]:
            if self.sent[number] < since:
                continue
            if last is not None and number == last + 1:
                count += 1
            else:
                first, count = at, 1
            last = number
            if count == run:
                return first - since
        return None

    def wait_resumed(self, since, within=RESUME):
        wait_for(lambda: self.resumed(since) is not None, within + 3, f"{self} to resume")
        took = self.resumed(since)
        assert took <= within * SLOW, f"{self} resumed after {took:.2f} s, {within} s were allowed"
        return took

    def __repr__(self):
        return f"traffic {self.a} to {self.b}"

    def is_stopped(self, run=RUN):
        """The last datagrams have all been lost."""
        return len(self.sent) - 1 - max(number for _, number in self.arrived[-run:]) > run

    def longest_hole(self, since):
        """So many datagrams in a row, sent after that moment, were lost. Unlike a gap in time it does not
        grow when the machine is too busy to send."""
        newest = len(self.sent) - 1
        wait_for(lambda: self.arrived and self.arrived[-1][1] >= newest, 5, f"{self} to go on")
        arrived = {number for _, number in self.arrived[:]}
        longest = count = 0
        for number in range(newest + 1):
            if self.sent[number] >= since:
                count = 0 if number in arrived else count + 1
                longest = max(longest, count)
        return longest

    def stop(self):
        """Ends it; gives the numbers that arrived, in order of arrival, each at most once."""
        self.ended.set()
        self.thread.join()
        self.receiver.close()
        self.sender.close()
        assert not self.problems, self.problems[:3]
        numbers = [number for _, number in self.arrived]
        assert len(numbers) == len(set(numbers)), f"{self}: a datagram came twice"
        return numbers

    def missing(self):
        """How many of those sent have not arrived (yet)."""
        return len(self.sent) - len({number for _, number in self.arrived[:]})

    def stop_whole(self, allowed=lambda: 0, timeout=10.0):
        """Sends no more and waits for what is on its way; an AssertionError if more than that is missing."""
        self.held = True
        wait_for(lambda: self.missing() <= allowed(), timeout,
                 f"all of {self}, {self.missing()} are missing, {allowed()} may be")
        self.stop()


class Flows:
    """A flow in each direction between two daemons."""

    def __init__(self, a, b, interval=INTERVAL, size=100, family=4):
        to = {daemon: daemon.ip4 if family == 4 else daemon.ip6 for daemon in (a, b)}
        self.flows = [Flow(a, b, to[b], interval, size), Flow(b, a, to[a], interval, size)]
        self.wait_running()

    def wait_running(self):
        begin = now()
        for flow in self.flows:
            flow.wait_resumed(begin, 5)

    def wait_resumed(self, since, within=RESUME):
        return max(flow.wait_resumed(since, within) for flow in self.flows)

    def wait_stopped(self, timeout=5):
        """Waits until nothing arrives any more, in either direction."""
        for flow in self.flows:
            wait_for(flow.is_stopped, timeout, f"{flow} to stop")

    def longest_hole(self, since):
        return max(flow.longest_hole(since) for flow in self.flows)

    def run_for(self, seconds):
        """Lets it flow until so many more datagrams have been sent."""
        flow = self.flows[0]
        wanted = len(flow.sent) + int(seconds / flow.interval)
        wait_for(lambda: len(flow.sent) >= wanted, seconds * 3 + 5, "more datagrams")

    def stop(self):
        return [flow.stop() for flow in self.flows]

    def stop_whole(self):
        """Ends both; nothing at all was lost."""
        for flow in self.flows:
            flow.stop_whole()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for flow in self.flows:
            flow.ended.set()
            flow.thread.join()
        if kind is None:
            self.stop()


class Transfer:
    """TCP from a to b's address until end(); both ends' checksums are compared then.

    rate: bytes a second at most
    """

    def __init__(self, a, b, address, rate=200_000_000, timeout=30):
        self.port = next(ports)
        self.rate = rate
        listener = machine_of(b).socket(family_of(address), socket.SOCK_STREAM, timeout=timeout)
        listener.bind((address, self.port))
        listener.listen(1)
        self.client = machine_of(a).socket(family_of(address), socket.SOCK_STREAM, timeout=timeout)
        self.client.connect((address, self.port))
        self.server, _ = listener.accept()
        self.server.settimeout(timeout * SLOW)
        listener.close()
        self.sums = [hashlib.sha256(), hashlib.sha256()]
        self.sent = self.received = 0
        self.problems = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.send, daemon=True),
                        threading.Thread(target=self.receive, daemon=True)]
        for thread in self.threads:
            thread.start()

    def send(self):
        blocks = [patterned(i, 65536 + i) for i in range(16)]
        begin = now()
        try:
            for block in itertools.cycle(blocks):
                if self.ending.is_set():
                    break
                ahead = self.sent / self.rate - (now() - begin)
                if ahead > 0:
                    self.ending.wait(ahead)
                self.client.sendall(block)
                self.sums[0].update(block)
                self.sent += len(block)
            self.client.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.problems.append(f"cannot send: {error}")

    def receive(self):
        try:
            while block := self.server.recv(1 << 18):
                self.sums[1].update(block)
                self.received += len(block)
        except OSError as error:
            self.problems.append(f"cannot receive: {error}")

    def wait_more(self, size, timeout=10):
        """Until so many more bytes have arrived."""
        wanted = self.received + size
        wait_for(lambda: self.received >= wanted or self.problems, timeout,
                 f"{size} more bytes over TCP")
        assert not self.problems, self.problems

    def end(self):
        """Gives the bytes that went over."""
        self.ending.set()
        for thread in self.threads:
            thread.join()
        self.client.close()
        self.server.close()
        assert not self.problems, self.problems
        assert self.sums[0].digest() == self.sums[1].digest(), "the data changed on its way"
        assert self.sent == self.received > 0
        return self.sent

    def abandon(self):
        """The connection's other end may be gone for good."""
        self.ending.set()
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.client.close()
        self.server.close()


def nft(machine, rules):
    """Loads rules into a machine's nftables."""
    subprocess.run([*machine_of(machine).prefix(), "nft", "-f", "-"], input=rules, text=True,
                   check=True, timeout=10 * SLOW)


class Block:
    """Packets that a machine's firewall loses silently, while in the "with" block (or until end()).

    rules: matches of nftables for input and output, as "udp dport 9443"; "" for all
    """

    numbers = itertools.count(1)

    def __init__(self, machine, inward=(), outward=()):
        self.machine = machine_of(machine)
        self.table = f"block{next(self.numbers)}"
        lines = [f"table inet {self.table} {{"]
        for hook, rules in (("input", inward), ("output", outward)):
            lines += [f"chain {hook} {{ type filter hook {hook} priority 0;"]
            lines += [f'iifname "eth0" {rule} drop' if hook == "input" else f'oifname "eth0" {rule} drop'
                      for rule in rules]
            lines += ["}"]
        nft(self.machine, "\n".join([*lines, "}", ""]))

    def end(self):
        """Gives the moment."""
        if self.table:
            nft(self.machine, f"delete table inet {self.table}\n")
            self.table = None
        return now()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def card_drops(daemon, direction):
    """Frames that the kernel dropped at the card, "tx": before the daemon could read them."""
    stats = sh("ip", "-n", daemon.machine.netns, "-s", "-json", "link", "show", "smesh0")
    dropped = json.loads(stats)[0]["stats64"][direction]["dropped"]
    queues = json.loads(sh("tc", "-n", daemon.machine.netns, "-s", "-json", "qdisc", "show", "dev", "smesh0"))
    return dropped + (sum(queue["drops"] for queue in queues) if direction == "tx" else 0)


def pause_until(moment):
    """The length of an outage is a time, not an event: waits for that moment."""
    wait_for(lambda: now() >= moment, max(0.0, moment - now()) + 5,
             "the end of the outage")
