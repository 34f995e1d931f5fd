# SPDX-License-Identifier: MIT
"""
Resident memory: a daemon alone, then with 1, 4 and 16 peers; the slope is what a peer costs.

    bob, a hub without peers in its configuration  <---  m1, m2, ... dial it over one bridge
"""

import time

import lab as laboratory
from pair import resident_kb, say


def settled(daemon):
    """Its memory, once three looks in a row see the same."""
    seen = [resident_kb(daemon)]
    while len(seen) < 3 or not seen[-1] == seen[-2] == seen[-3]:
        time.sleep(0.1)
        seen.append(resident_kb(daemon))
        if len(seen) > 50:
            break
    return seen[-1]


def slope(points):
    """Least squares through (x, y)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return (sum((x - mean_x) * (y - mean_y) for x, y in points) /
            sum((x - mean_x) ** 2 for x, _ in points))


def measure(counts):
    options = {"families": (4,)}
    sections = {"Log": {"Level": "info"}}
    points = []
    with laboratory.Lab() as lab:
        (machine,) = lab.internet("hub", **options)
        hub = lab.daemon(machine, sections=sections).start()
        points.append({"peers": 0, **settled(hub)})
        members = []
        for count in counts:
            say(f"memory: {count} peers")
            while len(members) < count:
                (machine,) = lab.internet(f"m{len(members) + 1}", **options)
                members.append(lab.daemon(machine, sections=sections, peers=["hub"]).start())
            hub.wait_up(*members, timeout=20)
            points.append({"peers": count, **settled(hub)})
    return {"points": points, "idle_kb": points[0]["rss"], "idle_anonymous_kb": points[0]["anonymous"],
            "per_peer_kb": slope([(p["peers"], p["rss"]) for p in points[1:]]),
            "per_peer_anonymous_kb": slope([(p["peers"], p["anonymous"]) for p in points[1:]])}
