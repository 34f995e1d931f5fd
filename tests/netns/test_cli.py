# SPDX-License-Identifier: MIT
"""
The commands against a living daemon: what they print, as text and JSON, and how they exit; what the
service manager hears; the background.

    [ alice ] ==== internet ==== [ bob ]        see lab.py
"""

import json
import os
import re
import select
import signal
import socket
import stat

import pytest

from lab import NETWORK, now, ping, wait_for

OK, FAILURE, USAGE, NOT_RUNNING = range(4)


@pytest.fixture
def pair(lab):
    return lab.mesh("alice", "bob")


# --- status and peers ---


def test_status(pair):
    alice, bob = pair
    assert ping(alice, bob.ip4, count=3).lost == 0
    done = alice.cli("status", "--json")
    assert done.returncode == OK and done.stderr == ""
    status = json.loads(done.stdout)
    assert status["network"] == NETWORK
    assert status["node"]["name"] == "alice"
    assert status["pid"] == alice.pid
    assert status["peers"] == {"total": 1, "up": 1}
    assert status["counters"]["udp_send_packets"] > 3
    assert status["interface"]["addresses"][0] == "10.7.0.1/24"
    assert status["crypto"].startswith("OpenSSL ")
    text = alice.cli("status").stdout
    for wanted in (NETWORK, "alice", "smesh0", "10.7.0.1/24", "1 of 1 up", str(alice.pid)):
        assert wanted in text, text
    assert alice.cli("status", "--socket", alice.socket_path).stdout.splitlines()[0] == \
        text.splitlines()[0]


def test_profile(pair):
    alice, bob = pair
    assert ping(alice, bob.ip4, count=50, interval=0.002).lost == 0
    def told():
        return json.loads(alice.cli("status", "--profile", "--json").stdout)["profile"]

    # the last answer is here before it is counted
    wait_for(lambda: all(stage["frame"]["count"] >= 50 for stage in told().values()), what="50 of each")
    profile, uptime_us = told(), alice.status()["uptime_us"]
    assert set(profile) == {"tap_read", "seal", "udp_send", "udp_receive", "open", "tap_write"}
    for stage in profile.values():
        for one in stage.values():
            assert 0 < one["median_us"] <= one["p99_us"] and one["median_us"] <= one["max_us"] < uptime_us
            assert one["median_us"] < 1e5
    text = alice.cli("status", "--profile").stdout
    assert "median" in text and "p99" in text and "udp_send" in text


def test_peers(pair):
    alice, bob = pair
    assert ping(alice, bob.ip4, count=3).lost == 0
    done = alice.cli("peers", "--json")
    assert done.returncode == OK
    entry, = json.loads(done.stdout)["peers"]
    assert (entry["name"], entry["state"], entry["tls"]) == ("bob", "up", "up")
    assert entry["session"]["group"] == "SecP384r1MLKEM1024"
    assert entry["session"]["signature"] == "mldsa87"
    assert entry["session"]["cipher"] == "aes-256-gcm"
    assert 8000 < entry["session"]["handshake_bytes_in"] < 20000
    assert entry["session"]["handshake_us"] > 0
    assert entry["path"]["remote"] == "198.51.100.2:9443"
    assert entry["path"]["observed"] == "198.51.100.1:9443"
    assert entry["path"]["rtt_us"] > 0
    assert entry["mac"] == bob.mac.hex(":")
    assert entry["counters"]["tx_frames"] >= 3 and entry["counters"]["rx_frames"] >= 3
    assert {entry["session"]["role"], bob.peer(alice)["session"]["role"]} == {"client", "server"}
    text = alice.cli("peers").stdout
    for wanted in ("bob", "up", "10.7.0.2/24", "198.51.100.2:9443"):
        assert wanted in text, text


# --- ping ---


