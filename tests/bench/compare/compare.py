#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
ShadowMesh beside other tunnels, in turn in one run: each round visits every one, and the table holds the
medians of the rounds. Peers are programs of Debian packages that are fetched into build/peers and not
installed. Writes JSON, prints tables.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from packages import Missing, Store
from pairing import Failed, UNDERLAYS, Visit, laboratory
import contenders
import measure
import tables

from pair import say  # after pairing: that made it known

FOLDER = os.path.join(laboratory.BUILD, "bench")


@dataclasses.dataclass
class Plan:
    """How much is measured in one visit."""
    ways: tuple = ("one", "four", "reverse", "both")
    seconds: int = 3
    udp_seconds: int = 1
    udp_steps: int = 3
    udp_tries: int = 3
    pings: int = 1000


QUICK = Plan(seconds=1, udp_steps=1, udp_tries=1, pings=200)
# What is of interest elsewhere than on the plain veth
FEWER_WAYS = ("one", "four")
FEWER_PARTS = ("tcp",)
TRIES = 2
# A visit during which the machine's host took more than that of the processors is repeated so often; the best counts
STOLEN_FEW = 0.03
VISITS = 3
LOSSY_SECONDS = 6  # what is lost when is chance: longer


class Run:
    """One underlay's comparison."""

    def __init__(self, underlay, chosen, missing, options):
        self.underlay, self.chosen, self.options = underlay, chosen, options
        self.missing = dict(missing)
        self.samples = {c.name: {} for c in chosen}
        self.problems = {}
        fewer = underlay != "plain"
        self.parts = options.parts or (FEWER_PARTS if fewer else tuple(measure.PARTS))
        self.plan = QUICK if options.quick else Plan()
        if fewer:
            self.plan = dataclasses.replace(self.plan, ways=FEWER_WAYS)
        if underlay == "loss" and not options.quick:
            self.plan = dataclasses.replace(self.plan, seconds=LOSSY_SECONDS)

    def visit(self, contender, part):
        """Gives the figures of one part, the time to the first ping with them."""
        with Visit(contender, self.underlay) as visit:
            try:
                found = measure.PARTS[part](visit, self.plan)
            except (OSError, AssertionError, Failed):
                visit.check_alive()  # a better reason, if one of its programs ended
                raise
            if visit.processes():
                found["first_ping_s"] = visit.first_reply_s
            return found

    def attempt(self, contender, part, title):
        """One visit; gives its figures and what share the machine's host took meanwhile, or None."""
        begin, before = time.monotonic(), measure.machine_time()
        try:
            found = self.visit(contender, part)
        except (Failed, Missing, AssertionError, OSError, LookupError, ValueError,
                subprocess.SubprocessError) as error:
            reason = " ".join((str(error) or repr(error)).split())[:400]
            say(f"{title}: {contender.title}: {reason}")
            self.problems.setdefault(contender.name, []).append(f"{part}: {reason}")
            return None
        stolen = measure.stolen(before, measure.machine_time())
        say(f"{title}: {contender.title}: {tables.brief(found)} ({time.monotonic() - begin:.0f} s" +
            (f", {stolen:.0%} taken by the host)" if stolen > STOLEN_FEW else ")"))
        return found, stolen

    def sample(self, contender, part, title):
        """The figures of the visit that was disturbed least; true if there are any."""
        best, failed = None, 0
        for _ in range(1 if self.options.quick else VISITS):
            while (got := self.attempt(contender, part, title)) is None and failed < TRIES - 1:
                failed += 1
            if got is None:
                break
            best = got if best is None or got[1] < best[1] else best
            if best[1] <= STOLEN_FEW:
                break
        if best is None:
            return False
        for name, value in (best[0] | {"stolen": best[1]}).items():
            self.samples[contender.name].setdefault(name, []).append(value)
        return True

    def round(self, number, part):
        """Each in turn, another one first in each round. One that never gave a figure is left out."""
        title = f"{self.underlay} {part}, round {number + 1} of {self.options.rounds}"
        first = number % max(len(self.chosen), 1)
        for contender in self.chosen[first:] + self.chosen[:first]:
            if self.sample(contender, part, title) or self.samples[contender.name]:
                continue
            self.missing[contender.title] = self.problems[contender.name][-1]
            self.chosen.remove(contender)

    def measure(self):
        environment, begin, done = tables.environment(), time.monotonic(), 0
        for number in range(self.options.rounds):
            for part in self.parts:
                self.round(number, part)
            done += 1
            left = (time.monotonic() - begin) / done * (self.options.rounds - done)
            if left:
                say(f"{self.underlay}: about {left / 60:.0f} min left")
        found = {c.name: {"title": c.title, "layer": c.layer, "cipher": c.cipher, "peer": c.peer,
                          "version": c.version, "suite": c.suite.name if c.suite else None, "mtu": c.mtu,
                          "mtu_why": c.mtu_why, "figures": tables.figures(self.samples[c.name]),
                          "samples": self.samples[c.name]} for c in self.chosen}
        return {"environment": environment, "underlay": UNDERLAYS[self.underlay][0],
                "rounds": self.options.rounds, "quick": self.options.quick, "plan": dataclasses.asdict(self.plan),
                "missing": self.missing, "problems": self.problems, "ratios": tables.ratios(found),
                "contenders": found}


