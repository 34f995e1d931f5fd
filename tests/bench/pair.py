# SPDX-License-Identifier: MIT
"""
What the measurements stand on: two machines, one veth pair between them, a daemon in each; and what
the kernel tells about a process.

    [ smesh0 10.7.0.1 ]                                  [ smesh0 10.7.0.2 ]
          alice, dials                                         bob
    [ eth0 198.51.100.1 ] ------------ veth ------------ [ eth0 198.51.100.2 ]

The veth itself is the reference: the same program runs over it in the same round.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "netns"))
import lab as laboratory  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, file=sys.stderr, flush=True)


def median(values):
    return statistics.median(values) if values else None


def quantile(values, q):
    """The value that a share q of the others does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


def spread(values):
    return {"median": median(values), "min": min(values, default=None),
            "max": max(values, default=None), "n": len(values)}


def cpu_seconds(*daemons):
    """utime + stime of all their threads so far."""
    total = 0
    for daemon in daemons:
        with open(f"/proc/{daemon.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_kb(daemon):
    """{"rss": all resident memory, "anonymous": without the program's file}"""
    with open(f"/proc/{daemon.pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file if line.startswith(("VmRSS", "RssAnon")))
    return {"rss": int(lines["VmRSS"].split()[0]), "anonymous": int(lines["RssAnon"].split()[0])}


def end(process, wait=0.0):
    """Ends a program, after the seconds that it has to end by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait)
    process.terminate()
    process.wait()


def iperf3_server(machine, port):
    """For one test."""
    process = machine.popen("iperf3", "-s", "-1", "-p", str(port), stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    laboratory.wait_for(lambda: f":{port:04X} " in machine.sh("cat", "/proc/net/tcp", "/proc/net/tcp6"),
                        what="iperf3 to listen")
    return process


def iperf3(client, machine, to, way, *options, seconds, tries=3):
    """The end of the report. Now and then one fails on its control connection."""
    for _ in range(tries):
        server = iperf3_server(machine, 5201)
        try:
            text = client.sh("iperf3", "-c", to, "-t", str(seconds), "-J", *options, timeout=seconds + 20,
                             check=False)
        finally:
            end(server, wait=2)  # now and then one stays after a test with UDP
        try:
            report = json.loads(text)
        except ValueError:
            report = {"error": text.strip()}
        if not report.get("error") and {"sum", "sum_sent"} & set(report["end"]):
            return report["end"]
        say(f"iperf3 over {way}, once more: {report.get('error', 'a report without figures')}")
    sys.exit(f"bench: iperf3 over {way} gave no figures in {tries} tries")


class Pair:
    """alice and bob; only alice has the other's endpoint, so that both never dial at once."""

    def __init__(self, level="info", settings=()):
        """settings: (section, key, value) over the defaults of both"""
        self.lab = laboratory.Lab()
        alice, bob = self.lab.machine("alice"), self.lab.machine("bob")
        self.lab.cable(alice, "eth0", bob, "eth0")
        for machine in (alice, bob):
            machine.ip4 = f"198.51.100.{machine.number}"
            machine.ip(f"addr add {machine.ip4}/24 dev eth0")
        sections = {"Log": {"Level": level}}
        for section, key, value in settings:
            sections.setdefault(section, {})[key] = value
        self.alice = self.lab.daemon(alice, peers=["bob"], sections=sections)
        self.bob = self.lab.daemon(bob, peers=[{"Name": "alice"}], sections=sections)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.lab.close(check=kind is None)

    def start(self):
        self.bob.start()
        self.alice.start()
        self.wait_up()
        return self

    def wait_up(self):
        self.alice.wait_up(self.bob)
        self.bob.wait_up(self.alice)

    def restart(self):
        self.alice.stop()
        self.bob.stop()
        return self.start()

    def address(self, path):
        """bob's, over the tunnel or the veth"""
        return "10.7.0.2" if path == "tunnel" else self.bob.machine.ip4

    def set_mtu(self, mtu):
        for daemon in (self.alice, self.bob):
            daemon.machine.ip(f"link set dev {daemon.ifname} mtu {mtu}")

    def cpu(self):
        return cpu_seconds(self.alice, self.bob)

    def profile(self):
        """{daemon: {stage: {"frame" and "batch": histogram}}}, since the daemon's start"""
        return {daemon.name: daemon.status(profile=True)["profile"]
                for daemon in (self.alice, self.bob)}

    def server(self, port):
        return iperf3_server(self.bob.machine, port)

    def iperf3(self, path, *options, seconds):
        """From alice to bob; gives the end of the report."""
        return iperf3(self.alice.machine, self.bob.machine, self.address(path), f"the {path}", *options,
                      seconds=seconds)

    def sent_bytes(self):
        return self.alice.machine.ip_json("-s link show dev eth0")[0]["stats64"]["tx"]["bytes"]

    @contextlib.contextmanager
    def load(self, path, seconds):
        """A TCP stream from alice to bob beside what the block does; ends with the block."""
        server = self.server(5209)
        begin = self.sent_bytes()
        client = self.alice.machine.popen("iperf3", "-c", self.address(path), "-p", "5209", "-t",
                                          str(seconds), "-C", "cubic", stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL)
        try:
            laboratory.wait_for(lambda: self.sent_bytes() > begin + 4_000_000, what="the TCP stream to run")
            yield
            assert client.poll() is None, "the TCP stream ended before the measurement"
        finally:
            end(client)
            end(server)