def test_ping(pair):
    alice, bob = pair
    done = alice.machine.cli("ping", "-c", "5", "-i", "0.02", "-W", "5", "bob")
    assert done.returncode == OK, done
    assert len(re.findall(r"^bob: seq \d+, [\d.]+ ms, direct by 198\.51\.100\.2:9443$", done.stdout,
                          re.MULTILINE)) == 5
    assert "5 sent, 5 answered, 0 % lost" in done.stdout
    done = alice.machine.cli("ping", "--network", NETWORK, "-c", "1", "bob")
    assert done.returncode == OK
    # through the tunnel, so it works whatever the cards say
    bob.machine.ip("link set smesh0 down")
    assert alice.machine.cli("ping", "-c", "1", "bob").returncode == OK


def test_ping_without_answer(pair):
    alice, bob = pair
    bob.signal(signal.SIGSTOP)
    done = alice.machine.cli("ping", "-c", "2", "-i", "0.05", "-W", "0.2", "bob")
    bob.signal(signal.SIGCONT)
    assert done.returncode == FAILURE
    assert "2 sent, 0 answered, 100 % lost" in done.stdout
    for node, text in (("nobody", "no node named nobody"), ("alice", "alice is this node itself")):
        done = alice.machine.cli("ping", node)
        assert done.returncode == FAILURE and text in done.stderr, done
    bob.stop()
    wait_for(lambda: alice.peer("bob")["session"] is None, what="the session's end")
    done = alice.machine.cli("ping", "bob")
    assert done.returncode == FAILURE and "bob is not connected" in done.stderr, done


def test_wrong_usage(pair):
    alice, _ = pair
    for arguments in (["status", "--jsn"], ["ping"], ["ping", "-c", "none", "bob"], ["sttus"],
                      ["up"], ["status", "home", "work"], ["down", "--force"]):
        done = alice.machine.cli(*arguments)
        assert done.returncode == USAGE, arguments
        assert "shadowmesh" in done.stderr and done.stdout == ""
    assert "did you mean '--json'" in alice.machine.cli("status", "--jsn").stderr
    assert "did you mean 'status'" in alice.machine.cli("sttus").stderr
    assert alice.running()


def test_not_running(lab):
    alice = lab.machine("alice")
    for command in ("status", "peers", "reload", "down"):
        done = alice.cli(command)
        assert done.returncode == NOT_RUNNING and "no daemon is running" in done.stderr
        done = alice.cli(command, "home")
        assert done.returncode == NOT_RUNNING and "network 'home' is not up" in done.stderr
    assert alice.cli("ping", "bob").returncode == NOT_RUNNING


# --- down, reload ---


def test_down(pair):
    alice, bob = pair
    done = alice.cli("down")
    assert done.returncode == OK, done
    # it returns when the daemon is gone
    assert alice.process.poll() == 0
    alice.exits.append(0)
    alice.check_gone()
    bob.wait_log(r"peer alice: closed by the peer: shutdown", timeout=3)
    assert not bob.is_up(alice)
    assert alice.cli("down").returncode == NOT_RUNNING


RESOLV = 'mount --bind "$RESOLV_FILE" /etc/resolv.conf; exec "$@"'


def test_ends_while_names_are_looked_up(lab):
    """The name server swallows the questions: the resolver would wait for 20 s and more."""
    names = [{"Name": f"n{i}", "Endpoint": f"n{i}.example:8443"} for i in range(6)]
    alice, bob = lab.mesh("alice", "bob", families=(4,), start=False,
                          peers={"alice": names, "bob": []})
    resolv = os.path.join(lab.tmp, "resolv.conf")
    with open(resolv, "w") as file:
        file.write(f"nameserver {bob.machine.ip4}\noptions timeout:10 attempts:2\n")
    alice.extra_env["RESOLV_FILE"] = resolv
    questions = os.path.join(lab.tmp, "questions")
    server = bob.machine.popen("socat", "-u", "UDP-RECV:53", f"CREATE:{questions}")
    try:
        wait_for(lambda: ":53 " in bob.machine.sh("ss", "-Hnul"), what="the name server")
        alice.start(wrapper=("unshare", "-m", "sh", "-c", RESOLV, "--"))
        wait_for(lambda: b"example" in open(questions, "rb").read(), what="a question")
        since = now()
        alice.stop()
        assert now() - since < 4
    finally:
        server.kill()
        server.wait()


