# SPDX-License-Identifier: MIT
"""
The impairment tool itself: what it does to frames is what it says it does.

    namespace L                    tests/tools/impair                    namespace R
    [ eth0 10.77.0.1 ] ====== TAP ====== two lines ====== TAP ====== [ eth0 10.77.0.2 ]
      02:00:00:00:00:01                  a2b, b2a                   02:00:00:00:00:02

IPv6 is off and the neighbours are set by hand, so that only a test's own frames are counted.
Most tests send numbered frames of the local experimental EtherType and look at what arrives.
"""

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

SOURCE = os.environ.get("SM_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
IMPAIR = os.environ.get("IMPAIR") or os.path.join(
    os.environ.get("SM_BUILD", os.path.join(SOURCE, "build")), "tests", "tools", "impair")

MACS = {"L": bytes.fromhex("020000000001"), "R": bytes.fromhex("020000000002")}
ADDRS = {"L": "10.77.0.1", "R": "10.77.0.2"}
EXPERIMENTAL = 0x88B5
DEADLINE_S = 15
CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 0x10

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count()


def sh(*args):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=DEADLINE_S)
    assert done.returncode == 0, f"{' '.join(args)}: {done.stdout}"
    return done.stdout


def setns(fd):
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def inside(netns):
    """This thread is in the namespace; sockets made here stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{netns}") as there:
        setns(there.fileno())
        try:
            yield
        finally:
            setns(home.fileno())


def make_silent(netns):
    """A namespace whose kernel sends nothing by itself."""
    sh("ip", "netns", "add", netns)
    sh("ip", "netns", "exec", netns, "sh", "-c",
       "for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")


class Wire:
    """Two namespaces with impair between them, and its control on standard input."""

    def __init__(self, *options, mtu=1500):
        tag = f"imp{os.getpid()}-{next(numbers)}"
        self.netns = {"L": tag + "L", "R": tag + "R"}
        self.proc = None
        self.sockets = []
        self.unread = b""
        try:
            for netns in self.netns.values():
                make_silent(netns)
            self.proc = subprocess.Popen(
                [IMPAIR, "--a", "eth0", "--b", "eth0", "--netns-a", self.netns["L"], "--netns-b",
                 self.netns["R"], "--mtu", str(mtu), "--json", "--control", "-", *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
            self.seed = self.line().split()[1]
            assert self.line() == "ready"
            for side, other in (("L", "R"), ("R", "L")):
                ip = ("ip", "-n", self.netns[side])
                sh(*ip, "link", "set", "eth0", "address", MACS[side].hex(":"))
                sh(*ip, "addr", "add", ADDRS[side] + "/24", "dev", "eth0")
                sh(*ip, "neigh", "add", ADDRS[other], "lladdr", MACS[other].hex(":"), "dev",
                   "eth0", "nud", "permanent")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for sock in self.sockets:
            sock.close()
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
        if self.proc:
            self.proc.wait()
            for pipe in (self.proc.stdin, self.proc.stdout, self.proc.stderr):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        for netns in self.netns.values():
            subprocess.run(["ip", "netns", "del", netns], stderr=subprocess.DEVNULL, check=False)

    def line(self):
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.proc.stdout], [], [], DEADLINE_S)
            assert ready, "impair is silent"
            more = os.read(self.proc.stdout.fileno(), 65536)
            assert more, f"impair ended: {self.proc.stderr.read().decode()}"
            self.unread += more
        line, self.unread = self.unread.split(b"\n", 1)
        return line.decode()

    def say(self, command):
        """Gives the answer without its final ok; an error is returned as it is."""
        self.proc.stdin.write(command.encode() + b"\n")
        lines = [self.line()]
        while lines[-1] != "ok" and not lines[-1].startswith("error:"):
            lines.append(self.line())
        return "\n".join(lines if lines[-1] != "ok" else lines[:-1])

    def stats(self):
        return json.loads(self.say("stats"))

    def settle(self, direction, frames):
        """Waits until that many frames came in and none is left inside; gives the counters."""
        end = time.monotonic() + DEADLINE_S
        while True:
            stats = self.stats()[direction]
            if stats["in_frames"] >= frames and stats["waiting_frames"] == 0:
                return stats
            assert time.monotonic() < end, stats

    def socket(self, side, *args):
        with inside(self.netns[side]):
            sock = socket.socket(*args)
        self.sockets.append(sock)
        sock.settimeout(DEADLINE_S)
        return sock

    def tap(self, side, ethertype=EXPERIMENTAL):
        sock = self.socket(side, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind(("eth0", ethertype))
        return sock

    def ping(self, *options):
        return sh("ip", "netns", "exec", self.netns["L"], "ping", "-n", *options, ADDRS["R"])


def other(side):
    return "R" if side == "L" else "L"


def numbered(side, n, size=100):
    head = MACS[other(side)] + MACS[side] + struct.pack("!HI", EXPERIMENTAL, n)
    return head + bytes((n + i) & 0xFF for i in range(size - len(head)))


def drain(sock):
    frames = []
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(sock.recv(65536))
    sock.settimeout(DEADLINE_S)
    return frames


def send_numbered(wire, n, side="L", size=100, sent=None):
    """Sends n frames across, calls sent() when the wire has them all; gives the counters and the numbers as they arrived."""
    direction = "a2b" if side == "L" else "b2a"
    before = wire.stats()[direction]["in_frames"]
    with wire.tap(side) as out, wire.tap(other(side)) as into:
        for i in range(n):
            out.send(numbered(side, i, size))
            if i % 1000 == 999:  # the queue in front of the wire holds 4000
                while wire.stats()[direction]["in_frames"] < before + i - 1000:
                    pass
        while sent and wire.stats()[direction]["in_frames"] < before + n:
            pass
        if sent:
            sent()
        stats = wire.settle(direction, before + n)
        frames = drain(into)
    arrived = [struct.unpack_from("!I", frame, 14)[0] for frame in frames]
    for i, frame in zip(arrived, frames):
        assert frame == numbered(side, i, size)
    return stats, arrived


def tcp_transfer(wire, size):
    """Bytes over TCP from L to R; gives bits per second after the first read."""
    data = os.urandom(1 << 20)
    blocks = size >> 20
    server = wire.socket("R", socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((ADDRS["R"], 5001))
    server.listen(1)
    client = wire.socket("L", socket.AF_INET, socket.SOCK_STREAM)
    client.connect((ADDRS["R"], 5001))
    peer, _ = server.accept()
    peer.settimeout(DEADLINE_S)
    sent = hashlib.sha256()

    def send():
        for _ in range(blocks):
            client.sendall(data)
            sent.update(data)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    got, total, first, begin = hashlib.sha256(), 0, 0, 0.0
    while block := peer.recv(1 << 18):
        got.update(block)
        if not total:
            first, begin = len(block), time.monotonic()
        total += len(block)
    seconds = time.monotonic() - begin
    thread.join()
    for sock in (peer, client, server):
        sock.close()
    assert total == blocks << 20 and got.digest() == sent.digest()
    return (total - first) * 8 / seconds


# --- a wire without impairments ---


def test_passes_everything():
    with Wire() as wire:
        assert "3 received" in wire.ping("-c", "3", "-i", "0.01", "-w", "5")
        assert "1 received" in wire.ping("-c", "1", "-w", "5", "-s", "1472", "-M", "do")
        tcp_transfer(wire, 16 << 20)
        stats = wire.stats()
        # the data in full frames one way; acknowledgements the other way, as many as the kernel likes
        for direction, least in (("a2b", (16 << 20) // 1460), ("b2a", 10)):
            one = stats[direction]
            assert one["in_frames"] == one["out_frames"] > least
            assert one["in_bytes"] == one["out_bytes"]
        # frames as a wire sees them: no super-packets, and still full ones
        assert 1400 < stats["a2b"]["in_bytes"] / stats["a2b"]["in_frames"] <= 1514


def test_passes_full_size_vlan_frame():
    payload = bytes(range(250)) * 6
    with Wire() as wire, wire.tap("L") as out, wire.tap("R", 3) as into:
        out.send(MACS["R"] + MACS["L"] + struct.pack("!HHH", 0x8100, 0x6064, EXPERIMENTAL) + payload)
        frame, aux, _, _ = into.recvmsg(65536, 256)
        assert wire.stats()["a2b"]["out_bytes"] == 1518
        status, length, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", aux[0][2])
        assert status & TP_STATUS_VLAN_VALID and (tci, tpid) == (0x6064, 0x8100)
        assert length == 1514
        assert frame == MACS["R"] + MACS["L"] + struct.pack("!H", EXPERIMENTAL) + payload


def test_passes_jumbo_frames():
    with Wire("--delay", "1ms", mtu=9000) as wire:
        for _ in range(2):  # a second one at once would be sent again if the first were late
            assert "1 received" in wire.ping("-c", "1", "-w", "5", "-i", "10", "-s", "8972", "-M", "do")
        stats = wire.stats()
        assert stats["a2b"]["out_bytes"] == stats["b2a"]["out_bytes"] == 2 * 9014


# --- time ---


def test_delay():
    with Wire("--delay", "20ms") as wire:
        rtt = [float(x) for x in re.findall(r"time=([\d.]+) ms",
                                            wire.ping("-c", "10", "-i", "0.05", "-w", "10"))]
        assert len(rtt) == 10
        assert 40.0 <= min(rtt) < 60.0
        wire.say("set a2b delay off")
        rtt = [float(x) for x in re.findall(r"time=([\d.]+) ms", wire.ping("-c", "10", "-i", "0.05", "-w", "10"))]
        assert 20.0 <= min(rtt) < 39.0


def test_jitter_keeps_order_unless_told():
    with Wire("--delay", "20ms", "--jitter", "20ms", "--seed", "5") as wire:
        stats, arrived = send_numbered(wire, 500)
        assert arrived == list(range(500))
        wire.say("set jitter-reorders on")
        stats, arrived = send_numbered(wire, 500)
        assert sorted(arrived) == list(range(500)) and stats["reordered"] == 0
        late = sum(x > y for x, y in zip(arrived, arrived[1:]))
        assert 100 < late < 400


# --- loss ---


def test_loss_is_random_and_replays():
    n = 5000
    runs = []
    for seed in ("42", "0x2a", "43"):
        with Wire("--loss", "10%", "--seed", seed) as wire:
            assert wire.seed == f"0x{int(seed, 0):016x}"
            stats, arrived = send_numbered(wire, n)
            assert stats["lost"] == n - len(arrived)
            assert 394 <= stats["lost"] <= 606  # five standard deviations
            assert arrived == sorted(set(arrived))
            _, back = send_numbered(wire, n, side="R")
            assert 394 <= n - len(back) <= 606
            runs.append((arrived, back))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0][0] != runs[0][1]


def test_other_settings_leave_decisions_alone():
    with Wire("--loss", "10%", "--seed", "42") as wire:
        _, plain = send_numbered(wire, 1000)
    with Wire("--loss", "10%", "--seed", "42", "--delay", "3ms", "--jitter", "1ms", "--corrupt-bits",
              "7", "--rate", "500Mbit", "--queue", "off") as wire:
        _, delayed = send_numbered(wire, 1000)
    assert plain == delayed


def test_loss_comes_in_bursts():
    n = 10000
    with Wire("--burst", "1%/25%", "--seed", "7") as wire:
        stats, arrived = send_numbered(wire, n)
    missing = sorted(set(range(n)) - set(arrived))
    runs = 1 + sum(y != x + 1 for x, y in zip(missing, missing[1:]))
    assert stats["lost"] == 0
    assert stats["lost_burst"] == len(missing)
    assert 0.025 < len(missing) / n < 0.055  # 1 / 26
    assert 3 < len(missing) / runs < 5.2  # 1 / 25%
    assert runs <= stats["bursts"]


# --- duplication, reordering, corruption ---


def test_duplication():
    n = 2000
    with Wire("--duplicate", "10%", "--seed", "8") as wire:
        stats, arrived = send_numbered(wire, n)
    assert 133 <= stats["duplicated"] <= 267
    assert len(arrived) == n + stats["duplicated"] and set(arrived) == set(range(n))
    assert sum(x == y for x, y in zip(arrived, arrived[1:])) == stats["duplicated"]


@pytest.mark.parametrize("gap", [1, 5])
def test_reordering_by_gap(gap):
    n = 1000
    with Wire("--reorder", "2%", "--reorder-gap", str(gap), "--reorder-delay", "3s", "--seed",
              "9") as wire:
        stats, arrived = send_numbered(wire, n)
    assert sorted(arrived) == list(range(n))
    # a frame is late when a later one came before it
    late, highest = [], -1
    for place, i in enumerate(arrived):
        if i < highest:
            late.append((i, place))
        highest = max(highest, i)
    assert 5 <= len(late) == stats["reordered"] <= 40
    # overtaken by exactly gap frames, and by those alone, where no other late one is near
    alone = [(i, place) for i, place in late if all(abs(i - j) > 2 * gap for j, _ in late if j != i)]
    assert len(alone) >= 3
    assert all(place == i + gap for i, place in alone)


def test_reordering_by_time():
    with Wire("--reorder", "100%", "--reorder-gap", "0", "--reorder-delay", "30ms") as wire:
        with wire.tap("L") as out, wire.tap("R") as into:
            begin = time.monotonic()
            out.send(numbered("L", 0))
            wire.settle("a2b", 1)
            assert time.monotonic() - begin >= 0.030
            assert len(drain(into)) == 1
            wire.say("set reorder-delay 1s")
            out.send(numbered("L", 1))
            while wire.stats()["a2b"]["in_frames"] < 2:
                pass
            wire.say("set reorder off")
            out.send(numbered("L", 2))
            assert wire.settle("a2b", 3)["reordered"] == 1
            assert [frame[17] for frame in drain(into)] == [2, 1]


def test_corruption_flips_one_bit_behind_the_header():
    n = 400
    with Wire("--corrupt", "100%", "--seed", "10") as wire:
        with wire.tap("L") as out, wire.tap("R") as into:
            for i in range(n):
                out.send(numbered("L", i, 200))
            stats = wire.settle("a2b", n)
            frames = drain(into)
    assert stats["corrupted"] == len(frames) == n
    places = []
    for i, frame in enumerate(frames):
        good = numbered("L", i, 200)
        bits = int.from_bytes(frame, "big") ^ int.from_bytes(good, "big")
        assert len(frame) == 200 and bits.bit_count() == 1
        places.append(199 - (bits.bit_length() - 1) // 8)
    assert min(places) in range(14, 24) and max(places) in range(190, 200)


def counters(netns, name):
    text = sh("ip", "netns", "exec", netns, "cat", "/proc/net/snmp")
    keys, values = [line.split() for line in text.splitlines() if line.startswith(name + ":")]
    return dict(zip(keys[1:], map(int, values[1:])))


def test_corruption_is_caught_by_udp():
    n = 1000
    with Wire("--a2b", "corrupt 30%", "--seed", "11") as wire:
        into = wire.socket("R", socket.AF_INET, socket.SOCK_DGRAM)
        into.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        into.bind((ADDRS["R"], 5002))
        out = wire.socket("L", socket.AF_INET, socket.SOCK_DGRAM)
        out.bind((ADDRS["L"], 5003))
        for i in range(n):
            out.sendto(struct.pack("!I", i) * 100, (ADDRS["R"], 5002))
        stats = wire.settle("a2b", n)
        got = drain(into)
        udp, ip = counters(wire.netns["R"], "Udp"), counters(wire.netns["R"], "Ip")
    assert 230 < stats["corrupted"] < 370
    assert len(got) == n - stats["corrupted"]
    assert all(datagram == datagram[:4] * 100 for datagram in got)
    assert udp["InCsumErrors"] > 0.85 * stats["corrupted"]
    assert ip["InHdrErrors"] > 0
    assert udp["InCsumErrors"] + ip["InHdrErrors"] == stats["corrupted"]


# --- rate, queue, memory ---


def test_rate_limit():
    with Wire("--rate", "50Mbit") as wire:
        # whoever waits for a CPU is slower, now and then, but never faster
        rates = []
        while len(rates) < 4 or (max(rates) < 35e6 and len(rates) < 20):
            rates.append(tcp_transfer(wire, 4 << 20))
        assert 35e6 < max(rates) <= 50e6
        wire.say("set rate off")
        assert any(tcp_transfer(wire, 8 << 20) > 60e6 for _ in range(20))


def test_rate_counts_exactly():
    # 40 frames of 1250 bytes at 10 Mbit/s are 40 ms; the bucket lets the first eight out at once
    for bucket, least in (("0", 0.040), ("10000", 0.032)):
        with Wire("--rate", "10Mbit", "--bucket", bucket) as wire:
            with wire.tap("L") as out, wire.tap("R") as into:
                seconds = []
                for _ in range(5):  # whoever waits for a CPU is late, but never early
                    begin = time.monotonic()
                    for i in range(40):
                        out.send(numbered("L", i, 1250))
                    for i in range(40):
                        into.recv(2048)
                    seconds.append(time.monotonic() - begin)
                    time.sleep(0.02)  # the bucket fills again
                assert least <= min(seconds) < least + 0.1


@pytest.mark.parametrize("queue,least", [("10p", 10), ("5000B", 5)])
def test_queue_drops_the_tail(queue, least):
    seconds = []
    with Wire("--rate", "100kbit", "--queue", queue) as wire:
        begin = time.monotonic()
        stats, arrived = send_numbered(wire, 60, size=1000, sent=lambda: seconds.append(time.monotonic() - begin))
    # 80 ms a frame: only few leave while 60 are sent
    assert least <= len(arrived) <= least + 2 + seconds[0] / 0.080
    assert arrived[:least] == list(range(least))
    assert stats["dropped_queue"] == 60 - len(arrived)


def test_memory_is_bounded():
    with Wire("--delay", "2s", "--memory", "100kB") as wire:
        stats, arrived = send_numbered(wire, 300, size=1000)
    assert 70 <= len(arrived) < 100
    assert stats["dropped_memory"] == 300 - len(arrived)
    assert stats["memory_bytes"] == 0


# --- switching ---


def test_down_and_up():
    with Wire() as wire:
        assert wire.say("down") == ""
        stats, arrived = send_numbered(wire, 10)
        assert arrived == [] and stats["dropped_down"] == 10 and stats["down"]
        assert wire.say("up b2a") == ""
        assert send_numbered(wire, 10)[1] == []
        assert send_numbered(wire, 10, side="R")[1] == list(range(10))
        assert wire.say("up") == ""
        assert send_numbered(wire, 10)[1] == list(range(10))


def test_down_loses_what_is_in_flight():
    with Wire("--delay", "10s") as wire:
        with wire.tap("L") as out:
            out.send(numbered("L", 0))
            while wire.stats()["a2b"]["waiting_frames"] == 0:
                pass
        wire.say("down")
        stats = wire.stats()["a2b"]
        assert (stats["waiting_frames"], stats["dropped_down"], stats["memory_bytes"]) == (0, 1, 0)


def test_unplugging_is_seen():
    def carrier(wire):
        return ["LOWER_UP" in json.loads(sh("ip", "-j", "-n", netns, "link", "show", "eth0"))[0]["flags"]
                for netns in wire.netns.values()]

    with Wire() as wire:
        assert carrier(wire) == [True, True]
        assert wire.say("unplug") == ""
        assert carrier(wire) == [False, False]
        assert wire.say("plug") == ""
        assert carrier(wire) == [True, True]
        # the kernel opens the transmit queue a moment after the carrier came
        assert "received" in wire.ping("-c", "50", "-i", "0.02", "-w", "5")
        assert wire.stats()["b2a"]["out_frames"] > 0


def test_interface_going_down_is_survived():
    with Wire() as wire:
        sh("ip", "-n", wire.netns["R"], "link", "set", "eth0", "down")
        with wire.tap("L") as out:
            out.send(numbered("L", 0))
            stats = wire.settle("a2b", 1)
        assert stats["dropped_write"] == 1 and stats["out_frames"] == 0
        sh("ip", "-n", wire.netns["R"], "link", "set", "eth0", "up")
        assert send_numbered(wire, 5)[1] == list(range(5))


# --- control, start and end ---


def test_settings_change_all_or_none():
    with Wire("--delay", "1ms", "--loss", "2%", "--b2a", "loss 3% queue 256KB") as wire:
        before = wire.stats()
        assert before["a2b"]["settings"] == "delay 1ms loss 2%"
        assert before["b2a"]["settings"] == "delay 1ms loss 3% queue 256000B"
        for command, text in (
            ("set delay 2ms loss 1", '"1" is not a probability'),
            ("set delay 2ms jitter 3ms", "jitter is larger than delay"),
            ("set delay", "without a value"),
            ("set", "nothing to set"),
            ("set speed 1", 'unknown setting "speed"'),
            ("start", 'unknown command "start"'),
        ):
            answer = wire.say(command)
            assert answer.startswith("error: ") and text in answer
        assert wire.stats() == before
        assert wire.say("set a2b loss 0.05% rate 1.5Mbit burst 1%/20%/90% jitter 250us") == ""
        text = wire.stats()["a2b"]["settings"]
        assert text == "delay 1ms jitter 0.25ms loss 0.05% burst 1%/20%/90%/0% rate 1500000bit"
        assert wire.say("clear") == ""
        assert wire.say("set a2b " + text) == "" and wire.stats()["a2b"]["settings"] == text
        assert wire.stats()["b2a"]["settings"] == ""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "quit", "end of input"])
def test_ends_cleanly(how):
    with Wire() as wire:
        send_numbered(wire, 3)
        if how == "quit":
            wire.say("quit")
        elif how == "end of input":
            wire.proc.stdin.close()
        else:
            wire.proc.send_signal(getattr(signal, how))
        assert json.loads(wire.line())["a2b"]["out_frames"] == 3
        assert wire.proc.wait(DEADLINE_S) == 0
        assert wire.proc.stderr.read() == b""
        for netns in wire.netns.values():
            assert "eth0" not in sh("ip", "-n", netns, "link")


def test_socket_control_and_ready_fd(tmp_path):
    path = str(tmp_path / "wire.sock")
    netns = f"imp{os.getpid()}-sock"
    ready, told = os.pipe()
    make_silent(netns)
    proc = None
    try:
        with socket.socket(socket.AF_UNIX) as stale:  # left behind by a run that was killed
            stale.bind(path)
        proc = subprocess.Popen(
            [IMPAIR, "--a", "left", "--b", "right", "--netns-a", netns, "--netns-b", netns,
             "--control", path, "--ready-fd", str(told)],
            pass_fds=[told], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        os.close(told)
        told = -1
        assert select.select([ready], [], [], DEADLINE_S)[0]
        assert os.read(ready, 100) == b"ready\n" and os.read(ready, 100) == b""
        clients = [socket.socket(socket.AF_UNIX) for _ in range(9)]
        answers = []
        for client in clients:
            client.settimeout(DEADLINE_S)
            client.connect(path)
        for client in clients[:8]:
            client.sendall(b"set loss 1%\nbogus\n")
            with client.makefile() as lines:
                answers.append([lines.readline(), lines.readline()[:15]])
        assert answers == [["ok\n", "error: unknown "]] * 8
        assert clients[8].recv(100).startswith(b"error: too many control connections")
        clients[0].sendall(b"x" * 511)  # a line that does not end
        assert clients[0].recv(100).startswith(b"error: line too long")
        assert clients[0].recv(100) == b""
        clients[1].sendall(b"stats\r\n")
        with clients[1].makefile() as lines:
            text = "".join(iter(lines.readline, "ok\n"))
        assert "a2b: up loss 1%" in text and re.search(r"frames in +0 +0\n", text)
        for client in clients:
            client.close()
        proc.send_signal(signal.SIGTERM)
        assert "frames in" in proc.communicate(timeout=DEADLINE_S)[0] and proc.returncode == 0
        assert not os.path.exists(path)
    finally:
        if proc and proc.poll() is None:
            proc.kill()
            proc.wait()
        for fd in (ready, told):
            if fd >= 0:
                os.close(fd)
        sh("ip", "netns", "del", netns)


ENDS = ["--a", "x0", "--b", "x1"]


@pytest.mark.parametrize("args,text", [
    ([], "no name for end a: give --a NAME"),
    (["--a", "x0"], "no name for end b"),
    (["--a", "x0", "--b", "x0"], "both ends are called x0 in the same namespace"),
    (["--a", "a-name-that-is-long", "--b", "x"], "is no interface name"),
    ([*ENDS, "--loss", "1"], 'loss: "1" is not a probability: write 0% to 100%'),
    ([*ENDS, "--loss", "101%"], "is not a probability"),
    ([*ENDS, "--loss", "nan%"], "is not a probability"),
    ([*ENDS, "--loss", "-1%"], "is not a probability"),
    ([*ENDS, "--delay", "10"], 'delay: "10" is not a time: write e.g. 10ms'),
    ([*ENDS, "--delay", "1h"], "is not a time"),
    ([*ENDS, "--rate", "1GB"], "is not a rate"),
    ([*ENDS, "--queue", "100"], "write frames as 100p, or bytes as 256KB"),
    ([*ENDS, "--queue", "p"], "is not a queue length"),
    ([*ENDS, "--burst", "1%"], "ENTER/LEAVE"),
    ([*ENDS, "--burst", "1%/0%"], "never leaves the bad state"),
    ([*ENDS, "--bucket", "10KB"], "bucket needs a rate"),
    ([*ENDS, "--jitter", "1ms"], "jitter is larger than delay"),
    ([*ENDS, "--corrupt-bits", "0"], "too small: at least 1"),
    ([*ENDS, "--a2b", "loss"], 'setting "loss" without a value'),
    ([*ENDS, "--a2b", "los 1%"], 'unknown setting "los": there are delay, jitter'),
    ([*ENDS, "--seed", "x"], '--seed: "x" is not a whole number'),
    ([*ENDS, "--mtu", "70000"], '--mtu: "70000" is not a whole number'),
    ([*ENDS, "--bogus"], "--help"),
    ([*ENDS, "stray"], '"stray" belongs to no option'),
])
def test_refuses_bad_arguments(args, text):
    done = subprocess.run([IMPAIR, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == ""
    assert text in done.stderr


def test_names_the_cause_when_it_cannot_start(tmp_path):
    netns = f"imp{os.getpid()}-bad"
    occupied = tmp_path / "file"
    occupied.write_text("")
    sh("ip", "netns", "add", netns)
    try:
        sh("ip", "-n", netns, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1")
        for args, text in (
            (["--netns-a", "no-such-namespace"], "make it with ip netns add"),
            (["--netns-a", netns, "--a", "v0"], "delete it or choose another name"),
            (["--netns-a", netns, "--mtu", "60"], "MTU 60 refused"),
            (["--netns-a", netns, "--control", str(occupied)], "choose a path that is free"),
            (["--netns-a", netns, "--control", "/" + "x" * 120], "shorten it"),
        ):
            done = subprocess.run([IMPAIR, *ENDS, *args], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S,
                                  stdin=subprocess.DEVNULL)
            assert done.returncode == 1 and text in done.stderr, (args, done)
            assert "x0" not in sh("ip", "-n", netns, "link")
        assert occupied.exists()
    finally:
        sh("ip", "netns", "del", netns)


def test_help_names_every_setting():
    text = subprocess.run([IMPAIR, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    listed = subprocess.run([IMPAIR, *ENDS, "--a2b", "x 1"], stderr=subprocess.PIPE, text=True,
                            check=False).stderr
    settings = listed.split("there are ")[1].strip().split(", ")
    assert len(settings) > 10
    for word in [*settings, "unplug", "--ready-fd", "--control", "--json", "--seed"]:
        assert re.search(rf"^  {re.escape(word)}\b", text, re.M), word
