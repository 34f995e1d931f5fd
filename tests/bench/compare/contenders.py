# SPDX-License-Identifier: MIT
"""
Who is compared: how each is configured and started at both ends. Every one has the settings that its
documentation gives for a link between two machines, its usual MTU, and no compression.
"""

import base64
import os
import shutil
import socket
import subprocess
import time

from packages import Missing
from pairing import Failed, INNER, OUTER, laboratory

PORT = 7001
SETTLE = 0.3  # seconds
NEWEST = ("sid", "trixie", "bookworm")


class Contender:
    """
    name, title: in files and in tables; layer: 2 or 3; cipher: None without encryption
    ifname:  the tunnel's interface; wants_address: gets its address from us
    set_mtu: to set at that interface; None leaves what the program set
    mtu:     what it has then, for the table, and mtu_why
    warm_s:  of pings before anything is measured: some send by a detour at first
    bare:    the wire itself is measured
    """

    name = title = cipher = ifname = set_mtu = package = program = None
    layer, mtu, mtu_why = 2, 1500, "the usual one"
    suites = NEWEST
    bare, wants_address = False, True
    warm_s = 0.3
    peer = True  # one to be compared with; False for references and for variants of our own

    def __init__(self):
        self.version = self.suite = None

    def prepare(self, store, folder):
        """Once a run: fetches the program and makes keys in the folder. Missing tells why not."""
        if self.package:
            self.suite, self.version = store.get(self.package, self.suites)
            self.suite.command(self.program)
        self.folder = os.path.join(folder, self.name)
        os.makedirs(self.folder, exist_ok=True)
        self.make_keys(store)

    def run(self, name, *args, text=None):
        """A program of the package; gives what it printed."""
        done = subprocess.run([*self.suite.command(name), *args], input=text, text=True, capture_output=True,
                              timeout=120, check=False, cwd=self.folder)
        if done.returncode:
            raise Missing(f"{name} {args[0] if args else ''}: {(done.stderr or done.stdout).strip()[-200:]}")
        return done.stdout

    def make_keys(self, store):
        pass

    def write(self, visit):
        """Writes configurations; is not part of the time to start."""

    def start_end(self, visit, one, other):
        """Starts what runs at one end; the other may run already or not."""

    def wait_ready(self, visit, one):
        """Waits until that end can be reached: none of these programs says so, but none needs longer."""
        time.sleep(SETTLE)


class Veth(Contender):
    name, title, bare, peer = "veth", "bare wire", True, False
    mtu_why = "of the wire"


class Vxlan(Contender):
    name, title, peer = "vxlan", "kernel VXLAN", False
    ifname, mtu, mtu_why = "vx0", 1450, "the kernel's own"
    set_mtu = None

    def start_end(self, visit, one, other):
        one.machine.ip(f"link add vx0 type vxlan id 7 local {one.outer} remote {other.outer} dstport 4789 dev eth0")


class ShadowMesh(Contender):
    name, title, cipher, peer = "shadowmesh", "ShadowMesh", "AES-256-GCM", False
    ifname, wants_address = "smesh0", False
    mtu_why = "its default; it clamps TCP's MSS"
    settings = ()

    def prepare(self, store, folder):
        self.version = laboratory.sh(laboratory.SHADOWMESH, "version").split("\n")[0].split()[-1]

    def write(self, visit):
        sections = {"Log": {"Level": "info"}}
        for section, key, value in self.settings:
            sections.setdefault(section, {})[key] = value
        lab = visit.lab
        a, b = (one.machine for one in visit.ends)
        self.daemons = [lab.daemon(a, peers=["b"], sections=sections),
                        lab.daemon(b, peers=[{"Name": "a"}], sections=sections)]
        for daemon, one in zip(self.daemons, visit.ends):
            daemon.write_config()
            daemon.log_path = one.log_path

    def start_end(self, visit, one, other):
        daemon = self.daemons[one.number]
        daemon.start(wait=False)
        one.processes.append(daemon.process)

    def wait_ready(self, visit, one):
        self.daemons[one.number].wait_ready()


class ShadowMesh1400(ShadowMesh):
    name, title, mtu, mtu_why = "shadowmesh-1400", "ShadowMesh, MTU 1400", 1400, "fits the wire in one part"
    settings = (("Interface", "MTU", "1400"),)


class ShadowMeshPlain(ShadowMesh):
    name, title = "shadowmesh-no-offload", "ShadowMesh, offloads off"
    settings = (("Transport", "Offload", "no"),)


