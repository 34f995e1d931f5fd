# SPDX-License-Identifier: MIT
"""
The comparison as a drawing in SVG: a panel of bars for each of some figures, the best on top.
"""

from xml.sax.saxutils import escape

PANELS = (  # figure, title, format, whether more is better
    ("tcp_one_gbps", "TCP, one stream, Gbit/s", ".1f", True),
    ("cpu_s_per_gb", "CPU of the tunnel, seconds per GB", ".2f", False),
    ("udp_few_kpps", "UDP 1200 B under 1 % loss, thousand packets/s", ".0f", True),
    ("ping_load_p99_us", "Ping beside a TCP stream, p99, µs", ".0f", False),
)
REFERENCES = ("veth", "vxlan")  # without encryption: named below a panel, not drawn
OURS = "shadowmesh"
WIDTH, GAP, MARGIN = 430, 30, 16
LABEL, VALUE = 140, 60  # pixels for a name and a number
ROW, BAR, HEAD, FOOT = 22, 14, 40, 26
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 }
.small { font-size: 11px; fill: #656d76 }
.bar { fill: #9aa4af } .ours { fill: #1f7a4d }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #8d96a0 } .bar { fill: #57606a } .ours { fill: #3fb950 }
}
"""


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def panel(x, y, run, figure, title, form, more):
    """The parts of one panel, and its height."""
    values = {key: (one["title"], one["figures"][figure]["median"]) for key, one in run["contenders"].items()
              if figure in one["figures"]}
    rows = sorted(((key, *pair) for key, pair in values.items() if key == OURS or run["contenders"][key]["peer"]),
                  key=lambda row: -row[2] if more else row[2])
    largest = max((row[2] for row in rows), default=0) or 1
    parts = [text(x, y + 16, title, "title"),
             text(x, y + 32, "more is better" if more else "less is better", "small")]
    for i, (key, name, value) in enumerate(rows):
        top = y + HEAD + i * ROW
        length = max(1, (WIDTH - LABEL - VALUE) * value / largest)
        parts += [text(x + LABEL - 8, top + BAR - 2, name, anchor="end"),
                  f'<rect x="{x + LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" '
                  f'class="{"ours" if key == OURS else "bar"}"/>',
                  text(x + LABEL + length + 6, top + BAR - 2, format(value, form))]
    known = [f"{values[key][0]} {format(values[key][1], form)}" for key in REFERENCES if key in values]
    if known:
        parts.append(text(x + LABEL, y + HEAD + len(rows) * ROW + 12, "without encryption: " + ", ".join(known),
                          "small"))
    return parts, HEAD + len(rows) * ROW + FOOT


def draw(run):
    parts, y, tallest = [], MARGIN, 0
    panels = [one for one in PANELS if any(one[0] in c["figures"] for c in run["contenders"].values())]
    for i, one in enumerate(panels):
        more, height = panel(MARGIN + i % 2 * (WIDTH + GAP), y, run, *one)
        parts += more
        tallest = max(tallest, height)
        if i % 2 == 1 or i == len(panels) - 1:
            y, tallest = y + tallest, 0
    e = run["environment"]
    rounds = f"medians of {run['rounds']} rounds in turn" if run["rounds"] > 1 else "one round"
    parts.append(text(MARGIN, y + 12, f"{e['date']}, {e['version']}, {e['cores']} cores for both ends, "
                      f"Linux {e['kernel']}; {rounds}", "small"))
    width, height = 2 * (WIDTH + MARGIN) + GAP, y + 24
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n")
