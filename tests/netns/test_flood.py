# SPDX-License-Identifier: MIT
"""
Many at once: connections that never speak, refusals by the thousand, members that come and go.

    alice <== pings, hundred a second ==> bob     mallory: ten thousand connections, from one address
      ^  ^                                        or from 203.0.64.0/18
      |  +------------------ TCP 8443 ------------'
      +--- carol, who wants to get in meanwhile

alice logs at level info, as everybody does, so that what strangers make her write can be counted.
"""

import collections
import contextlib
import fcntl
import itertools
import re
import resource
import select
import socket
import threading
import time

import pytest

from lab import CONTROL_PORT, SLOW, Lab, now, ping, wait_for
from strangers import HELLO, READY, House, Member, client_hello, hello, message

SILENT = 10000
SECONDS = 2       # within which carol is in, whoever else knocks
UNFINISHED = 64   # [Transport] MaxHandshakes, its default; a quarter is for those who are known
GROWTH = 24 << 20  # bytes of memory that a flood may cost
STRANGERS = "203.0.64.0/18"
LOG_BURST, LOG_PER_SECOND = 10, 0.5


@pytest.fixture(scope="module")
def whole_house(tmp_path_factory):
    made = House(Lab(), str(tmp_path_factory.mktemp("flood")), sections={"Log": {"Level": "info"}},
                 growth=GROWTH)
    made.carol, = made.lab.internet("carol")
    made.alice.machine.ip(f"route add {STRANGERS} via {made.mallory.ip4}")
    made.mallory.ip(f"route add local {STRANGERS} dev lo")
    # closed ones of 10,000 are not to fill tables that all namespaces share
    made.mallory.sh("sh", "-c", "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    made.close()


def addresses(count, first=(203 << 24) + (64 << 8)):
    return [socket.inet_ntoa((first + 1 + i % 16382).to_bytes(4, "big")) for i in range(count)]


def out_of_the_way(sock):
    """The same with a descriptor that is too high for select(), which others here use."""
    with sock:
        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 2048))


