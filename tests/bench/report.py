# SPDX-License-Identifier: MIT
"""
The tables of a run, in Markdown, which reads well in a terminal too.
"""

STAGES = ("tap_read", "seal", "udp_send", "udp_receive", "open", "tap_write")


def show(value, form=".1f"):
    return "–" if value is None else format(value, form)


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] +
                     ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def with_range(one, form=".1f", scale=1.0):
    """median (min–max)"""
    if not one or one["median"] is None:
        return "–"
    low, mid, high = (format(one[name] * scale, form) for name in ("min", "median", "max"))
    return f"{mid} ({low}–{high})"


def handshake(h):
    rows = []
    for side in ("client", "server"):
        s = h[side]
        rows.append([side, with_range(s["handshake_us"], ".1f", 1e-3),
                     with_range(s["handshake_work_us"], ".1f", 1e-3),
                     show(s["handshake_bytes_in"]["median"], ".0f"),
                     show(s["handshake_bytes_out"]["median"], ".0f")])
    r = h["reference"]
    for side, other in (("client", "server"), ("server", "client")) if r else ():
        rows.append([f"classical TLS, {side}", "–", with_range(r[side + "_work_us"], ".1f", 1e-3),
                     show(r[other + "_bytes_out"]["median"], ".0f"),
                     show(r[side + "_bytes_out"]["median"], ".0f")])
    return (f"### Handshake\n\n{h['group']}, {h['signature']}, {h['client']['handshake_us']['n']} "
            f"connections; TCP connect {with_range(h['tcp_connect_us'], '.0f')} µs, TCP and TLS together "
            f"{with_range(h['tcp_and_tls_us'], '.1f', 1e-3)} ms as the client sees it. Classical: mutual, "
            "X25519, ECDSA P-256, in memory.\n\n" +
            table(["side", "wall, ms", "work, ms", "bytes in", "bytes out"], rows))


def memory(m):
    rows = [[p["peers"], show(p["rss"] / 1024), show(p["anonymous"] / 1024)] for p in m["points"]]
    after = m.get("after_tcp_kb")
    return ("### Memory\n\n" + table(["peers", "resident, MB", "of it anonymous, MB"], rows) +
            f"\nA peer: {show(m['per_peer_kb'], '.0f')} kB resident "
            f"({show(m['per_peer_anonymous_kb'], '.0f')} kB anonymous)." +
            (f" After the TCP runs below: {show(after['alice'] / 1024)} MB the sender, "
             f"{show(after['bob'] / 1024)} MB the receiver." if after else "") + "\n")


def latency(found):
    rows = []
    for name, title in (("idle", "idle"), ("beside_tcp", "beside a TCP stream")):
        for path in ("raw", "tunnel"):
            one = found[name][path]
            rows.append([title, path, one["sent"], one["sent"] - one["received"],
                         *(show(one[k], ".0f") for k in ("median_us", "mean_us", "p99_us", "max_us"))])
        added = found[name]["added"]
        rows.append([title, "**added**", "", "",
                     *(show(added[k], ".0f") for k in ("median_us", "mean_us", "p99_us")), ""])
    return ("### Ping, one every 2 ms, µs\n\n" +
            table(["", "path", "sent", "lost", "median", "mean", "p99", "max"], rows))


def tcp(found):
    rows = []
    for name, title in (("raw", "veth"), ("tunnel_1500", "tunnel, MTU 1500"),
                        ("tunnel_1400", "tunnel, MTU 1400")):
        one = found[name]
        rows.append([title, with_range(one["gbps"], ".2f"), show(one["ratio_to_raw"], ".4f"),
                     show(one.get("cpu_s_per_gb"), ".2f"), show(one["retransmits"], ".0f")])
    return (f"### TCP, one stream, {found['congestion_control']}, {found['seconds']} s\n\n" +
            table(["path", "Gbit/s", "of the veth", "daemons' CPU, s/GB", "retransmits"], rows))


def udp(found):
    rows = [[title, with_range(found[path]["pps_few_lost"], ".0f", 1e-3),
             with_range(found[path]["pps_none_lost"], ".0f", 1e-3)]
            for path, title in (("raw", "veth"), ("tunnel", "tunnel"))]
    return (f"### UDP, {found['size']} bytes, highest rate that arrives, thousand packets a second\n\n"
            f"Socket buffers of {found['buffer']}, or what the system allows.\n\n" +
            table(["path", f"at most {found['loss_few']:.0%} lost", f"at most {found['loss_none']:.2%} lost"],
                  rows))


