# SPDX-License-Identifier: MIT
"""
iperf3: one TCP stream (cubic) through the tunnel and over the bare veth in turn, with the daemons' CPU;
and the highest rate of UDP datagrams that still arrive.
"""

from pair import median, say, spread

WAYS = (("raw", "raw", None), ("tunnel_1500", "tunnel", 1500), ("tunnel_1400", "tunnel", 1400))
UDP_SIZE = 1200
UDP_BUFFER = "4M"  # iperf3 sends in bursts of a millisecond, more than the usual buffer holds
UDP_TRIES = 3
LOSS_FEW, LOSS_NONE = 0.01, 0.0001
START_PPS = 20_000


def tcp_once(pair, path, seconds):
    before = pair.cpu()
    end = pair.iperf3(path, "-C", "cubic", seconds=seconds)
    used = pair.cpu() - before
    gigabytes = end["sum_received"]["bytes"] / 1e9
    return {"gbps": end["sum_received"]["bits_per_second"] / 1e9, "cpu_s_per_gb": used / gigabytes,
            "retransmits": end["sum_sent"]["retransmits"]}


def tcp(pair, rounds, seconds):
    runs = {name: [] for name, _, _ in WAYS}
    for i in range(rounds):
        for name, path, mtu in WAYS:
            if mtu:
                pair.set_mtu(mtu)
            runs[name].append(tcp_once(pair, path, seconds))
        say(f"tcp: round {i + 1} of {rounds}: " +
            ", ".join(f"{name} {runs[name][-1]['gbps']:.2f}" for name in runs) + " Gbit/s")
    pair.set_mtu(1500)
    result = {}
    for name, done in runs.items():
        result[name] = {"gbps": spread([one["gbps"] for one in done]),
                        "retransmits": median([one["retransmits"] for one in done]),
                        "ratio_to_raw": median([one["gbps"] / raw["gbps"]
                                                for one, raw in zip(done, runs["raw"])])}
        if name != "raw":
            result[name]["cpu_s_per_gb"] = median([one["cpu_s_per_gb"] for one in done])
    return {"seconds": seconds, "congestion_control": "cubic", **result}


def udp_once(pair, path, pps, seconds):
    """What came of datagrams sent at a rate: {"asked", "pps" that arrived, "loss"}"""
    total = pair.iperf3(path, "-u", "-l", str(UDP_SIZE), "-b", str(int(pps * UDP_SIZE * 8)),
                        "-w", UDP_BUFFER, seconds=seconds)["sum"]
    loss = total["lost_packets"] / max(total["packets"], 1)
    return {"asked": pps, "pps": total["packets"] * (1 - loss) / total["seconds"], "loss": loss}


def udp_search(pair, path, seconds, steps):
    """Doubles until packets are lost or the sender cannot, then halves the interval."""
    probes, good, bad, pps = [], 0, None, START_PPS
    while len(probes) < 16 * UDP_TRIES and (bad is None or steps > 0):
        for _ in range(UDP_TRIES):  # too much, or a hiccup of the machine?
            probe = udp_once(pair, path, pps, seconds)
            probes.append(probe)
            if probe["loss"] <= LOSS_FEW:
                break
        if probe["loss"] <= LOSS_FEW:
            good = pps
        else:
            bad = pps
        if bad is None and probe["pps"] < 0.8 * pps:
            break  # the sender's own limit
        if bad is None:
            pps *= 2
        else:
            steps -= 1
            pps = (good + bad) / 2
    best = {name: max((p["pps"] for p in probes if p["loss"] <= limit), default=0)
            for name, limit in (("pps_few_lost", LOSS_FEW), ("pps_none_lost", LOSS_NONE))}
    return {**best, "probes": probes}


def udp(pair, rounds, seconds, steps):
    runs = {"raw": [], "tunnel": []}
    for i in range(rounds):
        for path, done in runs.items():
            done.append(udp_search(pair, path, seconds, steps))
        say(f"udp: round {i + 1} of {rounds}: " + ", ".join(
            f"{path} {done[-1]['pps_few_lost'] / 1000:.0f}" for path, done in runs.items()) + " kpps")
    result = {"size": UDP_SIZE, "buffer": UDP_BUFFER, "loss_few": LOSS_FEW, "loss_none": LOSS_NONE}
    for path, done in runs.items():
        result[path] = {name: spread([one[name] for one in done])
                        for name in ("pps_few_lost", "pps_none_lost")}
        result[path]["probes"] = [one["probes"] for one in done]
    result["ratio_to_raw"] = median([t["pps_few_lost"] / r["pps_few_lost"] for t, r in
                                     zip(runs["tunnel"], runs["raw"]) if r["pps_few_lost"]])
    return result
