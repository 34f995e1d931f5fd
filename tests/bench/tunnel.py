#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Measures a whole tunnel: real daemons in network namespaces, each figure beside its reference, which is
taken in the same run and in turn with it. Writes JSON, prints tables.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from pair import Pair, laboratory, resident_kb, say
import handshake
import impairment
import latency
import memory
import report
import startup
import throughput

PARTS = ("handshake", "memory", "latency", "tcp", "udp", "startup", "perf", "impair", "micro")
FILE = os.path.join(laboratory.BUILD, "bench", "tunnel.json")
DOCUMENT = os.path.join(laboratory.SOURCE, "docs", "PERFORMANCE.md")
MARKS = "<!-- figures of {}: begin -->\n", "<!-- figures of {}: end -->\n"
TOP_SYMBOLS = 10


def environment():
    with open("/proc/cpuinfo") as file:
        cpu = re.search(r"model name\s*: (.*)", file.read())
    version = laboratory.sh(laboratory.SHADOWMESH, "version").splitlines()
    return {"date": datetime.date.today().isoformat(), "cpu": cpu[1] if cpu else os.uname().machine,
            "cores": os.cpu_count(), "kernel": os.uname().release,
            "version": version[0], "openssl": next((v for v in version if "OpenSSL" in v), ""),
            "load": f"{os.getloadavg()[0]:.1f}"}


def perf(pair, seconds):
    """The symbols that use most CPU, of both daemons, during one TCP stream."""
    if not shutil.which("perf"):
        return {"missing": "perf is not installed (Debian: linux-perf)"}
    command = f"perf record -g -p PID,PID -- sleep {seconds}"
    pair.set_mtu(1400)
    with tempfile.TemporaryDirectory() as folder, pair.load("tunnel", 60):
        data = os.path.join(folder, "data")
        laboratory.sh("perf", "record", "-q", "-g", "-o", data, "-p", f"{pair.alice.pid},{pair.bob.pid}",
                      "--", "sleep", str(seconds), timeout=60)
        text = laboratory.sh("perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none",
                             "--sort", "dso,symbol", timeout=120)
        below = laboratory.sh("perf", "report", "-i", data, "--stdio", "--children", "-g", "none",
                              "--sort", "symbol", timeout=120)
    pair.set_mtu(1500)
    rows = re.findall(r"^\s*(\d+\.\d+%)\s+(\S+)\s+\[[k.]\] (\S+)", text, re.M)
    if not rows:
        return {"missing": "perf saw no samples: " + " ".join(text.split())[:200]}
    objects = {}
    for share, dso, _ in rows:
        objects[dso] = objects.get(dso, 0) + float(share.rstrip("%"))
    calls = re.findall(r"^\s*(\d+\.\d+%)\s+\d+\.\d+%\s+\[k\] (?:__x64_sys_|__arm64_sys_|ksys_|do_(?=readv|writev))"
                       r"(\w+)", below, re.M)
    return {"command": command, "calls": {name: share for share, name in calls if float(share[:-1]) >= 1},
            "objects": {dso: f"{share:.0f}%" for dso, share in objects.items() if share >= 1},
            "symbols": [{"share": share, "object": dso, "symbol": symbol}
                        for share, dso, symbol in rows[:TOP_SYMBOLS]]}


def micro(name):
    """What a micro benchmark prints as JSON."""
    say(f"micro: {name}")
    return json.loads(subprocess.run([os.path.join(laboratory.BUILD, "tests", "bench", "bench_" + name)],
                                     check=True, stdout=subprocess.PIPE, timeout=300).stdout)


def setting(text):
    """Interface.TxQueueLen=50 as (section, key, value)"""
    name, _, value = text.partition("=")
    section, _, key = name.partition(".")
    if not (section and key and value):
        raise argparse.ArgumentTypeError("SECTION.KEY=VALUE is wanted, such as Interface.TxQueueLen=50")
    return section, key, value


