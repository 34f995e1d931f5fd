# SPDX-License-Identifier: MIT
"""The commands that talk to a daemon, against one that is a few lines of Python.

What is under test is the client: which socket it takes, what it asks, how it prints
answers that are whole, incomplete or hostile, and with what code it ends.
"""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading

import pytest

PROGRAM = os.path.join(os.environ["SM_BUILD"], "shadowmesh")

STATUS = {
    "network": "home", "network_id": "00112233445566778899aabbccddeeff", "mode": "tap",
    "version": "0.1.0", "pid": 4711, "uptime_us": 3 * 3600 * 10**6 + 120 * 10**6,
    "node": {"name": "alice", "id": "a1b2", "mac": "02:00:00:00:00:01",
             "addresses": ["10.7.0.1/24"],
             "certificate": {"not_after": 1893456000, "days_left": 364,
                             "fingerprint": "SHA256:abcdef"}},
    "interface": {"name": "sm0", "ifindex": 7, "mtu": 1400, "mac": "02:00:00:00:00:01",
                  "addresses": ["10.7.0.1/24", "fd00::1/64"]},
    "transport": {"control_port": 8443, "data_port": 9443, "workers": 2,
                  "listen": ["[::]:8443"], "cipher_hardware": True},
    "peers": {"total": 3, "up": 2},
    "counters": {"tap_read_frames": 12, "tap_read_bytes": 1500000, "tap_write_frames": 34,
                 "tap_write_bytes": 2500000, "udp_send_packets": 56, "udp_send_bytes": 1600000,
                 "udp_receive_packets": 78, "udp_receive_bytes": 2600000,
                 "drops": {"replayed": 5, "no-peer": 0, "forged": 2}},
    "control": {"accepted": 9, "dialled": 7, "open": 2, "unfinished": 1, "refused": {"foreign CA": 4},
                "dial_refused": {"expired": 2, "limit": 1}, "closed_by_us": {},
                "closed_by_peer": {"revoked": 6, "lost": 8}},
    "memory_rss_bytes": 8100000, "crypto": "OpenSSL 3.5.7",
    "profile": {
        "tap-read": {"frame": {"count": 1000, "median_us": 1.25, "p99_us": 3.5, "max_us": 150},
                     "batch": {"count": 100, "median_us": 12.5, "p99_us": 35, "max_us": 1500}},
        "seal": {"frame": {"count": 0}}},
}

PEERS = {"peers": [
    {"name": "bob", "id": "b0", "port": 1, "state": "up", "since_us_ago": 61 * 10**6,
     "addresses": ["10.7.0.2"], "mac": "02:00:00:00:00:02",
     "path": {"remote": "192.0.2.2:9443", "local": "192.0.2.1", "rtt_us": 412, "mtu": 1452,
              "kind": "direct", "last_received_us_ago": 5},
     "session": {"index": 1, "epoch": 2, "cipher": "AES-256-GCM"},
     "counters": {"tx_frames": 1, "tx_bytes": 1500000, "rx_frames": 2, "rx_bytes": 2500000,
                  "lost": 3}},
    {"name": "carol", "state": "connecting", "last_error": "certificate has expired"},
]}


class Daemon(threading.Thread):
    """Serves one socket. answers: command -> list of lines (objects or bytes)"""

    def __init__(self, path, answers, after=None):
        super().__init__(daemon=True)
        self.requests = []
        self.gone = threading.Event()
        self.answers = answers
        self.after = after
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.serve(connection)

    def serve(self, connection):
        with connection.makefile("rwb") as stream:
            for line in stream:
                request = json.loads(line)
                self.requests.append(request)
                for answer in self.answers[request["command"]]:
                    if not isinstance(answer, bytes):
                        answer = json.dumps(answer).encode() + b"\n"
                    stream.write(answer)
                    stream.flush()
                if self.after == "close":
                    return
        self.gone.set()

    def stop(self):
        # wakes accept(), which close() alone does not
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join(10)


def ok(result):
    return {"ok": True, "result": result}


