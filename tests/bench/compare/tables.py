# SPDX-License-Identifier: MIT
"""
The tables of a comparison, in Markdown.
"""

import datetime
import os
import re

from pairing import laboratory
from pair import median
from report import show, table

FIGURES = (  # name, heading, format, more is better
    ("tcp_one_gbps", "TCP 1 stream, Gbit/s", ".2f", True),
    ("tcp_four_gbps", "4 streams", ".2f", True),
    ("tcp_reverse_gbps", "reverse", ".2f", True),
    ("tcp_both_gbps", "both ways, sum", ".2f", True),
    ("cpu_s_per_gb", "tunnel CPU, s/GB", ".2f", False),
    ("udp_few_kpps", "UDP 1200 B, < 1 % lost, kpps", ".0f", True),
    ("udp_none_kpps", "≤ 0.1 % lost", ".0f", True),
    ("small_kpps", "64 B frames, kpps", ".0f", True),
    ("ping_idle_p50_us", "ping idle p50, µs", ".0f", False),
    ("ping_idle_p99_us", "p99", ".0f", False),
    ("ping_load_p50_us", "ping beside TCP p50, µs", ".0f", False),
    ("ping_load_p99_us", "p99", ".0f", False),
    ("resident_mb", "memory, MB", ".1f", False),
    ("first_ping_s", "start to first ping, s", ".3f", False),
)


def brief(found):
    """The figures of one visit in a line."""
    return ", ".join(f"{heading} {format(found[name], form)}" for name, heading, form, _ in FIGURES
                     if found.get(name) is not None)


def environment():
    with open("/proc/cpuinfo") as file:
        cpu = re.search(r"model name\s*: (.*)", file.read())
    version = laboratory.sh(laboratory.SHADOWMESH, "version").splitlines()
    return {"date": datetime.date.today().isoformat(), "cpu": cpu[1] if cpu else os.uname().machine,
            "cores": os.cpu_count(), "kernel": os.uname().release, "version": version[0],
            "iperf3": laboratory.sh("iperf3", "--version").split("\n")[0].split(" (")[0],
            "load": f"{os.getloadavg()[0]:.1f}"}


def value(one, name):
    samples = [sample for sample in one["samples"].get(name, ()) if sample is not None]
    return median(samples)


def markdown(result):
    text = []
    for run in result.values():
        text.append(f"### {run['underlay']}\n")
        rows = [[c["title"]] + [show(value(c, n), f) for n, _, f, _ in FIGURES] for c in run["contenders"].values()]
        text.append(table([""] + [h for _, h, _, _ in FIGURES], rows))
    return "\n".join(text)