def startup(found):
    rows = [["veth", with_range(found["raw_ms"]), show(found["raw_ms"]["max"]), 0]]
    for direction, title in (("out", "from the machine that starts"), ("in", "from its peer")):
        one = found[direction]
        rows.append([title, with_range(one["reply_ms"]), show(one["reply_ms"]["max"]), one["unanswered"]])
    text = (f"### Start to first ping reply, ms (goal: under {found['goal_ms']})\n\n" +
            table(["pings", "median (min–max)", "max", "unanswered"], rows))
    for direction, title in (("out", "from the machine that starts"), ("in", "from its peer")):
        text += f"\nStretches, pings {title}:\n\n" + table(
            ["stretch", "ms"], [[name[:-3].replace("_", " "), with_range(one)]
                                for name, one in found[direction]["split"].items()])
    return text


def profile(found):
    text = "### Time per frame in each stage, µs\n\n"
    rows = []
    for title, daemons in found.items():
        for daemon, stages in daemons.items():
            for stage in STAGES:
                one = stages.get(stage, {}).get("frame")
                if one and one["count"]:
                    rows.append([title, daemon, stage, one["count"],
                                 *(show(one[k], ".2f") for k in ("median_us", "p99_us", "max_us"))])
    return text + table(["during", "daemon", "stage", "frames", "median", "p99", "max"], rows)


def perf(found):
    if "symbols" not in found:
        return f"### Where the CPU goes\n\nNot measured: {found['missing']}.\n"
    return ("### Where the CPU goes\n\n`" + found["command"] + "` on both daemons during one TCP stream at "
            "MTU 1400; in all " + ", ".join(f"{name} {share}" for name, share in found["objects"].items()) +
            "; below the system calls " +
            ", ".join(f"{name} {share}" for name, share in found["calls"].items()) + ":\n\n" +
            table(["share", "object", "symbol"],
                  [[one["share"], one["object"], f"`{one['symbol']}`"]
                   for one in found["symbols"]]))


def impair(found):
    rows = []
    for name, title in (("raw", "veth without offloads"), ("impair", "through the tool, no impairment"),
                        ("impair_1ms", "through the tool, 1 ms each way")):
        one = found[name]
        rows.append([title, with_range(one["gbps"], ".2f"), show(one["retransmits"], ".0f"),
                     "–" if name == "raw" else show(one["missed"], ".0f"),
                     "–" if name == "raw" else show(one["cpu_s_per_gb"], ".2f")])
    return (f"### The impairment tool: TCP, one stream, {found['congestion_control']}, {found['seconds']} s, "
            "MTU 1500\n\n" +
            table(["path", "Gbit/s", "retransmits", "frames missed", "tool's CPU, s/GB"], rows))


def micro(found):
    return (f"### Single steps, ns per packet, {found['openssl']}\n\n" +
            table(["step", "median", "best", "of a copy"],
                  [[one["name"] + (" (reference)" if one["name"] == "copy_1400" else ""),
                    *(show(one[k]) for k in ("ns_per_packet", "best_ns_per_packet", "ratio_to_copy"))]
                   for one in found["results"]]))


def profiling(found):
    rows = []
    for one in found["results"]:
        without, added = one["without_ns_per_frame"], one["with_ns_per_frame"] - one["without_ns_per_frame"]
        rows.append([f"{one['name'].rpartition('_')[0].replace('_', ' ')}, {one['bytes']} bytes",
                     one["batch"], show(without, ".0f"), show(added, "+.0f"), show(added / without, "+.1%")])
    return ("### What profiling adds, ns per frame\n\n" +
            table(["way", "frames in a batch", "without", "added", "share"], rows))


SECTIONS = {"handshake": handshake, "memory": memory, "latency": latency, "tcp": tcp, "udp": udp,
            "startup": startup, "profile": profile, "perf": perf, "impair": impair, "micro": micro,
            "profiling": profiling}

HOW = {"micro": "medians of 3001 batches of 64",
       "profiling": "medians of 2001 batches with and 2001 without, by turns"}


def taken(result, rounds):
    """The line under each heading: one document may hold parts of several runs."""
    e = result["environment"]
    quick = "one short round; " if result["quick"] else ""
    settings = "".join(f"; {section}.{key}={value}" for section, key, value in result["settings"])
    return (f"{e['date']}, {e['version']}, {e['cpu']}, {e['cores']} cores, Linux {e['kernel']}; load average "
            f"at the start {e['load']}; {quick}{rounds}{settings}.\n")


def markdown(result):
    """{part: its tables}"""
    texts = {}
    rounds = f"medians of {result['rounds']} rounds, in brackets the least and the most"
    for name, form in SECTIONS.items():
        if result.get(name):
            heading, body = form(result[name]).split("\n", 1)
            texts[name] = f"{heading}\n\n{taken(result, HOW.get(name, rounds))}{body}"
    return texts