@pytest.fixture
def run(tmp_path):
    def run(*args, env=None, **more):
        full = {**os.environ, "SHADOWMESH_RUNTIME_DIR": str(tmp_path), "TZ": "UTC", **(env or {})}
        return subprocess.run([PROGRAM, *args], env=full, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=30, **more)
    return run


@pytest.fixture
def daemon(tmp_path):
    daemons = []

    def start(network="home", answers=None, **more):
        daemons.append(Daemon(tmp_path / (network + ".sock"), answers or {
            "status": [ok(STATUS)], "peers": [ok(PEERS)], "reload": [ok({"note": "peers changed"})],
            "down": [ok({})]}, **more))
        return daemons[-1]
    yield start
    for item in daemons:
        item.stop()


def stale(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


# --- what is printed ---

def test_status(run, daemon):
    serving = daemon()
    result = run("status")
    assert (result.returncode, result.stderr) == (0, "")
    for text in ["home, tap", "alice", "until 2030-01-01 00:00 UTC, 364 days left", "SHA256:abcdef",
                 "process 4711", "up 3 h 2 min", "sm0 (7), MTU 1400", "10.7.0.1/24, fd00::1/64",
                 "TCP 8443, UDP 9443, 2 workers, AES in hardware", "[::]:8443", "2 of 3 up",
                 "12 frames (1.5 MB) in 56 packets (1.6 MB)",
                 "34 frames (2.5 MB) in 78 packets (2.6 MB)", "replayed 5, forged 2",
                 "9 accepted, 7 dialled, 2 open, 1 unfinished", "refused      foreign CA 4\n",
                 "dial refused expired 2, limit 1\n", "closed       by us none; by peers revoked 6, lost 8\n",
                 "8.1 MB", "OpenSSL 3.5.7"]:
        assert text in result.stdout
    assert "no-peer" not in result.stdout
    assert serving.requests == [{"command": "status", "profile": False}]


def test_one_worker(run, daemon):
    daemon(answers={"status": [ok({"transport": {"workers": 1}})]})
    assert "TCP -, UDP -, 1 worker\n" in run("status").stdout


def test_json_is_what_the_daemon_said(run, daemon):
    daemon()
    assert json.loads(run("status", "--json").stdout) == STATUS
    assert json.loads(run("peers", "home", "--json").stdout) == PEERS


def test_profile(run, daemon):
    serving = daemon()
    result = run("status", "--profile")
    assert result.returncode == 0
    assert serving.requests == [{"command": "status", "profile": True}]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["tap-read", "1000", "1.25", "3.50", "150.00", "100", "12.50", "35.00",
            "1500.00"] in rows
    assert ["seal", "0", "-", "-", "-", "-", "-", "-", "-"] in rows
    assert "microseconds" in result.stdout


def test_peers(run, daemon):
    daemon()
    result = run("peers")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert re.split("  +", lines[1].strip()) == [
        "bob", "up", "1 min 1 s", "10.7.0.2", "192.0.2.2:9443 (direct)", "0.412 ms", "1452",
        "AES-256-GCM", "1.5 MB", "2.5 MB", "3"]
    assert re.split("  +", lines[2].strip()) == ["carol", "connecting"] + ["-"] * 9
    assert lines[3] == "carol: certificate has expired"
    # the columns stand below their heads
    for name, text in [("state", "up"), ("addresses", "10.7.0.2"), ("cipher", "AES-256-GCM")]:
        assert lines[0].index(name) == lines[1].index(text)


def test_no_peers(run, daemon):
    daemon(answers={"peers": [ok({"peers": []})]})
    assert run("peers").stdout == "no peers\n"


def test_reload(run, daemon):
    daemon()
    result = run("reload", "home")
    assert (result.returncode, result.stdout) == (0, "peers changed\n")


@pytest.mark.parametrize("result", [
    {}, {"peers": None, "node": 7, "interface": [], "transport": "x", "counters": {"drops": [1]}},
    {"uptime_us": -1, "memory_rss_bytes": "many", "peers": {"total": -3, "up": 1.5}},
    {"peers": [None, 7, [], "x", {}, {"name": None, "addresses": {"a": 1}, "counters": 3,
                                      "path": {"rtt_us": "fast", "kind": 7}}]},
    {"profile": {"x": None, "y": 7, "z": {"frame": [], "batch": {"median_us": "a"}}}},
    {"profile": 5}, [], "text", None, 7,
])
def test_odd_shapes(run, daemon, result):
    line = [ok(result)]
    daemon(answers={"status": line, "peers": line, "reload": line, "ping": line + [
        ok({"seq": {}, "done": True})]})
    for args in [["status"], ["status", "--profile"], ["peers"], ["reload"]]:
        done = run(*args)
        assert (done.returncode, done.stderr) == (0, ""), args
    assert run("ping", "bob").returncode == 1
    for args in [["status", "--json"], ["peers", "--json"]]:
        done = run(*args)
        assert (done.returncode, json.loads(done.stdout)) == (0, result)


def test_hostile_text(run, daemon):
    evil = "x\x1b]0;owned\x07\r\n\x9b31m\u202etxt" + "y" * 5000
    peers = {"peers": [{"name": evil, "state": evil, "last_error": evil, "addresses": [evil] * 9,
                        "path": {"remote": evil, "kind": evil}}]}
    status = {"network": evil, "node": {"name": evil}, "counters": {"drops": {evil: 1}},
              "profile": {evil: {}}}
    daemon(answers={"peers": [ok(peers)], "status": [ok(status)],
                    "reload": [{"ok": False, "error": evil}]})
    for args in [["peers"], ["status"], ["status", "--profile"], ["reload"], ["peers", "--json"]]:
        done = run(*args)
        for bad in "\x1b\x07\r\x9b\u202e":
            assert bad not in done.stdout + done.stderr, args
    assert run("peers").stdout.count("\n") == 3


# --- ping ---

def reply(seq, rtt_us, **more):
    return ok({"seq": seq, "rtt_us": rtt_us, "path": {"remote": "192.0.2.2:9443",
                                                      "kind": "direct"}, **more})


def test_ping(run, daemon):
    serving = daemon(answers={"ping": [
        reply(1, 412), ok({"seq": 2, "timeout": True}),
        reply(3, 1600, done=True, sent=3, received=2, min_us=412, avg_us=1006, max_us=1600)]})
    result = run("ping", "-c", "3", "-i", "0.2", "-W", "500ms", "--network", "home", "bob")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "bob: seq 1, 0.412 ms, direct by 192.0.2.2:9443",
        "no answer from bob: seq 2",
        "bob: seq 3, 1.600 ms, direct by 192.0.2.2:9443",
        "-- bob: 3 sent, 2 answered, 33 % lost; min 0.412, avg 1.006, max 1.600 ms"]
    assert serving.requests == [{"command": "ping", "node": "bob", "count": 3,
                                 "interval_us": 200000, "timeout_us": 500000}]


