# SPDX-License-Identifier: MIT
"""
From the start of a daemon to the first answer to a ping, its peer being up already: pings every 2 ms
begin before the interface exists, from the machine that starts ("out") or from its peer ("in").

Before each start the peer is fresh, so that it does not dial by itself, and the neighbour tables are
empty. Pings from the peer begin up to a second earlier: the kernel's requests for the address have any
phase. The reference is the same loop over the bare veth, from its link being set up to the answer.
"""

import contextlib
import os
import random
import re
import select
import socket
import struct
import subprocess
import time

from pair import Pair, quantile, say, spread

INTERVAL = 0.002
PATIENCE = 10.0  # seconds until a start counts as failed
MARKS = (("interface", r"is up with MTU"), ("dialling", r"peer bob: .*-> dialling"),
         ("greeting", r"peer bob: .*-> greeting"), ("handshake", r"peer bob is connected"))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(ident, seq):
    body = struct.pack("!HH", ident, seq) + bytes(16)
    return struct.pack("!BBH", 8, 0, checksum(struct.pack("!BBH", 8, 0, 0) + body)) + body


class Prober:
    """Pings an address every 2 ms from a machine; errors of the kernel count as not sent."""

    def __init__(self, machine, address):
        self.address, self.ident, self.seq = address, random.randrange(1, 0x10000), 0
        with machine.inside():
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.sock.setblocking(False)
        self.next = time.monotonic()
        self.first_sent = None

    def step(self):
        """Sends what is due, waits half a millisecond at most; gives the time of an answer or None."""
        now = time.monotonic()
        if now >= self.next:
            self.next = now + INTERVAL
            self.seq = (self.seq + 1) & 0xFFFF
            with contextlib.suppress(OSError):
                self.sock.sendto(echo(self.ident, self.seq), (self.address, 0))
                self.first_sent = self.first_sent or now
        if select.select([self.sock], [], [], 0.0005)[0]:
            now = time.monotonic()
            with contextlib.suppress(OSError):
                packet = self.sock.recv(2048)
                at = 4 * (packet[0] & 15)
                kind, _, _, ident, _ = struct.unpack_from("!BBHHH", packet, at)
                if kind == 0 and ident == self.ident:
                    return now
        return None

    def run_until(self, end):
        """Pings that no one answers yet."""
        while time.monotonic() < end:
            self.step()

    def close(self):
        self.sock.close()


class LogMarks:
    """Notes when lines appear in a daemon's log: its own stamps have only milliseconds."""

    def __init__(self, daemon):
        self.file = open(daemon.log_path, "rb")
        self.file.seek(0, os.SEEK_END)
        self.rest, self.seen = b"", {}

    def look(self):
        more = self.file.read()
        if not more:
            return
        now = time.monotonic()
        *lines, self.rest = (self.rest + more).split(b"\n")
        for line in lines:
            for name, pattern in MARKS:
                if name not in self.seen and re.search(pattern.encode(), line):
                    self.seen[name] = now

    def close(self):
        self.file.close()


def popen_at_once(machine):
    """Machine.popen() without the two programs that it runs before the wanted one."""
    def popen(*args, **options):
        options.setdefault("env", machine.env())
        options.setdefault("stdin", subprocess.DEVNULL)
        with machine.inside():
            process = subprocess.Popen(args, **options)
        machine.lab.processes.append(process)
        return process
    return popen


def start_once(pair, direction):
    """{"reply", "interface", ...}: milliseconds since the start; "reply" is None if none came."""
    pair.bob.restart()
    for machine in (pair.alice.machine, pair.bob.machine):
        machine.ip("neigh flush all", check=False)
    prober = (Prober(pair.alice.machine, "10.7.0.2") if direction == "out" else
              Prober(pair.bob.machine, "10.7.0.1"))
    open(pair.alice.log_path, "ab").close()
    marks = LogMarks(pair.alice)
    reply = None
    try:
        prober.run_until(time.monotonic() + (random.random() if direction == "in" else 0.01))
        begin = time.monotonic()
        pair.alice.start(wait=False)
        while reply is None and time.monotonic() < begin + PATIENCE:
            reply = prober.step()
            marks.look()
    finally:
        prober.close()
        marks.close()
    times = {name: (at - begin) * 1000 for name, at in marks.seen.items()}
    times["reply"] = (reply - begin) * 1000 if reply else None
    pair.alice.wait_ready()
    pair.alice.stop()
    return times


def raw_once(pair):
    """The veth: set up again, neighbours forgotten; milliseconds to the first answer."""
    machine = pair.alice.machine
    machine.ip("link set eth0 down")
    prober = Prober(machine, pair.bob.machine.ip4)
    begin = time.monotonic()
    machine.ip("link set eth0 up")
    reply = None
    while reply is None and time.monotonic() < begin + PATIENCE:
        reply = prober.step()
    prober.close()
    return (reply - begin) * 1000 if reply else None


def split(starts):
    """Medians of the stretches between the marks."""
    names = ["interface", "dialling", "greeting", "handshake", "reply"]
    result, before = {}, None
    for name in names:
        values = [one[name] - (one[before] if before else 0) for one in starts
                  if one.get(name) is not None and (before is None or one.get(before) is not None)]
        if values:
            result[f"{before or 'start'}_to_{name}_ms"] = spread(values)
            before = name
    return result


def measure(starts):
    runs, raw = {"out": [], "in": []}, []
    with Pair(level="debug") as pair:
        pair.alice.machine.popen = popen_at_once(pair.alice.machine)
        pair.bob.start()
        for i in range(starts):
            raw.append(raw_once(pair))
            for direction, done in runs.items():
                done.append(start_once(pair, direction))
            say(f"startup: {i + 1} of {starts}: " + ", ".join(
                f"{d} {done[-1]['reply'] or float('nan'):.1f}" for d, done in runs.items()) + " ms")
    result = {"goal_ms": 50, "raw_ms": spread([ms for ms in raw if ms is not None])}
    for direction, done in runs.items():
        replies = [one["reply"] for one in done if one["reply"] is not None]
        result[direction] = {"reply_ms": spread(replies), "p90_ms": quantile(replies, 0.9),
                             "unanswered": len(done) - len(replies), "split": split(done), "starts": done}
    return result