def test_reload_adds_and_removes_peers(lab):
    alice, bob, carol = lab.mesh("alice", "bob", "carol", start=False)
    carol_entry, = [p for p in alice.peers_conf if p["Name"] == "carol"]
    alice.peers_conf.remove(carol_entry)
    # alice alone dials: of two connections at once one would be closed, and its session with it
    bob.peers_conf = []
    carol.peers_conf = []
    for daemon in (bob, carol, alice):
        daemon.start()
    alice.wait_up(bob)
    assert alice.peer("carol") is None
    index = alice.peer(bob)["session"]["index"]

    alice.peers_conf.append(carol_entry)
    alice.write_config()
    done = alice.cli("reload")
    assert done.returncode == OK, done
    alice.wait_up(carol, timeout=3)
    assert ping(alice, carol.ip4).lost == 0
    assert alice.peer(bob)["session"]["index"] == index, "a session that stays is kept"

    alice.peers_conf = [p for p in alice.peers_conf if p["Name"] != "bob"]
    alice.configure("Log", Level="notice")
    alice.signal(signal.SIGHUP)
    wait_for(lambda: not (alice.peer("bob") or {}).get("configured"), what="bob to be forgotten")
    assert ping(alice, carol.ip4).lost == 0


def test_reload_says_what_needs_a_restart(pair):
    alice, bob = pair
    alice.configure("Interface", MTU=1400)
    alice.configure("Transport", DataPort=9555)
    done = alice.cli("reload")
    assert done.returncode == OK
    assert "[Interface] MTU" in done.stdout and "[Transport] DataPort" in done.stdout, done
    assert alice.status()["interface"]["mtu"] == 1500
    assert ping(alice, bob.ip4).lost == 0


def test_reload_of_nonsense_changes_nothing(pair):
    alice, bob = pair
    with open(alice.config_path, "a") as file:
        file.write("\n[Transport]\nWorker = 3\n")
    done = alice.cli("reload")
    assert done.returncode == FAILURE
    assert "nothing has changed" in done.stderr
    assert re.search(re.escape(os.path.basename(alice.config_path)) + r":\d+: ", done.stderr + alice.log())
    assert ping(alice, bob.ip4).lost == 0
    assert alice.is_up(bob)


# --- up: refusals, readiness, background ---


@pytest.mark.parametrize("lines,text", [
    ("[Transport]\nWorkers = many", r"conf:\d+: \[Transport\] Workers: got 'many', expected auto or a"),
    ("[Transport]\nWorker = 1", r"conf:\d+: .*Worker.*Workers"),
    ("[Transprt]\nWorkers = 1", r"conf:\d+: .*Transprt.*Transport"),
    ("[Interface]\nMTU = 100", r"conf:\d+: \[Interface\] MTU: got '100', expected a number from 576 to 65500"),
])
def test_configuration_is_refused(lab, lines, text):
    alice = lab.daemon(*lab.internet("alice"))
    alice.sections = {s: k for s, k in alice.sections.items() if k}
    section = lines.split("\n")[0].strip("[]")
    key, value = lines.split("\n")[1].split(" = ")
    alice.sections.setdefault(section, {})[key] = value
    log = alice.refuse()
    assert re.search(text, log), log
    done = alice.machine.cli("config", "check", alice.config_path)
    assert done.returncode == FAILURE and re.search(text, done.stderr)
    assert json.loads(alice.machine.cli("config", "check", "--json", alice.config_path).stdout)["ok"] is False


def test_key_that_others_may_read(lab):
    alice = lab.daemon(*lab.internet("alice"))
    key = alice.folder + "/open.key"
    with open(alice.sections["Node"]["PrivateKey"], "rb") as source, open(key, "wb") as target:
        target.write(source.read())
    os.chmod(key, 0o644)
    alice.configure("Node", PrivateKey=key)
    log = alice.refuse()
    assert f"{key}: others have access (mode 0644): 'chmod 600' it" in log, log