def prepare(wanted, store, folder):
    """Fetches all; gives those that can be had and {title: reason} of the others."""
    ready, missing = [], {}
    for kind in contenders.ALL:
        if wanted and kind.name not in wanted:
            continue
        one = kind()
        try:
            one.prepare(store, folder)
            ready.append(one)
            say(f"{one.title}: {one.version or 'of this kernel'}" +
                (f" of Debian {one.suite.name}" if one.suite else ""))
        except (Missing, OSError) as error:
            missing[one.title] = " ".join(str(error).split())[:400]
            say(f"{one.title} is left out: {missing[one.title]}")
    return ready, missing


def arguments():
    names = [c.name for c in contenders.ALL]
    parser = argparse.ArgumentParser(prog="bench.sh compare", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(measure.PARTS)}; default: all on "
                        f"the plain veth, {', '.join(FEWER_PARTS)} on the others")
    parser.add_argument("--underlay", default="all", choices=[*UNDERLAYS, "all"], help="the wire (all)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", choices=names,
                        help=f"of {', '.join(names)}; may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds (3, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument("--json", metavar="FILE",
                        help=f"result ({FOLDER}/compare.json; compare-part.json of some parts or tunnels, "
                        "compare-quick.json with --quick: these do not touch a whole run's)")
    parser.add_argument("--peers", default=os.path.join(laboratory.BUILD, "peers"), metavar="FOLDER",
                        help="where packages are fetched to (%(default)s)")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: tables of the last run")
    parser.add_argument("--write-doc", action="store_true",
                        help="the same, into docs/PERFORMANCE.md, and the chart into docs/compare.svg")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    if set(options.parts) - set(measure.PARTS) or options.rounds < 1:
        parser.error("unknown part, or no rounds")
    kind = "-quick" if options.quick else "-part" if options.parts or options.only else ""
    options.json = options.json or os.path.join(FOLDER, f"compare{kind}.json")
    return options


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError:
        return {}


def save(path, result):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    os.rename(path + ".new", path)


def stop(number, _):
    say("bench: ended from outside; what was measured of this wire is not kept")
    sys.exit(128 + number)


def main():
    options = arguments()
    if options.markdown or options.write_doc:
        result = load(options.json)
        if not result:
            sys.exit(f"bench: there is no {options.json}: run make bench first")
        if options.write_doc:
            tables.write_document(result)
        else:
            print(tables.markdown(result))
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    laboratory.sweep()
    result = load(options.json)
    with tempfile.TemporaryDirectory(prefix="sm-compare-") as folder:
        ready, missing = prepare(options.only, Store(options.peers), folder)
        for underlay in UNDERLAYS if options.underlay == "all" else [options.underlay]:
            # An underlay that was measured before keeps its figures until it is measured again.
            result[underlay] = Run(underlay, list(ready), missing, options).measure()
            save(options.json, result)
    print(tables.markdown(result))
    say(f"written: {options.json}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop(signal.SIGINT, None)
