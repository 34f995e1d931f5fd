# SPDX-License-Identifier: MIT
"""
What a comparison comes to: medians, ratios, tables in Markdown.
"""

import datetime
import os
import re

from pairing import UNDERLAYS, laboratory
from pair import spread
from report import show, table, with_range as with_brackets
import chart

OURS, WITHOUT = "shadowmesh", "shadowmesh-no-offload"
WIRE, FASTEST_LAYER_3 = "veth", "wireguard-go"
GROUPS = (  # title, then (name, heading, format, whether more is better)
    ("TCP and what it costs", (
        ("tcp_one_gbps", "1 stream, Gbit/s", ".2f", True),
        ("tcp_four_gbps", "4 streams", ".2f", True),
        ("tcp_reverse_gbps", "reverse", ".2f", True),
        ("tcp_both_gbps", "both ways, sum", ".2f", True),
        ("cpu_s_per_gb", "tunnel CPU, s/GB", ".2f", False),
        ("resident_mb", "memory, MB", ".1f", False))),
    ("UDP, thousand packets a second that arrive", (
        ("udp_few_kpps", "1200 B, < 1 % lost", ".0f", True),
        ("udp_none_kpps", "1200 B, ≤ 0.1 % lost", ".0f", True),
        ("small_kpps", "64 B frames, < 1 % lost", ".0f", True))),
    ("Ping, µs, and start", (
        ("ping_idle_p50_us", "idle p50", ".0f", False),
        ("ping_idle_p99_us", "idle p99", ".0f", False),
        ("ping_load_p50_us", "beside TCP p50", ".0f", False),
        ("ping_load_p99_us", "beside TCP p99", ".0f", False),
        ("ping_lost", "lost", ".0f", False),
        ("first_ping_s", "start to first ping, s", ".3f", False))),
)
FIGURES = {name: (heading, form, more) for _, figures in GROUPS for name, heading, form, more in figures}
KINDS = {"tcp": "TCP ", "udp": "UDP ", "small": "UDP ", "ping": "ping "}  # by the begin of a figure's name
NO_RATIO = ("ping_lost",)
DOCUMENT = os.path.join(laboratory.SOURCE, "docs", "PERFORMANCE.md")
README = os.path.join(laboratory.SOURCE, "README.md")
CHART = "docs/compare.svg"


def brief(found):
    """The figures of one visit in a line."""
    return ", ".join(f"{heading} {format(found[name], form)}" for name, (heading, form, _) in FIGURES.items()
                     if found.get(name) is not None)


def environment():
    with open("/proc/cpuinfo") as file:
        cpu = re.search(r"model name\s*: (.*)", file.read())
    version = laboratory.sh(laboratory.SHADOWMESH, "version").splitlines()
    return {"date": datetime.date.today().isoformat(), "cpu": cpu[1] if cpu else os.uname().machine,
            "cores": os.cpu_count(), "kernel": os.uname().release, "version": version[0],
            "openssl": next((v for v in version if "OpenSSL" in v), ""),
            "iperf3": laboratory.sh("iperf3", "--version").split("\n")[0].split(" (")[0],
            "load": f"{os.getloadavg()[0]:.1f}"}


def figures(samples):
    """{name: {"median", "min", "max", "n"}} of the rounds."""
    found = {}
    for name in FIGURES:
        values = [value for value in samples.get(name, ()) if value is not None]
        if values:
            found[name] = spread(values)
    return found


def with_range(one, form):
    """The median, and in brackets the least and the most if there was more than one."""
    return show(one["median"], form) if one and one["n"] == 1 else with_brackets(one, form)


def best(contenders, name, more, wanted):
    """(title, median) of the best of those that are wanted, or None."""
    found = [(one["title"], one["figures"][name]["median"]) for one in contenders.values()
             if wanted(one) and name in one["figures"]]
    return (max if more else min)(found, key=lambda pair: pair[1]) if found else None


def ratios(contenders):
    """{figure: ours beside the wire, the best peer, the best of layer 2, wireguard-go, and ours without offloads}"""
    result = {}
    for name, (_, _, more) in FIGURES.items():
        if name in NO_RATIO:
            continue
        ours = contenders.get(OURS, {"figures": {}})["figures"].get(name)
        if not ours:
            continue
        others = {
            "wire": best({k: c for k, c in contenders.items() if k == WIRE}, name, more, lambda c: True),
            "best_peer": best(contenders, name, more, lambda c: c["peer"]),
            "best_layer_2": best(contenders, name, more, lambda c: c["peer"] and c["layer"] == 2),
            "offloads_off": best({k: c for k, c in contenders.items() if k == WITHOUT}, name, more,
                                 lambda c: True),
            "wireguard_go": best({k: c for k, c in contenders.items() if k == FASTEST_LAYER_3}, name, more,
                                 lambda c: True),
        }
        result[name] = {"ours": ours["median"], "more_is_better": more,
                        **{key: {"who": other[0], "median": other[1],
                                 "ratio": ours["median"] / other[1] if other[1] else None}
                           for key, other in others.items() if other}}
    return result


