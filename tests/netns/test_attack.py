# SPDX-License-Identifier: MIT
"""
Attacks on the data plane by somebody who sits on the wire: replayed, changed, reflected, made-up
datagrams. Nothing of it reaches a card, moves a path or disturbs anybody; each is counted by name.

    [ alice ] ---- [ alice ]  internet  [ bob ] ---- [ bob ]
                        \\                 /
                         ---- mallory ----      captures and injects at the bridge's ports
"""

import ipaddress
import random
import struct

import pytest

from faults import HOLE, Flows, Transfer, nft
from lab import (DATA_PORT, EXPERIMENTAL, Capture, Datagram, checksum, now, patterned, ping, wait_for)

HEADER, TAG = 16, 16  # bytes: PROTOCOL.md, "Data packets"
BURST = 300           # frames; a CPU's backlog holds 1000, a card's queue 500


def packet(source, destination, sport, dport, payload, identification=0):
    """IPv4 with UDP and no checksum; in fragments of 1480 bytes where it must be."""
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    for at in range(0, len(body), 1480):
        part = body[at:at + 1480]
        offset = at // 8 | (0x2000 if at + 1480 < len(body) else 0)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), identification, offset, 64, 17, 0) + addresses
        yield head[:10] + struct.pack("!H", checksum(head)) + head[12:] + part


class Wire:
    """mallory at the cable of one machine: sees all that goes to it, puts in what she likes."""

    def __init__(self, lab, victim, other):
        self.lab, self.victim, self.other = lab, victim, other
        self.port = lab.bridge.raw(victim.machine.name)
        mac = victim.machine.ip_json("link show eth0")[0]["address"]
        self.ethernet = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("0666666666660800")
        self.identification = 0
        self.frames = 0

    def inject(self, payload, source=None, sport=DATA_PORT):
        """A datagram to the victim's data port, by default from the other one's address and port."""
        self.identification = (self.identification + 1) % 65536
        for one in packet(source or self.other.machine.ip4, self.victim.machine.ip4, sport, DATA_PORT,
                          payload, self.identification):
            self.port.send(self.ethernet + one)
            self.frames += 1

    def inject_all(self, payloads, **options):
        """Never more frames at once than the kernel's queues hold for sure."""
        before, taken_at = self.received(), self.frames
        for i, payload in enumerate(payloads, 1):
            self.inject(payload, **options)
            if self.frames - taken_at >= BURST:
                wait_for(lambda n=before + i: self.received() >= n, what="the victim to take what was injected")
                taken_at = self.frames

    def received(self):
        return self.victim.counters()["udp_receive_packets"]

    def capture(self):
        return Capture(self.lab.bridge, self.victim.machine.name)

    def sealed(self, capture):
        """Payloads of the sealed datagrams that went to the victim."""
        return [view.payload for view in map(Datagram.parse, capture.frames)
                if view and view.destination == self.victim.machine.ip4 and view.dport == DATA_PORT]


class Card:
    """What reaches the victim's card from the other's: each of our frames once, and whole."""

    def __init__(self, a, b):
        self.out, self.into = a.raw(EXPERIMENTAL), b.raw()
        self.head = b.mac + a.mac + struct.pack("!H", EXPERIMENTAL)
        self.body = patterned("card", 900)
        self.count = 0
        self.seen = set()

    def frame(self, number):
        return self.head + struct.pack("!I", number) + self.body[:60 + number * 7 % 800]

    def send(self, count):
        """Frames that arrive, all of them, in order; returns when they have."""
        assert count <= BURST
        for _ in range(count):
            self.out.send(self.frame(self.count))
            self.count += 1
        wait_for(lambda: self.look() == self.count, 5, "all frames")

    def look(self):
        """How many different ones have come by now; an AssertionError for any that should not."""
        for frame in self.into.drain():
            if frame[12:14] != self.head[12:]:
                # the kernels talk, too: neighbours, the flows
                assert frame[12:14] in (b"\x08\x00", b"\x86\xdd", b"\x08\x06"), f"a strange frame: {frame.hex()}"
                continue
            number = struct.unpack_from("!I", frame, 14)[0]
            assert number < self.count and frame == self.frame(number), f"not what was sent: {frame.hex()}"
            assert number not in self.seen, f"frame {number} came twice"
            self.seen.add(number)
        return len(self.seen)


