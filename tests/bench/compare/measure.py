# SPDX-License-Identifier: MIT
"""
What is measured during a visit. Each function gives {figure: value} and says in "tcp", "udp" and so on
what a part of the comparison holds.
"""

import json
import os
import re
import subprocess

from pairing import Failed, laboratory
from pair import end, quantile

TCP_WAYS = (("one", ()), ("four", ("-P", "4")), ("reverse", ("-R",)), ("both", ("--bidir",)))
UDP_SIZE = 1200
SMALL_SIZE = 22  # of payload: a frame of 64 bytes
UDP_PORT = 5300
FLOOD = os.path.join(laboratory.BUILD, "tests", "tools", "flood")
LOSS_NONE, LOSS_FEW = 0.001, 0.01
START_PPS = 50_000
FACTOR = 1.5
PING_INTERVAL = 0.002
GIGABYTE = 1e9


def machine_time():
    """All that the processors had so far, and what of it the machine's host gave to others, in ticks."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks), ticks[7]


def stolen(before, after):
    """The host's share between two machine_time()."""
    return (after[1] - before[1]) / max(after[0] - before[0], 1)


def serve(visit, port):
    """An iperf3 server at b for one test."""
    b = visit.ends[1].machine
    process = b.popen("iperf3", "-s", "-1", "-p", str(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listening = re.compile(rf":{port:04X} \S+ 0A ")  # not one of an earlier test in TIME_WAIT
    laboratory.wait_for(lambda: listening.search(b.sh("cat", "/proc/net/tcp", "/proc/net/tcp6")),
                        what="iperf3 to listen")
    return process


def iperf3(visit, *options, seconds, tries=2):
    """From a to b; gives the end of the report. Now and then one fails on its control connection."""
    problem = ""
    for _ in range(tries):
        server = serve(visit, 5201)
        try:
            text = visit.ends[0].machine.sh("iperf3", "-c", visit.target, "-t", str(seconds), "-J", *options,
                                            timeout=seconds + 15, check=False)
        except subprocess.TimeoutExpired:
            text = '{"error": "it did not end"}'
        finally:
            end(server, wait=1)
        try:
            report = json.loads(text)
        except ValueError:
            report = {"error": text.strip()[-200:]}
        if not report.get("error") and {"sum", "sum_received"} & set(report["end"]):
            return report["end"]
        problem = report.get("error", "a report without figures")
    raise Failed(f"iperf3: {problem}")


def tcp(visit, plan):
    found = {}
    for way, options in TCP_WAYS:
        if way not in plan.ways:
            continue
        before = visit.cpu()
        report = iperf3(visit, "-C", "cubic", *options, seconds=plan.seconds)
        used = visit.cpu() - before
        sums = [report["sum_received"]] + ([report["sum_received_bidir_reverse"]] if way == "both" else [])
        found[f"tcp_{way}_gbps"] = sum(one["bits_per_second"] for one in sums) / 1e9
        if way == "one":
            found["retransmits"] = report["sum_sent"].get("retransmits")
            if visit.processes():
                found["cpu_s_per_gb"] = used / max(sums[0]["bytes"] / GIGABYTE, 1e-9)
                found["resident_mb"] = visit.resident_mb()
    return found


def udp_once(visit, size, pps, seconds):
    """tests/tools/flood from a to b at a rate: {"asked", "pps" that arrived, "loss", "late"}"""
    a, b = (one.machine for one in visit.ends)
    receiver = b.popen(FLOOD, "receive", str(UDP_PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if receiver.stdout.readline() != b"ready\n":
            raise Failed("flood does not receive")
        sent = json.loads(a.sh(FLOOD, "send", visit.target, str(UDP_PORT), str(size), f"{pps:.0f}", str(seconds)))
        receiver.stdin.close()
        got = json.loads(receiver.stdout.readline())
        receiver.wait(5)
    finally:
        if receiver.poll() is None:
            end(receiver)
        receiver.stdout.close()
    return {"asked": pps, "pps": got["packets"] / sent["seconds"], "late": got["late"],
            "loss": max(0.0, 1 - got["packets"] / max(sent["packets"], 1))}


class Search:
    """The highest rate with at most so much loss; probes serve all limits."""

    def __init__(self, probe, tries):
        self.probe, self.tries, self.probes = probe, tries, []

    def good(self, pps, limit):
        """Tries a rate that was not tried yet; gives (few enough lost, the sender kept up)."""
        known = [p for p in self.probes if p["asked"] == pps]
        while len(known) < self.tries and not any(p["loss"] <= limit for p in known):
            known.append(self.probe(pps))
            self.probes.append(known[-1])
        best = min(known, key=lambda p: p["loss"])
        return best["loss"] <= limit, best["pps"] > 0.85 * pps

    def run(self, limit, start, steps):
        """Upwards (or downwards) by a factor until it changes, then halves the interval."""
        pps, low, high = start, None, None
        while (low is None or high is None) and 1000 < pps < 20_000_000:
            fine, kept = self.good(pps, limit)
            if fine:
                low = pps
                if not kept:
                    break  # the sender's own limit
            else:
                high = pps
            pps = low * FACTOR if high is None else high / FACTOR if low is None else pps
        for _ in range(steps if low and high else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if self.good(middle, limit)[0] else (low, middle)

    def best(self, limit, what):
        """Of the probe that brought most of those within the limit: "pps" or what was "asked"."""
        fine = [p for p in self.probes if p["loss"] <= limit]
        return max(fine, key=lambda p: p["pps"])[what] if fine else 0


def udp_search(visit, plan, size, limits):
    """Thousand packets a second at each limit of loss, and the probes."""
    search = Search(lambda pps: udp_once(visit, size, pps, plan.udp_seconds), plan.udp_tries)
    start = START_PPS
    for limit in limits:
        search.run(limit, start, plan.udp_steps)
        start = search.best(limit, "asked") or START_PPS
    return [search.best(limit, "pps") / 1000 for limit in limits], search.probes


def udp(visit, plan):
    (few, none), probes = udp_search(visit, plan, UDP_SIZE, (LOSS_FEW, LOSS_NONE))
    return {"udp_few_kpps": few, "udp_none_kpps": none, "udp_probes": probes}


def small(visit, plan):
    (few,), probes = udp_search(visit, plan, SMALL_SIZE, (LOSS_FEW,))
    return {"small_kpps": few, "small_probes": probes}


def pings(visit, plan, name):
    got = laboratory.ping(visit.ends[0].machine, visit.target, count=plan.pings, interval=PING_INTERVAL)
    times = [1000 * ms for ms in got.times_ms]
    if not times:
        raise Failed("no ping was answered")
    return {f"ping_{name}_p50_us": quantile(times, 0.5), f"ping_{name}_p99_us": quantile(times, 0.99),
            f"ping_{name}_lost": got.lost}


def ping(visit, plan):
    found = pings(visit, plan, "idle")
    server = serve(visit, 5209)
    seconds = plan.pings * PING_INTERVAL + 30
    client = visit.ends[0].machine.popen("iperf3", "-c", visit.target, "-p", "5209", "-t", f"{seconds:.0f}",
                                         "-C", "cubic", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def sent():
            return visit.ends[0].machine.ip_json("-s link show dev eth0")[0]["stats64"]["tx"]["bytes"]
        begin = sent()
        laboratory.wait_for(lambda: sent() > begin + 20_000_000, 15, what="the TCP stream to run")
        found.update(pings(visit, plan, "load"))
        if client.poll() is not None:
            raise Failed("the TCP stream ended before the pings")
        found["ping_lost"] = found["ping_idle_lost"] + found["ping_load_lost"]
    finally:
        end(client)
        end(server)
    return found


PARTS = {"tcp": tcp, "udp": udp, "small": small, "ping": ping}
