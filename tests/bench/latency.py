# SPDX-License-Identifier: MIT
"""
What the tunnel adds to a ping: through it and over the bare veth in turn, idle and beside a TCP stream
that uses the same way.
"""

import contextlib

import lab as laboratory
from pair import median, quantile, say

INTERVAL = 0.002


def summary(times_us, sent):
    return {"sent": sent, "received": len(times_us), "median_us": median(times_us),
            "mean_us": sum(times_us) / len(times_us) if times_us else None,
            "p99_us": quantile(times_us, 0.99), "max_us": max(times_us, default=None)}


def difference(tunnel, raw):
    return {name: tunnel[name] - raw[name] for name in ("median_us", "mean_us", "p99_us")}


def measure(pair, rounds, total, load):
    """total: pings of each path, shared among the rounds; load: beside a TCP stream on the same path"""
    count = -(-total // rounds)
    times, sent = {"raw": [], "tunnel": []}, {"raw": 0, "tunnel": 0}
    for i in range(rounds):
        say(f"latency {'beside TCP' if load else 'idle'}: round {i + 1} of {rounds}")
        for path, done in times.items():
            with pair.load(path, 60) if load else contextlib.nullcontext():
                got = laboratory.ping(pair.alice, pair.address(path), count=count, interval=INTERVAL)
            done += [ms * 1000 for ms in got.times_ms]
            sent[path] += got.sent
    result = {path: summary(done, sent[path]) for path, done in times.items()}
    result["added"] = difference(result["tunnel"], result["raw"])
    return result