def test_ping_without_answer(run, daemon):
    daemon(answers={"ping": [ok({"seq": 1, "timeout": True, "done": True})]})
    result = run("ping", "-c1", "bob")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "-- bob: 1 sent, 0 answered, 100 % lost"


def test_ping_unknown_node(run, daemon):
    daemon(answers={"ping": [{"ok": False, "error": "no node named zoe is known here",
                              "code": "not-found"}]})
    result = run("ping", "zoe")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "shadowmesh ping: no node named zoe is known here\n"


def test_ping_interrupted(daemon, tmp_path):
    serving = daemon(answers={"ping": [reply(1, 100)]})
    process = subprocess.Popen([PROGRAM, "ping", "-c", "100", "bob"], stdout=subprocess.PIPE,
                               text=True, env={**os.environ,
                                               "SHADOWMESH_RUNTIME_DIR": str(tmp_path)})
    with process:
        assert process.stdout.readline().startswith("bob: seq 1")
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ("-- bob: 1 sent, 1 answered, 0 % lost; "
                                         "min 0.100, avg 0.100, max 0.100 ms\n")
        assert process.wait(10) == 0
    assert serving.gone.wait(10)


def test_ping_daemon_ends(run, daemon):
    daemon(answers={"ping": [reply(1, 100)]}, after="close")
    result = run("ping", "bob")
    assert result.returncode == 3
    assert "has ended" in result.stderr