def ratio_table(found):
    def cell(one, form, named):
        if not one:
            return "–"
        name = f"{one['who']}, {format(one['median'], form)}: " if named else ""
        return f"{name}**{show(one['ratio'], '.2f')}**"

    rows = []
    for name, one in found.items():
        heading, form, more = FIGURES[name]
        kind = KINDS.get(name.split("_")[0], "")
        rows.append([kind + heading, "more" if more else "less", format(one["ours"], form),
                     cell(one.get("wire"), form, False), cell(one.get("best_peer"), form, True),
                     cell(one.get("best_layer_2"), form, True), cell(one.get("wireguard_go"), form, False),
                     cell(one.get("offloads_off"), form, False)])
    return table(["", "better is", "ShadowMesh", "to the bare wire", "to the best peer", "to the best peer of layer 2",
                  "to wireguard-go", "to itself, offloads off"], rows)


def who(contenders):
    return table(["", "version", "from", "layer", "cipher", "MTU"],
                 [[c["title"], c["version"] or "–", f"Debian {c['suite']}" if c["suite"] else
                   "this checkout" if c["version"] else "the kernel", c["layer"], c["cipher"] or "none",
                   f"{c['mtu']}: {c['mtu_why']}"] for c in contenders.values()])


def disturbance(contenders):
    """What the host took of the processors meanwhile, of all visits that count."""
    shares = [share for one in contenders.values() for share in one["samples"].get("stolen", ())]
    return f"; the machine's host took {spread(shares)['median']:.0%} (at most {max(shares):.0%}) of the time" \
        if shares else ""


def one_underlay(name, run):
    e, contenders = run["environment"], run["contenders"]
    text = [f"### {UNDERLAYS[name][0][0].upper()}{UNDERLAYS[name][0][1:]} (`--underlay {name}`)\n",
            f"{e['date']}, {e['version']}, {e['cpu']}, {e['cores']} cores for both ends, Linux {e['kernel']}, "
            f"{e['openssl']}, {e['iperf3']}, cubic; load average at the start {e['load']}; " +
            (f"medians of {run['rounds']} rounds, in brackets the least and the most" if run["rounds"] > 1 else
             "one round") + disturbance(contenders) + (" (a short look: no more than a try).\n" if run["quick"] else ".\n")]
    for title, columns in GROUPS:
        names = [f for f in columns if any(f[0] in c["figures"] for c in contenders.values())]
        if names:
            text += [f"{title}:\n", table(["", *(heading for _, heading, _, _ in names)], [
                [c["title"], *(with_range(c["figures"].get(n), form) for n, _, form, _ in names)]
                for c in contenders.values()])]
    if run["ratios"]:
        text += ["Ratios of the medians, ours to theirs:\n", ratio_table(run["ratios"])]
    for title, reason in run["missing"].items():
        text.append(f"Left out: {title}: {reason}\n")
    for key, problems in run["problems"].items():
        if key in contenders:
            text.append(f"{contenders[key]['title']}, {len(problems)} measurement{'s' if len(problems) > 1 else ''} "
                        f"without a result: {problems[0]}\n")
    return "\n".join(text)


def markdown(result):
    known = {}
    for run in result.values():
        known.update(run["contenders"])
    return "\n".join(["Who is compared:\n", who(known)] +
                     [one_underlay(name, result[name]) for name in UNDERLAYS if name in result])


def put(path, mark, text):
    """Replaces what stands between two marks of a file."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->\n"
    with open(path) as file:
        head, found, rest = file.read().partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"bench: {path} has no lines {begin.strip()} and {end.strip()}")
    with open(path, "w") as file:
        file.write(head + begin + text + end + tail)


def write_document(result):
    """Tables into docs/PERFORMANCE.md, the chart beside it and into README.md."""
    put(DOCUMENT, "comparison", "\n" + markdown(result) + "\n")
    if "plain" not in result:
        return
    with open(os.path.join(laboratory.SOURCE, CHART), "w") as file:
        file.write(chart.draw(result["plain"]))
    put(README, "chart", f"![ShadowMesh beside other tunnels: TCP, CPU, UDP, ping]({CHART})\n\n"
        "`make bench` measures it again; all figures, and on other wires: "
        "[docs/PERFORMANCE.md](docs/PERFORMANCE.md).\n")