class Flood:
    """Opens connections to alice, as many as there are addresses and from each in turn, and keeps them; a
    thread. With goes_on it does not end there: new ones take the place of the oldest until finish()."""

    def __init__(self, house, sources, first=b"", goes_on=False):
        self.house, self.sources, self.first = house, sources, first
        self.socks = collections.deque()
        self.connected = 0
        self.enough = threading.Event()
        if not goes_on:
            self.enough.set()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()
        for sock in self.socks:
            sock.close()

    def finish(self):
        self.enough.set()
        self.thread.join()

    def run(self):
        to = self.house.alice.machine.ip4, CONTROL_PORT
        count, sources = 0, itertools.cycle(self.sources)
        with self.house.mallory.inside():
            while count < len(self.sources) or not self.enough.is_set():
                batch = []
                count += 100
                while len(self.socks) > len(self.sources) - 100:
                    self.socks.popleft().close()
                for source in itertools.islice(sources, 100):
                    sock = out_of_the_way(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                    sock.setblocking(False)
                    if source:
                        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                        sock.bind((source, 0))
                    sock.connect_ex(to)
                    batch.append(sock)
                self.socks += batch
                self.connect(batch)

    def connect(self, batch):
        poll = select.poll()
        waiting = {sock.fileno(): sock for sock in batch}
        for number in waiting:
            poll.register(number, select.POLLOUT)
        end = now() + 3 * SLOW
        while waiting and now() < end:
            for number, _ in poll.poll(100):
                poll.unregister(number)
                sock = waiting.pop(number)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    self.connected += 1
                    with contextlib.suppress(OSError):
                        sock.send(self.first)


def rss(house):
    return house.alice.status()["memory_rss_bytes"]


@pytest.mark.parametrize("sources", ["one", "many"])
@pytest.mark.parametrize("known", [False, True], ids=["stranger", "known"])
def test_ten_thousand_that_never_speak(house, sources, known):
    alice = house.alice
    carol = house.daemon("carol", machine=house.carol)
    at = alice.log_size()
    begin = time.monotonic()  # the daemon's clock does not stand still when the machine does
    accepted, before = house.counter("accepted"), house.counter("refused", "limit")
    with contextlib.ExitStack() as stack:
        if known:
            # her address is a peer's; the port is not, so that it is she who must get in
            stack.enter_context(house.dialling("carol", machine=house.carol, port=1))
        flood = stack.enter_context(Flood(house,
                                          [None] * SILENT if sources == "one" else addresses(SILENT),
                                          goes_on=True))
        wait_for(lambda: flood.connected > SILENT // 20, 10, "the flood to begin")
        carol.start()
        start = now()
        most = 0

        def is_up():
            nonlocal most
            most = max(most, rss(house))
            return carol.is_up("alice") and alice.is_up("carol")

        wait_for(is_up, 10, "carol to get in")
        took = now() - start
        while flood.connected < SILENT:
            most = max(most, rss(house))
            assert house.counter("unfinished") <= UNFINISHED
        flood.finish()
        wait_for(lambda: house.counter("accepted") >= accepted + flood.connected, 5,
                 "all to be accepted")
        most = max(most, rss(house))
        assert took < SECONDS * SLOW, f"carol needed {took:.1f} s"
    assert most < house.rss + house.growth, f"memory grew from {house.rss} to {most}"
    assert ping(carol, alice.ip4, count=20).lost == 0
    # those that made room, and those that were silent to the end
    wait_for(lambda: house.counter("unfinished") == 0, 5, "the silent to be closed")
    refused = house.counter("refused", "limit") - before
    assert refused >= SILENT - UNFINISHED - 8
    lines, seconds = len(re.findall("control: refused", alice.log(at))), time.monotonic() - begin
    assert lines <= LOG_BURST + LOG_PER_SECOND * seconds + 2, f"{lines} lines in {seconds:.1f} s"
    assert "too many unfinished connections" in alice.log()
    carol.stop()


def test_half_a_greeting_from_many(house):
    """Each leaves a kilobyte behind that must not pile up."""
    half = client_hello(house.mallory)[:1000]
    with Flood(house, addresses(3000), half) as flood:
        flood.thread.join()
        assert flood.connected == 3000
        assert house.counter("unfinished") <= UNFINISHED
        assert rss(house) < house.rss + house.growth
    wait_for(lambda: house.counter("unfinished") == 0, 5, "those to be closed")


def test_whole_greetings_from_many(house):
    """Each of them costs a signature; those that alice knows have a reserve."""
    whole = client_hello(house.mallory)
    carol = house.daemon("carol", machine=house.carol)
    with house.dialling("carol", machine=house.carol, port=1), \
            Flood(house, addresses(2000), whole, goes_on=True) as flood:
        wait_for(lambda: flood.connected > 500 and house.counter("unfinished") >= UNFINISHED // 2,
                 10, "the flood to begin")
        begin = now()
        carol.start()
        carol.wait_up("alice")
        took = now() - begin
        assert house.counter("unfinished") <= UNFINISHED
        assert rss(house) < house.rss + house.growth
    assert took < SECONDS * SLOW, f"carol needed {took:.1f} s"
    wait_for(lambda: house.counter("unfinished") == 0, 8, "those to be closed")
    carol.stop()


def test_a_thousand_refusals_are_not_a_thousand_lines(house):
    alice = house.alice

    def knock():
        with house.mallory.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((alice.machine.ip4, CONTROL_PORT))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(10) == b""

    def knock_until_told():
        """The next line that is allowed also says how many before it were not."""
        position = alice.log_size()

        def told():
            knock()
            return "not TLS" in alice.log(position)

        wait_for(told, 6, "a line", interval=0.1)

    knock_until_told()  # of what the tests before have left out
    at, begin = alice.log_size(), time.monotonic()
    before = house.counter("refused", "protocol")
    for _ in range(1000):
        knock()
    assert house.counter("refused", "protocol") - before == 1000
    knock_until_told()
    text, seconds = alice.log(at), time.monotonic() - begin
    lines = len(re.findall("control: refused .* what the peer sent is not TLS", text))
    assert lines <= LOG_BURST + LOG_PER_SECOND * seconds + 1, f"{lines} lines in {seconds:.1f} s"
    left_out = sum(map(int, re.findall(r"not TLS \((\d+) such lines left out\)", text)))
    assert lines + left_out == house.counter("refused", "protocol") - before


@pytest.mark.parametrize("connected", [False, True])
def test_a_member_cannot_fill_the_log(house, connected):
    """Each time another reason, each line new; or a session each time, and whatever is said of that."""
    name = "babbler" if connected else "rattler"
    certificate = house.authority.issue(name)
    at, begin = house.alice.log_size(), time.monotonic()
    for i in range(40):
        with Member(house.mallory, house.alice.machine.ip4, certificate) as member:
            member.expect(HELLO)
            member.send(hello())
            if connected:
                member.expect(READY)
                member.send(message(READY))
            member.send(message(0x800A, b"\0\x01" + f"reason {i}".encode()))
            wait_for(lambda i=i: f"reason {i}" in house.alice.peer(name)["last_error"], what=f"reason {i}")
    lines, seconds = len(re.findall(f"peer {name}", house.alice.log(at))), time.monotonic() - begin
    assert 1 <= lines <= LOG_BURST + LOG_PER_SECOND * seconds + 1, f"{lines} lines in {seconds:.1f} s"