class Scene:
    """alice and bob, mallory at bob's cable, flows of innocent traffic in both directions."""

    def __init__(self, lab, **options):
        self.lab = lab
        self.alice, self.bob = lab.mesh("alice", "bob", families=(4,), **options)
        self.alice.machine.segment()  # mallory sees datagrams
        self.bob.machine.segment()
        self.wire = Wire(lab, self.bob, self.alice)
        self.card = Card(self.alice, self.bob)
        with self.wire.capture() as capture:
            self.card.send(200)
            wait_for(lambda: len(self.sealed_data(capture)) >= 200, what="the captured datagrams")
            self.captured = self.sealed_data(capture)

    def sealed_data(self, capture):
        """Sealed frames: those of the control lane are left out."""
        return [one for one in self.wire.sealed(capture) if one[2] != 0]

    def attack(self, payloads, reasons, **options):
        """Injects and waits until bob has counted each of them under one of these names; checks that nothing
        else came of it."""
        payloads = list(payloads)
        with Flows(self.alice, self.bob) as flows:
            before, path = self.bob.drops(), self.bob.peer(self.alice)["path"]
            position = self.bob.log_size()
            since = now()
            self.wire.inject_all(payloads, **options)

            def counted():
                now = self.bob.drops()
                return {name: n - before.get(name, 0) for name, n in now.items() if n != before.get(name, 0)}

            wait_for(lambda: sum(counted().values()) >= len(payloads), 10, f"the drops; {counted()}")
            flows.run_for(0.2)
            assert set(counted()) <= set(reasons), counted()
            assert sum(counted().values()) == len(payloads)
            assert flows.longest_hole(since) <= HOLE
            self.card.look()
            after = self.bob.peer(self.alice)["path"]
            assert (after["remote"], after["moves"]) == (path["remote"], path["moves"])
            assert "moved" not in self.bob.log(position)
            assert self.bob.is_up(self.alice) and self.alice.is_up(self.bob)
        self.card.send(20)
        return counted()


@pytest.fixture
def scene(lab):
    return Scene(lab)


def test_replayed(scene):
    """In order, backwards, again and again, from elsewhere."""
    captured = scene.captured
    assert scene.attack(captured, ["replayed"]) == {"replayed": len(captured)}
    scene.attack(reversed(captured), ["replayed"])
    scene.attack(captured[:1] * 500, ["replayed"])
    scene.attack(captured, ["replayed"], source="198.51.100.66", sport=4444)
    assert scene.bob.peer(scene.alice)["counters"]["duplicate"] == 3 * len(captured) + 500


def test_replayed_after_rekeying(lab):
    """While the old epoch is still taken, and when it is gone."""
    scene = Scene(lab, sections={"Transport": {"RekeyAfter": "3s"}})
    epoch = scene.bob.peer(scene.alice)["session"]["epoch"]
    with Flows(scene.alice, scene.bob):
        wait_for(lambda: scene.bob.peer(scene.alice)["session"]["epoch"] > epoch, 10, "a new epoch")
        scene.attack(scene.captured, ["replayed", "epoch_over"])
        wait_for(lambda: scene.bob.peer(scene.alice)["session"]["epoch"] > epoch + 1, 20, "another one")
    assert scene.attack(scene.captured, ["epoch_over"]) == {"epoch_over": len(scene.captured)}


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_replayed_after_restart(scene, who):
    """Another session, or another process: old keys are gone (an old session drains for 10 s)."""
    daemon = getattr(scene, who)
    daemon.kill()
    daemon.start()
    scene.lab.wait_mesh(scene.alice, scene.bob)
    scene.card.out, scene.card.into = scene.alice.raw(EXPERIMENTAL), scene.bob.raw()
    ping(scene.alice, scene.bob.ip4, count=1)
    scene.attack(scene.captured, ["replayed", "unknown_session"] if who == "alice" else ["unknown_session"])


