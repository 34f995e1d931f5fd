# SPDX-License-Identifier: MIT
"""
Two machines with a wire between them and one tunnel over it.

    [ tunnel 10.7.0.1 ]                                   [ tunnel 10.7.0.2 ]
        a, its programs                                       b, its programs
    [ eth0 198.51.100.1 ] ------------ wire ------------- [ eth0 198.51.100.2 ]

The wire is a veth pair, or tests/tools/impair. Every visit of a tunnel has machines, a wire and
programs of its own; all end with it.
"""

import contextlib
import glob
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from pair import TICKS, laboratory  # noqa: E402
import startup  # noqa: E402

INNER = ("10.7.0.1", "10.7.0.2")
OUTER = ("198.51.100.1", "198.51.100.2")
PATIENCE = 15.0  # seconds until a tunnel counts as one that does not start
ENOUGH = 3       # replies one after another: it stays
ARP_MS = 20      # between two requests; the kernel's second would hide what is measured

UNDERLAYS = {
    "plain": ("a veth that passes super-packets whole", ()),
    "gro": ("a veth that segments in software, its receiver does GRO",
            ("tso off", "tx-udp-segmentation off", "gro on")),
    "none": ("a veth with neither segmentation nor GRO", ("tso off", "tx-udp-segmentation off", "gro off")),
    "loss": ("a wire of the impairment tool that loses 1 % of all frames, no offloads", ()),
}


class Failed(Exception):
    """A tunnel that does not start or a measurement without a result, and why."""


class End:
    """One machine of the two; number is 0 or 1."""

    def __init__(self, machine, number, folder):
        self.machine, self.number, self.folder = machine, number, folder
        self.outer, self.inner = OUTER[number], INNER[number]
        self.processes = []
        self.configured = False

    def file(self, name, text, mode=0o600):
        """Writes a file of this end; gives its path."""
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    @property
    def log_path(self):
        return os.path.join(self.folder, "log")

    def log(self):
        with contextlib.suppress(OSError):
            with open(self.log_path, errors="replace") as file:
                return file.read()
        return ""

    def start(self, command, env=None):
        """A program of the tunnel. /run is its own: some leave a socket there for all to see."""
        with open(self.log_path, "ab") as log:
            process = self.machine.popen(
                "unshare", "-m", "--", "sh", "-c", 'mount -t tmpfs -o mode=755 none /run && exec "$@"', "sh",
                *command, env=dict(self.machine.env(), **(env or {})), cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def add_address(self, ifname, mtu, wanted=True):
        """Gives the tunnel's interface its address, if wanted, as soon as it is there; true when done."""
        if not self.configured:
            with self.machine.inside(), contextlib.suppress(OSError):
                socket.if_nametoindex(ifname)
                self.configured = True
            if self.configured and not wanted:
                self.hurry_arp(ifname)
            elif self.configured:
                size = f"link set dev {ifname} mtu {mtu}\n" if mtu else ""
                done = subprocess.run(
                    ["ip", "-n", self.machine.netns, "-batch", "-"], check=False, text=True, capture_output=True,
                    input=f"{size}addr add {self.inner}/24 dev {ifname}\nlink set dev {ifname} up\n")
                if done.returncode:
                    raise Failed(f"ip: {done.stderr.strip()}")
                self.hurry_arp(ifname)
        return self.configured

    def hurry_arp(self, ifname):
        with self.machine.inside(), contextlib.suppress(OSError):
            with open(f"/proc/sys/net/ipv4/neigh/{ifname}/retrans_time_ms", "w") as file:
                file.write(str(ARP_MS))


def children(pid):
    """A process and all below it."""
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            for child in file.read().split():
                found += children(int(child))
    return found


def cpu_seconds(pid):
    """utime + stime of a process with all its threads, and of its children that ended."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def resident_kb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class Visit:
    """A contender on an underlay, from its start to its end. Use as a context."""

    def __init__(self, contender, underlay):
        self.contender, self.underlay = contender, underlay
        self.lab = laboratory.Lab()
        self.first_reply_s = None

    def __enter__(self):
        try:
            self.build()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for one in getattr(self, "ends", ()):
            for process in one.processes:
                if process.poll() is None:
                    process.terminate()
        for one in getattr(self, "ends", ()):
            for process in one.processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2)
        self.lab.close(check=False)

    def build(self):
        machines = [self.lab.machine("a"), self.lab.machine("b")]
        if self.underlay == "loss":
            self.wire = laboratory.Impair(self.lab, machines[0], "eth0", machines[1], "eth0", ["--loss", "1%"])
        else:
            self.lab.cable(machines[0], "eth0", machines[1], "eth0")
        self.ends = []
        for number, machine in enumerate(machines):
            folder = os.path.join(self.lab.tmp, f"end{number}")
            os.makedirs(folder)
            machine.ip4 = OUTER[number]
            machine.ip(f"addr add {OUTER[number]}/24 dev eth0")
            for setting in UNDERLAYS[self.underlay][1]:
                machine.sh("ethtool", "-K", "eth0", *setting.split())
            self.ends.append(End(machine, number, folder))
        for a, b in (self.ends, self.ends[::-1]):  # neighbours below are known before anything starts
            laboratory.ping(a.machine, b.outer, count=1)
        self.contender.write(self)

    def start(self):
        """Starts b, waits until it stands, then starts a; notes how long a took to its first reply."""
        c = self.contender
        a, b = self.ends
        c.start_end(self, b, a)
        if c.ifname:
            self.wait(lambda: b.add_address(c.ifname, c.set_mtu, c.wants_address), "made no interface")
        c.wait_ready(self, b)
        prober = startup.Prober(a.machine, self.target)
        begin = time.monotonic()
        try:
            c.start_end(self, a, b)
            replies = 0
            while replies < ENOUGH:
                if c.ifname:
                    a.add_address(c.ifname, c.set_mtu, c.wants_address)
                reply = prober.step()
                if reply:
                    replies += 1
                    self.first_reply_s = self.first_reply_s or reply - begin
                elif time.monotonic() > begin + PATIENCE:
                    raise Failed(f"no ping passed within {PATIENCE:.0f} s: {self.last_words()}")
                self.check_alive()
            prober.run_until(time.monotonic() + c.warm_s)
        finally:
            prober.close()

    def wait(self, condition, problem):
        until = time.monotonic() + PATIENCE
        while not condition():
            self.check_alive()
            if time.monotonic() > until:
                raise Failed(f"{problem} within {PATIENCE:.0f} s: {self.last_words()}")
            time.sleep(0.001)

    def check_alive(self):
        for process in self.processes():
            if process.poll() is not None:
                raise Failed(f"ended with {process.returncode}: {self.last_words()}")

    @property
    def target(self):
        return OUTER[1] if self.contender.bare else INNER[1]

    def processes(self):
        return [process for one in self.ends for process in one.processes]

    def last_words(self):
        return " | ".join(line.strip() for one in self.ends for line in one.log().splitlines()[-3:])[-400:]

    def pids(self, one=None):
        return [pid for process in (one.processes if one else self.processes()) for pid in children(process.pid)]

    def cpu(self):
        return sum(map(cpu_seconds, self.pids()))

    def resident_mb(self):
        """Of the larger end."""
        return max(sum(map(resident_kb, self.pids(one))) for one in self.ends) / 1024