def measure_pair(parts, rounds, quick, settings, result):
    """What needs two daemons with a veth between them"""
    result["profile"] = {}
    with Pair(settings=settings) as pair:
        pair.start()
        if "latency" in parts:
            pings = 300 if quick else 2500
            result["latency"] = {"idle": latency.measure(pair, rounds, pings, load=False)}
            result["profile"]["pings"] = pair.profile()
            result["latency"]["beside_tcp"] = latency.measure(pair, rounds, pings, load=True)
            pair.restart()
        if "tcp" in parts:
            result["tcp"] = throughput.tcp(pair, rounds, 1 if quick else 3)
            result["profile"]["TCP"] = pair.profile()
        if "memory" in parts and "tcp" in parts:
            result["memory"]["after_tcp_kb"] = {d.name: resident_kb(d)["rss"] for d in (pair.alice, pair.bob)}
        if "udp" in parts:
            pair.restart()
            result["udp"] = throughput.udp(pair, 1 if quick else min(rounds, 3), 1, 2 if quick else 4)
            result["profile"]["UDP"] = pair.profile()
        if "perf" in parts:
            say("perf: one TCP stream")
            result["perf"] = perf(pair, 1 if quick else 4)
        result["drops"] = {daemon.name: daemon.drops() for daemon in (pair.alice, pair.bob)}


def measure(parts, rounds, quick, settings):
    result = {"environment": environment(), "rounds": rounds, "quick": quick, "settings": settings}
    if "handshake" in parts:
        result["handshake"] = handshake.measure(3 if quick else 20)
    if "memory" in parts:
        result["memory"] = memory.measure((1, 4) if quick else (1, 4, 16))
    if "startup" in parts:
        result["startup"] = startup.measure(3 if quick else 10)
    if {"latency", "tcp", "udp", "perf"} & set(parts):
        measure_pair(parts, rounds, quick, settings, result)
    if "impair" in parts:
        result["impair"] = impairment.measure(rounds, 1 if quick else 3)
    if "micro" in parts:
        result["micro"] = micro("micro")
        result["profiling"] = micro("profile")
    return result


def write_document(texts):
    """Puts each part's tables between its two marks in docs/PERFORMANCE.md; other parts keep theirs."""
    with open(DOCUMENT) as file:
        document = file.read()
    for name, text in texts.items():
        begin, end = MARKS[0].format(name), MARKS[1].format(name)
        head, found, rest = document.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            sys.exit(f"bench: {DOCUMENT} has no lines {begin.strip()} and {end.strip()}")
        document = head + begin + "\n" + text + "\n" + end + tail
    with open(DOCUMENT, "w") as file:
        file.write(document)


def main():
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (5)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="SECTION.KEY=VALUE",
                        dest="settings",
                        help="in both configurations, for latency, tcp, udp and perf; may be repeated")
    parser.add_argument("--json", default=FILE, metavar="FILE", help=f"result ({FILE})")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: tables of the last run")
    parser.add_argument("--write-doc", action="store_true", help="the same, into docs/PERFORMANCE.md")
    options = parser.parse_args()
    if options.markdown or options.write_doc:
        if not os.path.exists(options.json):
            sys.exit(f"bench: there is no {options.json}: run make bench first")
        with open(options.json) as file:
            texts = report.markdown(json.load(file))
        if options.write_doc:
            write_document(texts)
        else:
            print("\n".join(texts.values()))
        return
    unknown = set(options.parts) - set(PARTS)
    if unknown or options.rounds < 1:
        parser.error(f"unknown part {', '.join(sorted(unknown))}" if unknown else "--rounds is at least 1")
    result = measure(options.parts or PARTS, 1 if options.quick else options.rounds, options.quick,
                     options.settings)
    os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
    with open(options.json, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print("\n".join(report.markdown(result).values()))
    say(f"written: {options.json}")


if __name__ == "__main__":
    main()
