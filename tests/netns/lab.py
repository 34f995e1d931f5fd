# SPDX-License-Identifier: MIT
"""
The laboratory: network namespaces as machines, a network between them, real daemons in them.

    namespace sml<pid>-N-alice                                     namespace sml<pid>-N-bob
    [ smesh0 10.7.0.1/24, ULA ]                                    [ smesh0 10.7.0.2/24, ULA ]
          | TAP                                                          | TAP
      shadowmesh                                                     shadowmesh
          | TCP 8443, UDP 9443                                           |
    [ eth0 198.51.100.1/24, 2001:db8::1/64 ]                       [ eth0 198.51.100.2/24, ... ]
          |                                                              |
          | veth, or tests/tools/impair as a bad wire                    | veth
          |             namespace sml<pid>-N-internet                    |
          +------- [ alice ] ======== bridge br0 ======== [ bob ] -------+
                                        |
                                     [ carol ] ...

The i-th machine of a laboratory has the host part i, below and above. Machines may hold several
daemons (two networks on one machine), or none (strangers, attackers, hosts behind a bridge: those are
joined to a machine by Lab.cable()).

    with Lab() as lab:                      # or the fixture "lab" of conftest.py
        alice, bob = lab.mesh("alice", "bob")
        assert ping(alice, bob.ip4).lost == 0

Lab.close() ends what runs and then demands of every daemon that it ended with status 0, that its
interface and its socket are gone and that its locks are free. Nothing here sleeps for a fixed
time: wait_for() polls status and logs. Timeouts are given in seconds of a fast build and multiplied
by SM_SLOW (default 1, with a sanitizer 4). SM_TEST_OFFLOAD=no switches offloads off in all daemons.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import glob
import hashlib
import ipaddress
import itertools
import json
import mmap
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

SOURCE = os.path.realpath(os.environ.get("SM_SOURCE") or os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.realpath(os.environ.get("SM_BUILD") or os.path.join(SOURCE, "build"))
SHADOWMESH = os.path.join(BUILD, "shadowmesh")
IMPAIR = os.environ.get("IMPAIR") or os.path.join(BUILD, "tests", "tools", "impair")
SANITIZED = re.search(r"[at]san", os.path.basename(BUILD)) is not None
SLOW = float(os.environ.get("SM_SLOW") or (4 if SANITIZED else 1))
OFFLOAD = os.environ.get("SM_TEST_OFFLOAD")  # "no": for all daemons that do not say otherwise

NETWORK = "home"
CONTROL_PORT, DATA_PORT = 8443, 9443
EXPERIMENTAL = 0x88B5  # EtherType for local experiments, IEEE 802
ETH_P_ALL = 3

CLONE_NEWNET = 0x40000000
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
SO_RCVBUFFORCE = 33
PR_SET_PDEATHSIG = 1
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x10, 0x40

libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count(1)
idents = itertools.count(os.getpid())  # of ICMP echoes
TICKS = 10000     # a second
STALL = 100       # ticks by which a sleeper may wake too late


# --- waiting ---


def watch_stalls():
    """Starts a process on each CPU that sleeps 10 ms at a time and adds up by how much it woke too late.

    On a virtual machine that shares its CPUs, seconds may pass in which nothing runs. They say nothing
    about the daemons, and must not count against them. A stall that is not over yet counts too: behind it we
    may run sooner than they do. So the time that this gives a function for may stand still, but never goes
    back.
    """
    cpus = sorted(os.sched_getaffinity(0))
    begin, parent = time.monotonic(), os.getpid()
    # For each CPU how late it has been in all and when it wants to wake next, in one number that is written at
    # once: what stands there may be read at any moment, and the writer be interrupted at any.
    shared = memoryview(mmap.mmap(-1, 8 * len(cpus))).cast("Q")

    def ticks():
        return (time.monotonic() - begin) * TICKS

    for index in range(len(cpus)):
        shared[index] = TICKS
    for index, cpu in enumerate(cpus):
        if os.fork() == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})
            total, woken = 0, int(ticks())
            while os.getppid() == parent:
                due = woken + STALL
                shared[index] = total << 32 | due
                time.sleep(STALL / TICKS)
                woken = int(ticks())
                total += max(0, woken - due - STALL)
            os._exit(0)

    def running():
        read = shared.tolist()
        at = ticks()  # behind what was read: or it could go back
        return (at - max((one >> 32) + max(0, at - (one & 0xFFFFFFFF) - STALL) for one in read)) / TICKS

    return running


now = watch_stalls()  # Seconds for which this machine has run: time.monotonic() without the stalls


def wait_for(condition, timeout=5.0, what="", interval=0.01):
    """Calls condition() until it gives something true, and gives that; an AssertionError after timeout."""
    end = now() + timeout * SLOW
    while True:
        result = condition()
        if result:
            return result
        assert now() < end, f"waited {timeout * SLOW:g} s for {what or condition}"
        time.sleep(interval)
        interval = min(interval * 1.2, 0.05)


def sh(*args, timeout=20, check=True, **options):
    """Runs a command; gives what it printed, both streams together."""
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout * SLOW, check=False,
                          **options)
    assert not check or done.returncode == 0, f"{' '.join(args)}: {done.returncode}: {done.stdout}"
    return done.stdout


# --- machines ---


def setns(fd):
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


class Machine:
    """A network namespace with a name, a runtime directory, and an address in the internet."""

    def __init__(self, lab, name, number):
        self.lab, self.name, self.number = lab, name, number
        self.netns = f"{lab.tag}-{name}"
        self.runtime = os.path.join(lab.tmp, name)
        self.ip4 = self.ip6 = None  # of the underlay
        os.makedirs(self.runtime, exist_ok=True)
        sh("ip", "netns", "add", self.netns)
        # No duplicate address detection: it costs 1.4 s. Frames in a bridge do not meet nftables.
        self.sh("sh", "-c",
                "ip link set lo up; cd /proc/sys/net; for i in all default; do"
                " echo 0 >ipv6/conf/$i/accept_dad; echo 0 >ipv6/conf/$i/router_solicitations;"
                " echo 0 >ipv4/conf/$i/rp_filter; done;"
                " for i in bridge/bridge-nf-call-*; do [ ! -e $i ] || echo 0 >$i; done")

    def __repr__(self):
        return f"<{self.name}>"

    def prefix(self):
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--"]

    def env(self):
        return dict(os.environ, SHADOWMESH_RUNTIME_DIR=self.runtime)

    def sh(self, *args, **options):
        options.setdefault("env", self.env())
        return sh(*self.prefix(), *args, **options)

    def ip(self, command, **options):
        """ip("addr add 10.0.0.1/24 dev eth0")"""
        return sh("ip", "-n", self.netns, *command.split(), **options)

    def ip_json(self, command):
        return json.loads(sh("ip", "-n", self.netns, "-json", "-details", *command.split()) or "[]")

    def links(self):
        return [link["ifname"] for link in self.ip_json("link show")]

    def segment(self, ifname="eth0"):
        """From now on what it sends is cut as for a wire: a capture sees datagrams, not what the kernel
        hands over in one piece (UDP_SEGMENT, TSO)."""
        self.sh("ethtool", "-K", ifname, "tso", "off", "gso", "on", "tx-udp-segmentation", "off")

    def popen(self, *args, **options):
        """Starts a command that dies with us, and is ended by Lab.close()."""
        options.setdefault("env", self.env())
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen([*self.prefix(), "setpriv", "--pdeathsig", "KILL", "--", *args],
                                   **options)
        self.lab.processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self):
        """This thread is in the namespace; sockets made here stay there."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.netns}") as there:
            setns(there.fileno())
            try:
                yield
            finally:
                setns(home.fileno())

    def socket(self, *args, timeout=10.0):
        with self.inside():
            sock = socket.socket(*args)
        sock.settimeout(timeout * SLOW)
        self.lab.files.append(sock)
        return sock

    def raw(self, ifname="smesh0", ethertype=ETH_P_ALL, **options):
        return RawPort(self, ifname, ethertype, **options)

    def cli(self, *args, timeout=20, stdin=None):
        """Runs shadowmesh here; gives subprocess.CompletedProcess with text in stdout and stderr."""
        return subprocess.run([*self.prefix(), SHADOWMESH, *args], input=stdin, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env(),
                              timeout=timeout * SLOW, check=False)

    def attach(self, sock_path):
        """A control socket's full path in our runtime directory."""
        return os.path.join(self.runtime, sock_path)