# --- which daemon ---

def test_none_is_running(run, tmp_path):
    for args in [["status"], ["status", "home"], ["peers"], ["down"], ["reload"], ["ping", "bob"],
                 ["status", "--socket", str(tmp_path / "no.sock")]]:
        result = run(*args)
        assert (result.returncode, result.stdout) == (3, ""), args
        assert result.stderr.startswith(f"shadowmesh {args[0]}: "), args
    result = run("status", env={"SHADOWMESH_RUNTIME_DIR": str(tmp_path / "missing")})
    assert result.returncode == 3
    assert str(tmp_path / "missing") in result.stderr


def test_stale_sockets_do_not_count(run, daemon, tmp_path):
    stale(tmp_path / "dead.sock")
    assert run("status").returncode == 3
    assert run("status", "dead").returncode == 3
    daemon("home")
    (tmp_path / "notes.txt").write_text("")
    assert run("status").returncode == 0


def test_several(run, daemon, tmp_path):
    daemon("home")
    serving = daemon("office", answers={"status": [ok({"network": "office"})]})
    result = run("status")
    assert (result.returncode, result.stdout) == (2, "")
    assert "home, office" in result.stderr
    assert "office" in run("status", "office").stdout
    assert "office" in run("status", "--socket", str(tmp_path / "office.sock")).stdout
    assert len(serving.requests) == 2


def test_names_are_no_paths(run, tmp_path):
    for name in ["../home", "a/b", "", "A", "-"]:
        assert run("status", "--", name).returncode == 2, name
    assert run("status", "home", "office").returncode == 2
    assert run("ping", "../x").returncode == 2


@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request\r\n", b"[]\n", b"{}\n",
                                  b'{"ok":1}\n', b"\xff\xfe\n", b"\n"])
def test_not_a_daemon(run, daemon, line):
    daemon(answers={"status": [line]})
    result = run("status")
    assert (result.returncode, result.stdout) == (1, "")
    assert "is not a daemon of ours" in result.stderr


def test_answer_in_pieces(run, daemon):
    text = json.dumps(ok({"network": "n" * 200000})).encode() + b"\n"
    daemon(answers={"status": [text[:1], text[1:100], text[100:]]})
    assert json.loads(run("status", "--json").stdout) == {"network": "n" * 200000}


def test_closed_without_answer(run, daemon):
    daemon(answers={"status": []}, after="close")
    assert run("status").returncode == 3


def test_refused(run, daemon):
    daemon(answers={"status": [{"ok": False, "error": "uid 7 may not", "code": "denied"}]})
    result = run("status")
    assert (result.returncode, result.stderr) == (1, "shadowmesh status: uid 7 may not\n")


def test_down_waits_for_the_end(tmp_path):
    """The kernel names the listener's process; down returns when that is gone."""
    script = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