class WireguardGo(Contender):
    name, title, layer, cipher = "wireguard-go", "wireguard-go", 3, "ChaCha20-Poly1305"
    package = program = "wireguard-go"
    suites = ("sid", "trixie", "bookworm-backports")  # Debian 12's own is older than its offloads
    ifname, mtu, mtu_why = "wg0", 1420, "its default"

    def make_keys(self, store):
        tools, _ = store.get("wireguard-tools", NEWEST)
        wg = tools.command("wg")

        def call(*args, text=None):
            return subprocess.run([*wg, *args], input=text, text=True, capture_output=True, timeout=20,
                                  check=True).stdout.strip()

        secrets = [call("genkey") for _ in range(2)]
        publics = [call("pubkey", text=one + "\n") for one in secrets]
        # Its socket speaks of keys in hexadecimal digits.
        self.keys = [tuple(base64.b64decode(one).hex() for one in pair) for pair in zip(secrets, publics)]

    def start_end(self, visit, one, other):
        process = one.start([*self.suite.command(self.program), "-f", "wg0"], {"LOG_LEVEL": "error"})
        request = (f"set=1\nprivate_key={self.keys[one.number][0]}\nlisten_port={PORT}\nreplace_peers=true\n"
                   f"public_key={self.keys[other.number][1]}\nendpoint={other.outer}:{PORT}\n"
                   f"allowed_ip={other.inner}/32\n\n")
        path = f"/proc/{process.pid}/root/run/wireguard/wg0.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            visit.wait(lambda: sock.connect_ex(path) == 0, "made no socket")
            sock.sendall(request.encode())
            answer = sock.recv(4096).decode()
        if "errno=0" not in answer:
            raise Failed(f"refused its configuration: {answer.strip()}")


class Fastd(Contender):
    name, title, cipher = "fastd", "fastd", "salsa2012+umac"
    package = program = "fastd"
    ifname, mtu, mtu_why = "fastd0", 1434, "the largest that fits the wire"

    def make_keys(self, store):
        self.keys = []
        for _ in range(2):
            text = self.run("fastd", "--generate-key")
            words = dict(line.lower().split(": ") for line in text.splitlines() if ": " in line)
            self.keys.append((words["secret"].strip(), words["public"].strip()))

    def write(self, visit):
        for one, other in (visit.ends, visit.ends[::-1]):
            one.config = one.file("fastd.conf", f"""mode tap;
interface "{self.ifname}";
method "{self.cipher}";
mtu {self.mtu};
bind {one.outer}:{PORT};
secret "{self.keys[one.number][0]}";
log level warn;
peer "other" {{
	key "{self.keys[other.number][1]}";
	{f"remote {other.outer}:{PORT};" if one.number == 0 else ""}
}}
""")

    def start_end(self, visit, one, other):
        one.start([*self.suite.command("fastd"), "--config", one.config])


class Quicktun(Contender):
    name, title, cipher = "quicktun", "quicktun", "XSalsa20-Poly1305"
    package = program = "quicktun"
    ifname, mtu, mtu_why = "qt0", 1426, "the largest that fits the wire"
    set_mtu = 1426

    def make_keys(self, store):
        self.keys = []
        for _ in range(2):
            words = dict(line.split(": ") for line in self.run("keypair").splitlines() if ": " in line)
            self.keys.append((words["SECRET"].strip(), words["PUBLIC"].strip()))

    def start_end(self, visit, one, other):
        settings = {
            "INTERFACE": "qt0", "TUN_MODE": 0, "PROTOCOL": "nacltai", "LOCAL_ADDRESS": one.outer,
            "LOCAL_PORT": PORT, "REMOTE_ADDRESS": other.outer, "REMOTE_PORT": PORT,
            "PRIVATE_KEY": self.keys[one.number][0], "PUBLIC_KEY": self.keys[other.number][1]}
        one.start([*self.suite.command("quicktun"),
                   *(word for key, value in settings.items() for word in ("-c", key, str(value)))])


class OpenVpn(Contender):
    """Certificates known by their fingerprints; b waits, a connects."""

    name, title, cipher = "openvpn", "OpenVPN TAP, UDP", "AES-256-GCM"
    package = program = "openvpn"
    ifname, mtu, mtu_why = "ovpn0", 1500, "its default; it clamps TCP's MSS"

    def make_keys(self, store):
        self.prints = []
        for number in range(2):
            base = os.path.join(self.folder, str(number))
            laboratory.sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                          "-nodes", "-days", "10", "-subj", f"/CN=end{number}", "-keyout", base + ".key",
                          "-out", base + ".pem")
            text = laboratory.sh("openssl", "x509", "-in", base + ".pem", "-noout", "-fingerprint", "-sha256")
            self.prints.append(text.strip().split("=")[1])

    def start_end(self, visit, one, other):
        base = os.path.join(self.folder, str(one.number))
        role = ["--tls-client", "--remote", other.outer, str(PORT)] if one.number == 0 else [
            "--tls-server", "--dh", "none"]
        one.start([*self.suite.command("openvpn"), "--dev", "ovpn0", "--dev-type", "tap", "--proto", "udp4",
                   "--local", one.outer, "--lport", str(PORT), *role, "--cert", base + ".pem", "--key",
                   base + ".key", "--peer-fingerprint", self.prints[other.number], "--data-ciphers", self.cipher,
                   "--disable-dco", "--auth-nocache", "--verb", "1"])