def test_service_manager_is_told(lab):
    """READY=1 not before everything works, STOPPING=1 at the end, a status line between."""
    alice = lab.daemon(*lab.internet("alice")).start(wait=False)
    alice.wait_ready()
    assert alice.status()["pid"] == alice.pid, "the socket answers by then"
    assert "UP" in alice.machine.ip("link show smesh0")
    assert "10.7.0.1/24" in alice.machine.ip("addr show smesh0")
    with alice.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.connect(("198.51.100.1", 8443))
    assert not [line for line in alice.notified if line.startswith(("STOPPING", "RELOADING"))]
    alice.notified.clear()
    alice.signal(signal.SIGHUP)
    alice.wait_notify("READY=1")
    assert "RELOADING=1" in alice.notified
    assert [line for line in alice.notified if line.startswith("MONOTONIC_USEC=")]
    alice.signal(signal.SIGTERM)
    assert alice.wait() == 0
    while select.select([alice.notify], [], [], 0)[0]:
        alice.notified += alice.notify.recv(4096).decode().splitlines()
    assert "STOPPING=1" in alice.notified


def process_gone(pidfd):
    return bool(select.select([pidfd], [], [], 0)[0])


def test_detached(lab):
    """The command returns when the network is up; the daemon has no terminal and no parent's files."""
    alice_machine, bob_machine = lab.internet("alice", "bob")
    bob = lab.daemon(bob_machine, peers=["alice"]).start()
    alice = lab.daemon(alice_machine, peers=["bob"])
    alice.write_config()
    done = alice.machine.cli("up", "-d", "-c", alice.config_path)
    assert done.returncode == OK, done
    # up by now
    pid = json.loads(alice.machine.cli("status", "--json").stdout)["pid"]
    pidfd = os.pidfd_open(pid)
    try:
        bob.wait_up("alice")
        assert ping(alice, bob.ip4).lost == 0
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        assert fields[4] == "0", "no terminal"
        assert int(fields[3]) not in (pid, os.getsid(0)), "a session of its own that it does not lead"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
        # again: refused, with the reason in the foreground
        again = alice.machine.cli("up", "-d", "-c", alice.config_path)
        assert again.returncode == FAILURE
        assert f"is up already on this machine (pid {pid})" in again.stderr
        assert alice.machine.cli("down").returncode == OK
        assert process_gone(pidfd)
    finally:
        if not process_gone(pidfd):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    alice.check_gone()


def test_detached_failure(lab):
    alice = lab.daemon(*lab.internet("alice"), sections={"Interface": {"Name": "eth0"}})
    alice.write_config()
    done = alice.machine.cli("up", "-d", "-c", alice.config_path)
    assert done.returncode == FAILURE
    assert "eth0 exists and is neither TAP nor TUN" in done.stderr


def test_socket_is_not_for_everybody(pair):
    alice, _ = pair
    mode = os.stat(alice.socket_path)
    assert stat.S_IMODE(mode.st_mode) == 0o660
    os.chmod(alice.socket_path, 0o666)  # even then: it asks the kernel who is there
    for folder in (alice.lab.tmp, alice.machine.runtime):
        os.chmod(folder, 0o755)
    done = alice.machine.sh("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--",
                            "python3", "-c", f"""
import socket
s = socket.socket(socket.AF_UNIX)
s.connect({alice.socket_path!r})
s.sendall(b'{{"command": "down"}}\\n')
print(s.recv(4096))""", check=False)
    assert '"ok":true' not in done.replace(" ", ""), done
    assert alice.running() and alice.status()["pid"] == alice.pid


def test_secrets_stay_out_of_the_logs(lab):
    alice, bob = lab.mesh("alice", "bob")
    with open(alice.sections["Node"]["PrivateKey"]) as file:
        secret = "".join(file.read().splitlines()[1:-1])
    assert len(secret) > 40
    everything = alice.log() + bob.log() + alice.cli("status", "--json").stdout + \
        alice.cli("peers", "--json").stdout
    assert secret[20:60] not in everything
    assert "PRIVATE" not in everything