print("ready", flush=True)
c, _ = s.accept(); c.recv(1000); c.send(b'{"ok":true,"result":{}}\\n'); c.close(); s.close()
time.sleep(0.5)
open(sys.argv[2], "w").close()
"""
    path, mark = tmp_path / "home.sock", tmp_path / "ended"
    with subprocess.Popen(["/usr/bin/python3", "-c", script, path, mark],
                          stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        result = subprocess.run([PROGRAM, "down", "home"], timeout=30, capture_output=True,
                                env={**os.environ, "SHADOWMESH_RUNTIME_DIR": str(tmp_path)})
        assert mark.exists()
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


# --- the command line ---

COMMANDS = ["up", "down", "status", "peers", "ping", "reload", "config", "config check", "ca",
            "keygen", "fingerprint", "request", "version", "help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(run, command):
    long = run(*command.split(), "--help")
    assert (long.returncode, long.stderr) == (0, "")
    assert long.stdout.startswith(f"usage: shadowmesh {command}")
    assert re.search("^[Ee]xamples?:", long.stdout, re.M)
    assert run(*command.split(), "-h").stdout == long.stdout
    assert run("help", *command.split()).stdout == long.stdout
    bad = run(*command.split(), "--no-such-option")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert all(len(line) <= 100 for line in long.stdout.splitlines())


def test_overview(run):
    result = run("--help")
    assert result.returncode == 0
    assert run("-h").stdout == run("help").stdout == result.stdout
    for command in COMMANDS:
        if " " not in command:
            assert re.search(rf"^  {command} +\S", result.stdout, re.M), command
    bare = run()
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", result.stdout)


@pytest.mark.parametrize("typed, meant", [
    ("staus", "status"), ("stat", "status"), ("pign", "ping"), ("peer", "peers"),
    ("versoin", "version"), ("relaod", "reload"), ("confg", "config"), ("xyzzy", None),
    ("q", None), ("a" * 500, None)])
def test_near_misses(run, typed, meant):
    for args in [[typed], ["help", typed]]:
        result = run(*args)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"'{typed}'" in result.stderr
        assert ("did you mean" in result.stderr) == (meant is not None)
        assert meant is None or f"'{meant}'" in result.stderr


@pytest.mark.parametrize("args", [
    ["up"], ["up", "-c"], ["up", "-c", "x", "y"], ["up", "-c", "x", "-L", "loud"],
    ["ping"], ["ping", "a", "b"], ["ping", "-c", "0", "a"], ["ping", "-c", "1x", "a"],
    ["ping", "-i", "0", "a"], ["ping", "-i", "nan", "a"], ["ping", "-W", "1e9", "a"],
    ["ping", "-W", "", "a"], ["status", "--json=1"], ["config"], ["config", "chek", "x"],
    ["config", "check"], ["config", "check", "a", "b"], ["version", "x"], ["--bogus"],
    ["help", "nonsense"]])
def test_wrong_usage(run, args):
    result = run(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr != ""


def test_version(run):
    result = run("version")
    assert result.returncode == 0
    assert re.match(r"shadowmesh \d+\.\d+\.\d+\nOpenSSL 3\.", result.stdout)
    assert run("--version").stdout == result.stdout
    assert set(json.loads(run("version", "--json").stdout)) == {"version", "crypto",
                                                                "aes_hardware"}


def test_config_check(run, tmp_path):
    bad = tmp_path / "bad.conf"
    bad.write_text("[Network]\nName = home\nNonsense = 1\n")
    result = run("config", "check", str(bad))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{bad}:3" in result.stderr
    as_json = run("config", "check", "--json", str(bad))
    assert as_json.returncode == 1
    told = json.loads(as_json.stdout)
    assert told["ok"] is False
    assert "".join(text + "\n" for text in told["errors"]) == result.stderr
    assert run("config", "check", str(tmp_path / "missing.conf")).returncode == 1


def test_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        result = subprocess.run([PROGRAM, "help"], stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert result.returncode == 1
    assert b"No space left" in result.stderr


def test_reader_that_leaves():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        result = subprocess.run([PROGRAM, "help"], stdout=pipe, stderr=subprocess.PIPE, timeout=30)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("env, coloured", [
    ({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ({"TERM": "xterm", "NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)])
def test_colours_on_a_terminal(daemon, tmp_path, env, coloured):
    daemon()
    master, slave = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run([PROGRAM, "peers"], stdout=slave, stdin=subprocess.DEVNULL, timeout=30,
                   check=True, env={**clean, "SHADOWMESH_RUNTIME_DIR": str(tmp_path), **env})
    os.close(slave)
    text = b""
    try:
        while more := os.read(master, 65536):
            text += more
    except OSError:
        pass  # the end of a terminal is EIO
    os.close(master)
    assert b"bob" in text
    assert (b"\x1b[32m" in text) == coloured
    assert (b"\x1b" in text) == coloured


def test_no_colours_in_a_pipe(run, daemon):
    daemon()
    assert "\x1b" not in run("peers", env={"TERM": "xterm"}).stdout