def test_bits_flipped(scene):
    """Every bit of the header, and a bit of every byte behind it."""
    original = max(scene.captured, key=len)
    bits = [*range(8 * HEADER), *(8 * at + at % 8 for at in range(HEADER, len(original)))]
    changed = []
    for bit in bits:
        one = bytearray(original)
        one[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(one))
    counted = scene.attack(changed, ["forged", "malformed", "unknown_session", "epoch_over"])
    # type and reserved; epoch; session; lane beyond those there are
    assert counted["malformed"] >= 16 and counted["epoch_over"] == 8 and counted["unknown_session"] == 32
    assert counted["forged"] >= len(original) - HEADER + 28


def test_header_fields_changed(scene):
    """A packet of one lane, epoch, session or number passed off as one of another."""
    session = struct.unpack_from("!I", scene.captured[0], 4)[0]
    lanes = scene.captured[0][2] + 1
    changed = []
    for one in scene.captured[:50]:
        for lane in range(256):
            if lane != one[2] and (lane < lanes or lane in (lanes, 17, 255)):
                changed.append(one[:2] + bytes([lane]) + one[3:])
        for epoch in (one[1] + 1 & 255, one[1] - 1 & 255, 128):
            changed.append(one[:1] + bytes([epoch]) + one[2:])
        for index in (0, session + 1 & 0xFFFFFFFF, session ^ 0x10000, session & 0xFFFF, 0xFFFFFFFF):
            changed.append(one[:4] + struct.pack("!I", index) + one[8:])
        number = struct.unpack_from("!Q", one, 8)[0]
        for other in (number + 1, number + (1 << 20), (1 << 28) - 1, 1 << 28, (1 << 64) - 1, (1 << 64) - 2):
            changed.append(one[:8] + struct.pack("!Q", other) + one[16:])
    scene.attack(changed, ["forged", "malformed", "unknown_session", "epoch_over"])


def test_cut_and_extended(scene):
    original = max(scene.captured, key=len)
    cut = [original[:length] for length in range(1, len(original))]
    extended = [original + bytes(n) for n in (1, 2, 16, 100, 600, 1400, 5000, 60000)]
    spliced = [a[:HEADER] + b[HEADER:] for a, b in zip(scene.captured, scene.captured[1:])]
    counted = scene.attack(cut + extended + spliced, ["forged", "malformed"])
    # too large for any buffer of ours counts as malformed
    assert counted["malformed"] >= HEADER + TAG and counted["forged"] >= len(cut) - HEADER - TAG - 1


def test_from_elsewhere(scene):
    """Forged and replayed from a foreign address: no challenge goes there, the path stays."""
    mallory = scene.lab.internet("mallory", families=(4,))[0]
    forged = [one[:-1] + bytes([one[-1] ^ 1]) for one in scene.captured]
    with Capture(mallory) as capture:
        scene.attack(forged, ["forged"], source=mallory.ip4, sport=5555)
        scene.attack(scene.captured, ["replayed"], source=mallory.ip4, sport=5555)
        # something that does get there is seen
        ping(scene.bob.machine, mallory.ip4, count=1)
        wait_for(lambda: capture.find(ipaddress.ip_address(mallory.ip4).packed), what="a packet to mallory")
    assert not capture.udp(), "bob answered"


def test_reflected(scene):
    """What alice sent comes back to her, as from bob."""
    wire = Wire(scene.lab, scene.alice, scene.bob)
    before = scene.alice.drops().get("unknown_session", 0)
    with scene.alice.raw(EXPERIMENTAL) as into, Flows(scene.alice, scene.bob) as flows:
        since = now()
        wire.inject_all(scene.captured)
        # as if it were for her: with her own session's index
        with wire.capture() as capture:
            wait_for(lambda: wire.sealed(capture), what="a datagram to alice")
            own = wire.sealed(capture)[0][4:8]
        forged = scene.alice.drops().get("forged", 0)
        wire.inject_all([one[:4] + own + one[8:] for one in scene.captured])
        count = len(scene.captured)
        wait_for(lambda: scene.alice.drops().get("unknown_session", 0) == before + count, what="the drops")
        wait_for(lambda: scene.alice.drops().get("forged", 0) == forged + count, what="the forged ones")
        flows.run_for(0.2)
        assert flows.longest_hole(since) <= HOLE
        assert into.drain() == []
    scene.card.send(20)


