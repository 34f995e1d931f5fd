# SPDX-License-Identifier: MIT
"""
What the impairment tool carries: one TCP stream (cubic) through it, doing nothing and delaying by 1 ms
each way, and in turn over a veth pair that like it carries no super-packets. No daemon of ours is there.

    [ bad0 10.77.1.1 ] ======= impair ======= [ bad0 10.77.1.2 ]
         left                                      right
    [ eth0 10.77.2.1 ] --- veth, no offloads --- [ eth0 10.77.2.2 ]
"""

import lab as laboratory
from pair import cpu_seconds, iperf3, median, say, spread

WAYS = (("raw", "10.77.2.2", None), ("impair", "10.77.1.2", "delay 0"),
        ("impair_1ms", "10.77.1.2", "delay 1ms"))
MISSED = "missed"  # frames that the kernel had to drop before the tool read them


def missed(wire):
    stats = wire.stats()
    return sum(stats[way][MISSED] for way in ("a2b", "b2a"))


def once(left, right, wire, to, setting, seconds):
    if setting:
        wire.say("set " + setting)
    cpu, lost = cpu_seconds(wire.process), missed(wire)
    end = iperf3(left, right, to, f"{setting or 'the veth'}", "-C", "cubic", seconds=seconds)
    received = end["sum_received"]
    return {"gbps": received["bits_per_second"] / 1e9, "missed": missed(wire) - lost,
            "retransmits": end["sum_sent"]["retransmits"],
            "cpu_s_per_gb": (cpu_seconds(wire.process) - cpu) / (received["bytes"] / 1e9)}


def measure(rounds, seconds):
    runs = {name: [] for name, _, _ in WAYS}
    with laboratory.Lab() as lab:
        left, right = lab.machine("left"), lab.machine("right")
        lab.cable(left, "eth0", right, "eth0")
        wire = laboratory.Impair(lab, left, "bad0", right, "bad0")
        for number, machine in enumerate((left, right), 1):
            machine.sh("ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off")
            machine.ip(f"addr add 10.77.1.{number}/24 dev bad0")
            machine.ip(f"addr add 10.77.2.{number}/24 dev eth0")
        for i in range(rounds):
            for name, to, setting in WAYS:
                runs[name].append(once(left, right, wire, to, setting, seconds))
            say(f"impair: round {i + 1} of {rounds}: " +
                ", ".join(f"{name} {runs[name][-1]['gbps']:.2f}" for name in runs) + " Gbit/s")
    result = {"seconds": seconds, "congestion_control": "cubic"}
    for name, done in runs.items():
        result[name] = {"gbps": spread([one["gbps"] for one in done]),
                        **{key: median([one[key] for one in done])
                           for key in ("retransmits", "missed", "cpu_s_per_gb")}}
    return result