class Tinc(Contender):
    name, title, cipher = "tinc", "tinc 1.0, switch", "AES-256-CBC, SHA-256"
    package, program = "tinc", "tincd"
    ifname, mtu, mtu_why = "tinc0", 1500, "its default; it clamps TCP's MSS"
    warm_s = 8  # until it knows the path MTU, what is larger goes over TCP
    more = "Cipher = aes-256-cbc\nDigest = sha256\n"

    def host(self, number, folder):
        return os.path.join(folder, "hosts", f"end{number}")

    def make_keys(self, store):
        for number in range(2):
            base = os.path.join(self.folder, str(number))
            os.makedirs(os.path.join(base, "hosts"))
            self.write_config(base, number)
            self.generate(base, number)
        for number in range(2):  # each knows the other's public key
            shutil.copy(self.host(number, os.path.join(self.folder, str(number))),
                        self.host(number, os.path.join(self.folder, str(1 - number))))

    def write_config(self, base, number):
        with open(os.path.join(base, "tinc.conf"), "w") as file:
            file.write(f"Name = end{number}\nMode = switch\nDeviceType = tap\nInterface = {self.ifname}\n"
                       f"AddressFamily = ipv4\nPort = {PORT}\n" + ("ConnectTo = end1\n" if number == 0 else ""))
        with open(self.host(number, base), "w") as file:
            file.write(f"Address = {OUTER[number]}\nPort = {PORT}\n{self.more}")

    def generate(self, base, number):
        self.run("tincd", "-c", base, "-K2048", text="\n\n")

    def start_end(self, visit, one, other):
        base = os.path.join(self.folder, str(one.number))
        one.start([*self.suite.command("tincd"), "-c", base, "-D", f"--pidfile={one.folder}/pid"])


class Tinc11(Tinc):
    name, title, cipher = "tinc-1.1", "tinc 1.1, switch", "ChaCha20-Poly1305"
    suites = ("experimental",)
    warm_s, more = 3, ""

    def generate(self, base, number):
        self.run("tinc", "-c", base, "generate-ed25519-keys", text="\n\n")


class N2n(Contender):
    """The supernode that edges need to find each other runs at b, and counts."""

    name, title, cipher = "n2n", "n2n", "AES"
    package, program = "n2n", "edge"
    suites = ("sid",)  # the others have 1.3
    ifname, wants_address, mtu, mtu_why = "n2n0", False, 1290, "its default"
    warm_s = 2

    def start_end(self, visit, one, other):
        if one.number == 1:
            one.start([*self.suite.command("supernode"), "-f", "-p", str(PORT)])
            time.sleep(SETTLE)
        one.start([*self.suite.command("edge"), "-f", "-d", self.ifname, "-a", f"static:{one.inner}/24",
                   "-c", "bench", "-k", "measured", "-A3", "-l", f"{OUTER[1]}:{PORT}", "-p", str(PORT + 1)])


class Nebula(Contender):
    name, title, layer, cipher = "nebula", "Nebula", 3, "AES-256-GCM"
    package = program = "nebula"
    ifname, wants_address, mtu, mtu_why = "neb0", False, 1300, "its default"

    def make_keys(self, store):
        self.run("nebula-cert", "ca", "-name", "bench", "-duration", "240h")
        for number in range(2):
            self.run("nebula-cert", "sign", "-name", f"end{number}", "-ip", f"{INNER[number]}/24",
                     "-duration", "200h")

    def write(self, visit):
        for one, other in (visit.ends, visit.ends[::-1]):
            lighthouse = one.number == 1
            one.config = one.file("nebula.yml", f"""pki:
  ca: {self.folder}/ca.crt
  cert: {self.folder}/end{one.number}.crt
  key: {self.folder}/end{one.number}.key
static_host_map:
  "{INNER[1]}": ["{OUTER[1]}:{PORT}"]
lighthouse:
  am_lighthouse: {"true" if lighthouse else "false"}
  hosts: [{"" if lighthouse else f'"{INNER[1]}"'}]
listen: {{host: {one.outer}, port: {PORT}}}
cipher: aes
tun: {{dev: {self.ifname}, mtu: {self.mtu}}}
logging: {{level: error}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
""")

    def start_end(self, visit, one, other):
        one.start([*self.suite.command("nebula"), "-config", one.config])


ALL = (ShadowMesh, ShadowMesh1400, ShadowMeshPlain, WireguardGo, Nebula, Fastd, Quicktun, OpenVpn, Tinc11, Tinc,
       N2n, Vxlan, Veth)