def test_delayed(scene):
    """Held back by the wire and let go later, from elsewhere: each is new and taken, once; the path stays,
    since newer packets have come from where alice is."""
    alice, bob, card, lab = scene.alice, scene.bob, scene.card, scene.lab
    hold = f"""
table netdev hold {{
	chain in {{
		type filter hook ingress device alice priority 0;
		udp dport {DATA_PORT} @th,80,8 != 0 drop # all lanes but the control lane
	}}
}}
"""
    nft(lab.bridge, hold)
    with Capture(lab.bridge, "alice") as capture:
        for _ in range(50):
            card.out.send(card.frame(card.count))
            card.count += 1
        wait_for(lambda: len(scene.sealed_data(capture)) >= 50, what="the frames to be held")
    held = scene.sealed_data(capture)
    nft(lab.bridge, "delete table netdev hold\n")
    missing = 50
    for _ in range(50):
        card.out.send(card.frame(card.count))
        card.count += 1
    wait_for(lambda: card.look() == card.count - missing, 5, "the newer frames")
    path = bob.peer(alice)["path"]
    scene.wire.inject_all(held, source="198.51.100.66", sport=6666)
    wait_for(lambda: card.look() == card.count, 5, "the held frames")
    before = bob.drops().get("replayed", 0)
    scene.wire.inject_all(held)
    wait_for(lambda: bob.drops().get("replayed", 0) == before + len(held), what="the second time")
    assert card.look() == card.count
    after = bob.peer(alice)["path"]
    assert (after["remote"], after["moves"]) == (path["remote"], path["moves"])


@pytest.mark.parametrize("kind", ["noise", "typed", "session"])
def test_random_datagrams(scene, kind):
    """Noise; noise behind a right first byte; noise behind a header that is right."""
    rng = random.Random(kind)
    header = scene.captured[-1][:8]
    count = 100_000 if kind == "noise" else 20_000
    memory = scene.bob.status()["memory_rss_bytes"]
    pool = [rng.randbytes(rng.randrange(1, 1472)) for _ in range(500)]

    def payloads():
        for i in range(count):
            body = pool[rng.randrange(len(pool))]
            if kind == "noise":
                yield bytes([rng.randrange(0x80)]) + body[1:] if body[0] == 0x80 else body
            elif kind == "typed":
                yield b"\x80" + body
            else:
                yield header + struct.pack("!Q", rng.randrange(1 << 29)) + b"\x5a" * 17 + body

    wanted = {"noise": ["malformed"], "session": ["forged"],
              "typed": ["malformed", "unknown_session", "epoch_over", "forged"]}[kind]
    scene.attack(payloads(), wanted)
    assert scene.bob.status()["memory_rss_bytes"] - memory < 4 << 20


def test_huge_and_empty_datagrams(scene):
    """Up to what IPv4 carries; larger than any packet of ours is malformed and reads nothing else away."""
    header = scene.captured[-1][:HEADER]
    sizes = [1, 15, 16, 32, 33, 1472, 1473, 2000, 9000, 20000, 65000, 65507]
    payloads = [header[:size] + bytes(max(0, size - HEADER)) for size in sizes for _ in range(20)]
    scene.attack(payloads, ["malformed", "forged"])
    before = scene.bob.counters()["udp_receive_packets"]
    for _ in range(50):
        scene.wire.inject(b"")
    wait_for(lambda: scene.bob.counters()["udp_receive_packets"] >= before + 50, what="the empty ones")
    scene.card.send(50)


def test_flood_beside_bulk(scene):
    """Forgeries by the thousand while TCP runs: it loses none of its data, and no session is closed."""
    forged = [one[:-1] + bytes([one[-1] ^ 1]) for one in scene.captured]
    transfer = Transfer(scene.alice, scene.bob, scene.bob.ip4, 30_000_000)
    scene.attack(forged * 20, ["forged"])
    transfer.wait_more(1 << 20)
    transfer.end()
    assert scene.bob.peer(scene.alice)["session"]["rekeys"] == 0