class RawPort:
    """AF_PACKET on one interface. Frames come and go whole: a VLAN tag that the kernel took out of a
    received frame is put back.

    outgoing: see also what this machine sends
    """

    def __init__(self, machine, ifname, ethertype=ETH_P_ALL, outgoing=False, timeout=5.0):
        self.sock = machine.socket(socket.AF_PACKET, socket.SOCK_RAW, 0, timeout=timeout)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        if not outgoing:
            self.sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        with machine.inside():
            self.sock.bind((ifname, ethertype))
        self.timeout = timeout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, frame):
        self.sock.send(frame)

    def receive(self):
        data, ancillary, _, _ = self.sock.recvmsg(1 << 17, 256)
        for level, kind, value in ancillary:
            if level != SOL_PACKET or kind != PACKET_AUXDATA or len(value) < 20:
                continue
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
            if status & TP_STATUS_VLAN_VALID:
                tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data

    def wait(self, wanted, timeout=None):
        """The first frame for which wanted(frame) is true; an AssertionError after the timeout."""
        end = now() + (self.timeout if timeout is None else timeout) * SLOW
        seen = 0
        while True:
            if select.select([self.sock], [], [], 0.05)[0]:
                frame = self.receive()
                seen += 1
                if wanted(frame):
                    return frame
            else:
                assert now() < end, f"no such frame among the {seen} that came"

    def drain(self):
        """All frames that are there already."""
        frames = []
        while select.select([self.sock], [], [], 0)[0]:
            frames.append(self.receive())
        return frames


class Capture:
    """Everything that passes one interface, in both directions, from now on."""

    def __init__(self, machine, ifname="eth0"):
        self.frames = []
        self.port = machine.raw(ifname, outgoing=True)
        self.stop_read, self.stop_write = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            ready = select.select([self.port.sock, self.stop_read], [], [])[0]
            if self.port.sock in ready:
                self.frames.append(self.port.receive())
            elif ready:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.stop_write is not None:
            os.close(self.stop_write)
            self.stop_write = None
            self.thread.join()
            os.close(self.stop_read)
            self.port.sock.close()

    def udp(self, port=DATA_PORT):
        """Payloads of the datagrams to or from that port."""
        return [view.payload for view in map(Datagram.parse, self.frames)
                if view and port in (view.sport, view.dport)]

    def find(self, needle):
        """Frames with those bytes anywhere in them."""
        return [frame for frame in self.frames if needle in frame]

    def find_any_part(self, plain, size=16):
        """Frames with any run of that many bytes of the plaintext in them."""
        parts = {plain[i:i + size] for i in range(len(plain) - size + 1)}
        return [frame for frame in self.frames
                if any(frame[i:i + size] in parts for i in range(len(frame) - size + 1))]


@dataclasses.dataclass
class Datagram:
    """An UDP datagram in an Ethernet frame of the underlay, without fragments and options."""
    source: str
    destination: str
    sport: int
    dport: int
    payload: bytes

    @staticmethod
    def parse(frame):
        ethertype = struct.unpack_from("!H", frame, 12)[0] if len(frame) >= 42 else 0
        if ethertype == 0x0800 and frame[23] == 17:
            at = 14 + 4 * (frame[14] & 15)
            addresses = frame[26:30], frame[30:34]
        elif ethertype == 0x86DD and len(frame) >= 62 and frame[20] == 17:
            at = 54
            addresses = frame[22:38], frame[38:54]
        else:
            return None
        sport, dport, length = struct.unpack_from("!HHH", frame, at)
        return Datagram(*(str(ipaddress.ip_address(a)) for a in addresses), sport, dport,
                        frame[at + 8:at + length])


# --- identities ---


class Authority:
    """A CA and the certificates that it issued, made once a session by the program itself."""

    made = {}
    folder = None

    @classmethod
    def get(cls, network=NETWORK):
        """The CA of a network; the same one in all tests."""
        if cls.folder is None:
            cls.folder = tempfile.mkdtemp(prefix="sm-ca-")
            atexit.register(shutil.rmtree, cls.folder, ignore_errors=True)
        if network not in cls.made:
            cls.made[network] = cls(network, os.path.join(cls.folder, network))
        return cls.made[network]

    def __init__(self, network, folder):
        self.network, self.folder = network, folder
        self.nodes = {}
        sh(SHADOWMESH, "ca", "init", network, "--dir", folder)
        self.certificate = os.path.join(folder, "ca.pem")
        self.crl = os.path.join(folder, "crl.pem")

    def run(self, command, *args):
        """shadowmesh ca COMMAND on this CA's folder"""
        return sh(SHADOWMESH, "ca", command, "--dir", self.folder, *args)

    def issue(self, name, *options, fresh=False):
        """(certificate, key) of a node; the same for the same name and options, unless fresh.

        --force: tests give one address to many names, if never in one network at a time.
        """
        known = (name, *options)
        if fresh or known not in self.nodes:
            folder = os.path.join(self.folder, "nodes", str(next(numbers)))
            os.makedirs(folder)
            self.run("issue", name, "--out", folder, "--force", *options)
            files = os.path.join(folder, name + ".pem"), os.path.join(folder, name + ".key")
            if fresh:
                return files
            self.nodes[known] = files
        return self.nodes[known]


def fingerprint(path):
    """Of the public key in a certificate or key file: 64 hexadecimal digits."""
    return re.search(r"\b[0-9a-f]{64}\b", sh(SHADOWMESH, "fingerprint", path))[0]


# --- daemons ---


class Daemon:
    """One shadowmesh in one machine, with its configuration.

    sections: {"Transport": {"Workers": 2}, ...}, written over the defaults; None removes a key.
    peers: for each a dict of its [Peer] section, {"Name": "bob", "Endpoint": ["198.51.100.2:8443"]}
    """

    def __init__(self, lab, machine, name, network=NETWORK, sections=None, peers=(), env=None):
        self.lab, self.machine, self.name, self.network = lab, machine, name, network
        self.peers_conf = list(peers)
        self.folder = tempfile.mkdtemp(prefix=f"{network}-{name}-", dir=lab.tmp)
        self.config_path = os.path.join(self.folder, network + ".conf")
        self.log_path = os.path.join(self.folder, "stderr")
        self.notify_path = os.path.join(self.folder, "notify")
        self.socket_path = os.path.join(machine.runtime, network + ".sock")
        self.extra_env = dict(env or {})
        self.process = None
        self.notify = None
        self.notified = []
        self.persistent = False  # the interface is there before and after
        self.expected_exit = 0   # what close() wants; None: anything
        self.exits = []
        self.sections = {
            "Network": {"Name": network},
            "Node": {},
            "Interface": {"Name": "smesh0"},
            "Transport": {"Offload": OFFLOAD or None},
            "Log": {"Level": "debug"},
        }
        for section, keys in (sections or {}).items():
            self.sections.setdefault(section, {}).update(keys)

    def __repr__(self):
        return f"<{self.name} of {self.network}>"

    # configuration

    def configure(self, section, **keys):
        self.sections.setdefault(section, {}).update(keys)
        self.write_config()

    def write_config(self):
        lines = []
        for section, keys in self.sections.items():
            lines += ["", f"[{section}]"] + self.config_lines(keys)
        for peer in self.peers_conf:
            lines += ["", "[Peer]"] + self.config_lines(peer)
        fresh = self.config_path + ".new"
        with open(fresh, "w") as file:
            file.write("\n".join(lines[1:]) + "\n")
        os.rename(fresh, self.config_path)

    @staticmethod
    def config_lines(keys):
        return [f"{key} = {one}" for key, value in keys.items() if value is not None
                for one in (value if isinstance(value, (list, tuple)) else [value])]

    @property
    def ifname(self):
        return self.sections["Interface"]["Name"]

    # start and end

    def start(self, wait=True, wrapper=(), arguments=()):
        """Runs `shadowmesh up` in the foreground; with wait until it says READY=1.

        wrapper: a command in front, as ("strace", "-f")
        """
        assert self.process is None or self.process.poll() is not None, "is running already"
        self.write_config()
        self.notified = []
        if self.notify:
            self.notify.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.notify_path)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.notify_path)
        env = dict(self.machine.env(), NOTIFY_SOCKET=self.notify_path, **self.extra_env)
        with open(self.log_path, "ab") as log:
            self.process = self.machine.popen(*wrapper, SHADOWMESH, "up", "-c", self.config_path,
                                              *arguments, env=env, stdout=log, stderr=log)
        if self not in self.lab.daemons:
            self.lab.daemons.append(self)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=10):
        self.wait_notify("READY=1", timeout)

    def wait_notify(self, wanted, timeout=10):
        """Waits for a line of sd_notify(3)."""
        end = now() + timeout * SLOW
        while wanted not in self.notified:
            ready = select.select([self.notify], [], [], 0.05)[0]
            if ready:
                self.notified += self.notify.recv(4096).decode().splitlines()
                continue
            if self.process.poll() is not None:
                self.expected_exit = None
                raise AssertionError(f"{self} ended with {self.process.returncode}:\n{self.log()[-2000:]}")
            assert now() < end, f"{self} did not say {wanted}:\n{self.log()[-2000:]}"

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=10):
        """Waits for the end; gives the exit code (or minus the signal)."""
        code = self.process.wait(timeout * SLOW)
        self.exits.append(code)
        return code

    def stop(self, timeout=10):
        """SIGTERM, and the end it must come to."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        assert code == 0, f"{self} ended with {code} after SIGTERM:\n{self.log()[-2000:]}"
        self.check_gone()

    def kill(self):
        """SIGKILL: no last words."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def restart(self, **options):
        if self.running():
            self.stop()
        return self.start(**options)

    def refuse(self, timeout=10):
        """Starts it and wants it to refuse; gives what it logged."""
        position = self.log_size()
        self.start(wait=False)
        code = self.wait(timeout)
        self.expected_exit = None
        assert code == 1, f"{self} ended with {code}, 1 was wanted"
        return self.log(position)

    def check_gone(self):
        """After its end: no interface, no socket, no lock is left."""
        assert self.persistent == (self.ifname in self.machine.links()), (
            f"{self}: interface {self.ifname}: {self.machine.links()}")
        assert not os.path.exists(self.socket_path), f"{self}: {self.socket_path} is left"

    # what it says

    def log_size(self):
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(self.log_path)
        return 0

    def log(self, position=0):
        with contextlib.suppress(FileNotFoundError):
            with open(self.log_path, "rb") as file:
                file.seek(position)
                return file.read().decode(errors="replace")
        return ""

    def wait_log(self, pattern, timeout=5, position=0):
        """Waits for a match of the regular expression behind position; gives the match."""
        return wait_for(lambda: re.search(pattern, self.log(position)), timeout,
                        f"{self} to log {pattern!r}")

    def ask(self, command, timeout=10, **arguments):
        """One request at the control socket; gives the result, an AssertionError for an error."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout * SLOW)
            sock.connect(self.socket_path)
            sock.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                more = sock.recv(1 << 20)
                assert more, f"{self} hung up"
                answer += more
        answer = json.loads(answer.splitlines()[0])
        assert answer["ok"], f"{self}: {command}: {answer}"
        return answer.get("result", {})

    def status(self, **arguments):
        return self.ask("status", **arguments)

    def peers(self):
        """{name: entry}"""
        return {peer["name"]: peer for peer in self.ask("peers")["peers"]}

    def peer(self, other):
        """The entry of a peer, by its name or daemon; None if it is not known."""
        return self.peers().get(other if isinstance(other, str) else other.name)

    def is_up(self, other):
        entry = self.peer(other)
        return entry is not None and entry["state"] == "up"

    def counters(self):
        return self.status()["counters"]

    def drops(self):
        """{reason: frames}, those that are not zero; but for what tells TCP to slow down on a busy machine"""
        return {name: n for name, n in self.counters()["drops"].items() if n and name != "standing_queue"}

    def wait_up(self, *others, timeout=10):
        """Waits until there is a session with all those that answers."""
        for other in others:
            wait_for(lambda other=other: self.is_up(other), timeout, f"{self}: {other} up")

    # addresses of the overlay

    def overlay(self, family):
        """Its first address of that family in the overlay, without prefix length."""
        for text in self.status()["interface"]["addresses"]:
            one = ipaddress.ip_interface(text)
            if one.version == family and not one.is_link_local:
                return str(one.ip)
        raise AssertionError(f"{self} has no IPv{family} address")

    @property
    def ip4(self):
        return self.overlay(4)

    @property
    def ip6(self):
        return self.overlay(6)

    @property
    def mac(self):
        return bytes.fromhex(self.status()["interface"]["mac"].replace(":", ""))

    def cli(self, command, *args, **options):
        """shadowmesh COMMAND NETWORK ARGS... against this daemon"""
        return self.machine.cli(command, self.network, *args, **options)

    def raw(self, ethertype=ETH_P_ALL, **options):
        return self.machine.raw(self.ifname, ethertype, **options)

    def socket(self, *args, **options):
        return self.machine.socket(*args, **options)


# --- the wire with impairments ---


class Impair:
    """tests/tools/impair between two namespaces; settings change while it runs."""

    def __init__(self, lab, a, a_name, b, b_name, options=(), mtu=1500):
        self.unread = b""
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", IMPAIR, "--a", a_name, "--netns-a", a.netns,
             "--b", b_name, "--netns-b", b.netns, "--mtu", str(mtu), "--json", "--control", "-",
             *map(str, options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        lab.processes.append(self.process)
        self.seed = self.line().split()[1]
        assert self.line() == "ready"

    def line(self):
        while b"\n" not in self.unread:
            assert select.select([self.process.stdout], [], [], 10 * SLOW)[0], "impair is silent"
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"impair ended: {self.process.stderr.read().decode()}"
            self.unread += more
        line, self.unread = self.unread.split(b"\n", 1)
        return line.decode()

    def say(self, command):
        """A command of its manual, as "set a2b loss 5%", "down" or "unplug"; gives the answer."""
        self.process.stdin.write(command.encode() + b"\n")
        lines = [self.line()]
        while lines[-1] != "ok":
            assert not lines[-1].startswith("error:"), f"impair: {command}: {lines[-1]}"
            lines.append(self.line())
        return "\n".join(lines[:-1])

    def stats(self):
        return json.loads(self.say("stats"))


# --- the laboratory ---


class Lab:
    """Makes it all, and takes it away again whatever happens."""

    everything = []  # since the last test began; conftest.py prints their logs

    def __init__(self):
        self.tag = f"sml{os.getpid()}-{next(numbers)}"
        self.tmp = tempfile.mkdtemp(prefix=f"sm-lab{os.getpid()}-")
        self.machines = {}
        self.daemons = []
        self.processes = []
        self.files = []
        self.bridge = None  # the machine "internet"
        self.wires = {}     # Impair by machine name
        self.kept_logs = None
        Lab.everything.append(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(check=kind is None)

    # building

    def machine(self, name):
        """A machine that is joined to nothing yet, or the one that has this name."""
        if name not in self.machines:
            number = sum(1 for m in self.machines.values() if m.number) + 1
            self.machines[name] = Machine(self, name, number if name != "internet" else 0)
        return self.machines[name]

    def internet(self, *names, families=(4, 6), mtu=1500, impair=None):
        """Machines with those names, joined by one bridge; gives them.

        impair: options of tests/tools/impair for their wires to the bridge; side a is the machine's,
                so that a2b is what it sends. The wires are in self.wires by name.
        """
        if self.bridge is None:
            self.bridge = self.machine("internet")
            self.bridge.ip("link add br0 type bridge stp_state 0 forward_delay 0")
            self.bridge.ip(f"link set br0 mtu {mtu} up")
        machines = [self.plug(self.machine(name), families, mtu, impair) for name in names]
        if impair is not None:
            # ARP has no checksum: what a bad wire made of an answer would be believed
            for a, b in itertools.permutations((m for m in machines if m.ip4), 2):
                mac = b.ip_json("link show eth0")[0]["address"]
                a.ip(f"neigh replace {b.ip4} lladdr {mac} dev eth0 nud permanent")
        return machines

    def plug(self, machine, families=(4, 6), mtu=1500, impair=None):
        """Joins one machine to the bridge as eth0."""
        port = machine.name[:15]
        if impair is not None:
            self.wires[machine.name] = Impair(self, machine, "eth0", self.bridge, port, impair, mtu)
        else:
            machine.ip(f"link add eth0 mtu {mtu} type veth peer name {port} mtu {mtu}"
                       f" netns {self.bridge.netns}")
        self.bridge.ip(f"link set {port} master br0 up")
        machine.ip("link set eth0 up")
        if 4 in families:
            machine.ip4 = f"198.51.100.{machine.number}"
            machine.ip(f"addr add {machine.ip4}/24 dev eth0")
        else:
            machine.ip("addr flush dev eth0 scope global", check=False)
        if 6 in families:
            machine.ip6 = f"2001:db8::{machine.number:x}"
            machine.ip(f"addr add {machine.ip6}/64 dev eth0 nodad")
        else:
            machine.sh("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        return machine

    def unplug(self, machine):
        """Takes the cable out at the far end: the machine's eth0 loses its carrier."""
        self.bridge.ip(f"link set {machine.name[:15]} down")

    def replug(self, machine):
        self.bridge.ip(f"link set {machine.name[:15]} up")

    @staticmethod
    def cable(a, a_name, b, b_name, mtu=1500):
        """A veth pair between two machines, both ends up."""
        a.ip(f"link add {a_name} mtu {mtu} type veth peer name {b_name} mtu {mtu} netns {b.netns}")
        a.ip(f"link set {a_name} up")
        b.ip(f"link set {b_name} up")

    def endpoint(self, machine, port=CONTROL_PORT):
        """Where a machine's control port is, for a [Peer] section."""
        return f"{machine.ip4}:{port}" if machine.ip4 else f"[{machine.ip6}]:{port}"

    def daemon(self, machine, name=None, network=NETWORK, sections=None, peers=(), authority=None,
               issue=(), address=None, env=None):
        """A daemon with a certificate of the network's CA, not started yet.

        peers:   names of machines (their endpoint is filled in), or dicts of [Peer]
        issue:   more options for `ca issue`
        address: in the certificate; by default 10.7.0.N/24 of the N-th machine; () for none
        """
        name = name or machine.name
        authority = authority or Authority.get(network)
        if address is None:
            address = f"10.7.0.{machine.number}/24"
        for one in [address] if isinstance(address, str) else address:
            issue = (*issue, "--address", one)
        certificate, key = authority.issue(name, *issue)
        daemon = Daemon(self, machine, name, network, env=env, peers=map(self.peer_section, peers),
                        sections={"Network": {"CA": authority.certificate},
                                  "Node": {"Certificate": certificate, "PrivateKey": key}})
        for section, keys in (sections or {}).items():
            daemon.sections.setdefault(section, {}).update(keys)
        return daemon

    def peer_section(self, peer):
        if isinstance(peer, dict):
            return peer
        return {"Name": peer, "Endpoint": self.endpoint(self.machines[peer])}

    def mesh(self, *names, families=(4, 6), mtu=1500, impair=None, sections=None, each=None,
             peers=None, start=True, **options):
        """Machines in the internet with a daemon each, all connected; gives the daemons.

        each:  {name: sections} beside the sections for all
        peers: {name: peers that it has in its configuration}; by default all the others
        """
        machines = self.internet(*names, families=families, mtu=mtu, impair=impair)
        daemons = []
        for machine in machines:
            known = (peers or {}).get(machine.name, [n for n in names if n != machine.name])
            daemon = self.daemon(machine, sections=sections, peers=known, **options)
            for section, keys in ((each or {}).get(machine.name) or {}).items():
                daemon.sections.setdefault(section, {}).update(keys)
            daemons.append(daemon)
        if start:
            for daemon in daemons:
                daemon.start(wait=False)
            for daemon in daemons:
                daemon.wait_ready()
            if peers is None:
                self.wait_mesh(*daemons)
        return daemons

    @staticmethod
    def wait_mesh(*daemons, timeout=15):
        """Waits until each of them has a session with each other one."""
        for a, b in itertools.permutations(daemons, 2):
            a.wait_up(b, timeout=timeout)

    # the end

    def logs(self):
        """[(title, text)] of all daemons, also after the end."""
        if self.kept_logs is not None:
            return self.kept_logs
        return [(f"{daemon} pid {daemon.process.pid if daemon.process else '-'}", daemon.log())
                for daemon in self.daemons]

    def end_daemons(self):
        problems = []
        for daemon in self.daemons:
            if daemon.running():
                daemon.signal(signal.SIGCONT)
                daemon.signal(signal.SIGTERM)
        for daemon in self.daemons:
            if daemon.process is None or daemon.exits and not daemon.running():
                continue
            try:
                code = daemon.wait(10)
                if daemon.expected_exit not in (None, code) and code != -signal.SIGKILL:
                    problems.append(f"{daemon} ended with {code}, {daemon.expected_exit} was wanted")
                if code == 0:
                    daemon.check_gone()
            except subprocess.TimeoutExpired:
                problems.append(f"{daemon} did not end after SIGTERM")
                daemon.kill()
            except AssertionError as error:
                problems.append(str(error))
        return problems

    def check_left(self):
        """Locks that are still held, and what sanitizers found."""
        problems = []
        for path in glob.glob(self.tmp + "/*/*.lock"):
            with open(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno != errno.EWOULDBLOCK:
                        raise
                    problems.append(f"{path} is still held: {file.read()}")
        for title, text in self.logs():
            found = re.search(r"(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:).*", text)
            if found:
                problems.append(f"{title}: {found[0]}")
        return problems

    def close(self, check=True):
        """Ends what runs and removes it; with check an AssertionError tells what was left."""
        if self.kept_logs is not None:
            return
        problems = []
        try:
            problems = self.end_daemons()
            problems += self.check_left()
        finally:
            self.kept_logs = self.logs()
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe:
                        with contextlib.suppress(OSError):
                            pipe.close()
            for file in self.files:
                file.close()
            for daemon in self.daemons:
                if daemon.notify:
                    daemon.notify.close()
            for machine in self.machines.values():
                subprocess.run(["ip", "netns", "del", machine.netns], check=False,
                               stderr=subprocess.DEVNULL)
            shutil.rmtree(self.tmp, ignore_errors=True)
        assert not check or not problems, "; ".join(problems)


def close_all():
    for lab in Lab.everything:
        with contextlib.suppress(Exception):
            lab.close(check=False)


def sweep():
    """Removes namespaces and folders that a killed test run left behind; those of living runs stay."""
    for path in glob.glob("/run/netns/sml*-*"):
        owner = re.match(r"sml(\d+)-", os.path.basename(path))
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            subprocess.run(["ip", "netns", "del", os.path.basename(path)], check=False,
                           stderr=subprocess.DEVNULL)
    for path in glob.glob(os.path.join(tempfile.gettempdir(), "sm-lab*-*")):
        owner = re.match(r"sm-lab(\d+)-", os.path.basename(path))
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            shutil.rmtree(path, ignore_errors=True)


atexit.register(close_all)


# --- traffic ---


def machine_of(side):
    """A daemon's machine, or the machine itself."""
    return side.machine if isinstance(side, Daemon) else side


@dataclasses.dataclass
class Ping:
    sent: int
    received: int
    duplicates: int
    times_ms: list
    text: str

    @property
    def lost(self):
        return self.sent - self.received


class Echoes:
    """The requests of one ping() and their answers, on a raw socket."""

    def __init__(self, side, address, size, df, source):
        self.v6 = ":" in address
        self.address = address
        self.ident = next(idents) & 0xFFFF
        self.body = patterned(self.ident, size) if isinstance(size, int) else size
        self.sock = machine_of(side).socket(family_of(address), socket.SOCK_RAW,
                                            socket.IPPROTO_ICMPV6 if self.v6 else socket.IPPROTO_ICMP)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        if df:
            level, option = ((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if self.v6
                             else (socket.IPPROTO_IP, IP_MTU_DISCOVER))
            self.sock.setsockopt(level, option, PMTUDISC_DO)
        if source:
            self.sock.bind((source, 0))
        self.sent_at = []
        self.answered = set()
        self.duplicates = 0
        self.times_ms, self.lines = [], []

    def send(self):
        number = len(self.sent_at) + 1
        packet = struct.pack("!BBHHH", 128 if self.v6 else 8, 0, 0, self.ident, number) + self.body
        if not self.v6:  # else the kernel does it
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        self.sent_at.append(time.monotonic())
        try:
            self.sock.sendto(packet, (self.address, 0))
        except OSError as error:
            self.lines.append(f"{number}: cannot be sent: {error}")

    def receive(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self.sock.recvfrom(1 << 17)
                if not self.v6:
                    data = data[4 * (data[0] & 15):]
                self.take(data, source[0])

    def take(self, data, source):
        if data[0] == (1 if self.v6 else 3):
            self.lines.append(f"{source} says: Unreachable, code {data[1]}")
        kind, ident, number = data[0], *struct.unpack_from("!HH", data, 4)
        if kind != (129 if self.v6 else 0) or ident != self.ident or not 0 < number <= len(self.sent_at):
            return
        assert data[8:] == self.body, f"the answer {number} of {source} has other bytes"
        if number in self.answered:
            self.duplicates += 1
            self.lines.append(f"{number}: answered again")
            return
        self.answered.add(number)
        self.times_ms.append((time.monotonic() - self.sent_at[number - 1]) * 1000)
        self.lines.append(f"{number}: {self.times_ms[-1]:.3f} ms")


PING_WINDOW = 60  # frames on their way at most: several of them share a card's queue of 500


def ping(side, address, count=5, interval=0.01, size=56, df=False, deadline=5, source=None):
    """ICMP echo from a daemon's or another machine to an address of either family.

    Exactly count requests go out, a window of them at once, and each answer has deadline seconds behind the last of them to come. That
    ping(8) cannot do: with -W it waits for twice the round-trip time after its last request, which is too
    short on a busy machine, and with -w it sends more until count answers came, whichever those are.

    size: of the contents, or the contents themselves
    """
    echoes = Echoes(side, address, size, df, source)
    window = max(1, PING_WINDOW // -(-len(echoes.body) // 1400))
    due = end = now()
    with echoes.sock:
        while len(echoes.answered) < count:
            at = now()
            sent = len(echoes.sent_at)
            if sent < count and at >= due and (sent - len(echoes.answered) < window or at >= end):
                echoes.send()
                end = now() + (deadline if sent + 1 == count else min(deadline, 1)) * SLOW
                due = now() + interval
            elif sent == count and at >= end:
                break
            if select.select([echoes.sock], [], [], min(0.05, max(0.0005, due - at)))[0]:
                echoes.receive()
    return Ping(count, len(echoes.answered), echoes.duplicates, echoes.times_ms,
                f"{count} to {address}:\n" + "\n".join(echoes.lines))


def checksum(data):
    """That of IP, ICMP and UDP (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def patterned(seed, size):
    """Bytes that compress badly and repeat nowhere."""
    return random.Random(seed).randbytes(size)


def tcp_both_ways(a, b, address, mbytes=50, port=5001, timeout=60):
    """Sends mbytes from a to b and from b to a at once over one connection to b's address, compares
    SHA-256 sums; gives the seconds it took."""
    listener = machine_of(b).socket(family_of(address), socket.SOCK_STREAM, timeout=timeout)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1)
    client = machine_of(a).socket(family_of(address), socket.SOCK_STREAM, timeout=timeout)
    client.connect((address, port))
    server, _ = listener.accept()
    server.settimeout(timeout * SLOW)
    sums, problems = {}, []

    def send(sock, name):
        block = patterned(name, (1 << 20) + 13)
        total = hashlib.sha256()
        try:
            for _ in range(mbytes):
                sock.sendall(block)
                total.update(block)
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            problems.append(f"{name} cannot send: {error}")
        sums[name, "sent"] = total.hexdigest()

    def receive(sock, name):
        total, count = hashlib.sha256(), 0
        try:
            while block := sock.recv(1 << 18):
                total.update(block)
                count += len(block)
        except OSError as error:
            problems.append(f"from {name} came {count} bytes, then: {error}")
        sums[name, "received"] = total.hexdigest()

    begin = time.monotonic()
    threads = [threading.Thread(target=send, args=(client, "a")),
               threading.Thread(target=send, args=(server, "b")),
               threading.Thread(target=receive, args=(server, "a")),
               threading.Thread(target=receive, args=(client, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sock in (client, server, listener):
        sock.close()
    assert not problems, problems
    for name in "ab":
        assert sums[name, "sent"] == sums[name, "received"], f"what {name} sent arrived changed"
    return time.monotonic() - begin


CARD_QUEUE = 400  # frames: less than the card's, 500, which the kernel's own share


def udp_numbered(a, b, address, count=200, size=1000, port=5002, pause=0.0005, window=CARD_QUEUE):
    """Sends numbered datagrams from a to b's address; gives the numbers in the order of arrival.

    A datagram that arrived with other contents is an AssertionError. The neighbour is resolved first: the
    kernel lets a datagram overtake those that wait for ARP. On a bad wire that takes more than one echo.

    window: so many frames are on their way at most, since the kernel drops what does not fit into the card's
    queue while the daemon waits for a CPU. After a second in which nothing came they count as lost.
    """
    wait_for(lambda: ping(a, address, count=1, deadline=1).received, 10, f"an answer of {address}")
    receiver = machine_of(b).socket(family_of(address), socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    receiver.bind((address, port))
    sender = machine_of(a).socket(family_of(address), socket.SOCK_DGRAM)
    body = patterned("udp", size)
    window //= -(-size // 1400)
    arrived, lost = [], 0

    def receive(wanted):
        """Until so many have come; False if there was nothing for a second."""
        heard = now()
        while len(arrived) < wanted:
            if select.select([receiver], [], [], 0.05)[0]:
                data = receiver.recv(1 << 16)
                assert data[4:] == body[4:]
                arrived.append(struct.unpack_from("!I", data)[0])
                heard = now()
            elif now() - heard > 1.0 * SLOW:
                return False
        return True

    with sender, receiver:
        for i in range(count):
            sender.sendto(struct.pack("!I", i) + body[4:], (address, port))
            time.sleep(pause)
            if not receive(i + 1 - lost - window):
                lost = i + 1 - len(arrived)
        receive(count)
    return arrived


def iperf3(a, b, address, *options, seconds=2, port=5201):
    """iperf3 from a to b's address; gives its JSON report."""
    server = machine_of(b).popen("iperf3", "-s", "-1", "-p", str(port), stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: f":{port:04X} " in machine_of(b).sh("cat", "/proc/net/tcp", "/proc/net/tcp6"),
             what="iperf3 to listen")
    text = machine_of(a).sh("iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J",
                            *options, timeout=seconds + 20)
    server.wait(10 * SLOW)
    return json.loads(text[text.index("{"):])  # behind a warning that a datagram is longer than the MSS


def neighbour(side, address, ifname="smesh0"):
    """What `ip neigh` knows about an address: {"state": ["REACHABLE"], "lladdr": ...}, or {}"""
    found = machine_of(side).ip_json(f"neigh show {address} dev {ifname}")
    return found[0] if found else {}
