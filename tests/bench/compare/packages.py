# SPDX-License-Identifier: MIT
"""
Programs of Debian packages that are not installed: fetched by apt with a state of its own, so that the
machine's package lists, configuration and libraries stay as they are, and unpacked into a folder for
each suite. apt checks the signatures against the keyring of the Debian archive. A program runs with the
dynamic linker and the libraries of its own suite.
"""

import glob
import os
import re
import shutil
import struct
import subprocess

KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_MIRROR = "http://deb.debian.org/debian"
# A suite that is no whole one is read together with those it stands on.
BASES = {"bookworm-backports": ("bookworm",), "trixie-backports": ("trixie",),
         "experimental": ("bookworm",)}
PT_INTERP = 3
TIMEOUT = 300  # seconds for one call of apt


class Missing(Exception):
    """A package that cannot be had, and why."""


def machine_mirror():
    """Where this machine gets Debian from."""
    try:
        with open("/etc/os-release") as file:
            codename = re.search(r"^VERSION_CODENAME=(\w+)", file.read(), re.M)
        text = subprocess.run(["apt-get", "--print-uris", "update"], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=TIMEOUT, check=False).stdout
        found = re.search(rf"^'([^']*)/dists/{codename[1]}/InRelease'", text, re.M) if codename else None
    except OSError:
        found = None
    return found[1] if found else DEFAULT_MIRROR


def run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=TIMEOUT, check=False, **options)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise Missing("; ".join(words or done.stderr.split("\n")[-2:]) or f"{command[0]} failed")
    return done.stdout


class Suite:
    """One suite's private apt state and the folder into which its packages are unpacked."""

    mirror = None

    def __init__(self, folder, name):
        self.name, self.root = name, os.path.join(folder, "root-" + name)
        self.apt = os.path.join(folder, "apt-" + name)
        self.read, self.problem = False, None

    def options(self):
        at = self.apt
        return ["-q", "-o", f"Dir::Etc::sourcelist={at}/sources.list", "-o", f"Dir::Etc::sourceparts={at}/none",
                "-o", "Dir::Etc::preferences=/dev/null", "-o", f"Dir::Etc::preferencesparts={at}/none",
                "-o", f"Dir::State={at}/state", "-o", f"Dir::State::lists={at}/state/lists",
                "-o", f"Dir::State::status={at}/status", "-o", f"Dir::Cache={at}/cache",
                "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root",
                "-o", "APT::Get::AllowUnauthenticated=false", "-o", "Acquire::AllowInsecureRepositories=false",
                "-o", "Acquire::AllowWeakRepositories=false", "-o", "APT::Install-Recommends=false"]

    def update(self):
        """Reads the package lists, once a run."""
        if self.problem:
            raise Missing(self.problem)
        if not self.read:
            try:
                self.read_lists()
            except (Missing, OSError, subprocess.TimeoutExpired) as error:
                self.problem = str(error)
                raise
            self.read = True

    def read_lists(self):
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise Missing("this system has no apt")
        keyring = next((path for path in KEYRINGS if os.path.exists(path)), None)
        if not keyring:
            raise Missing("no keyring of the Debian archive (Debian: debian-archive-keyring)")
        Suite.mirror = Suite.mirror or machine_mirror()
        for folder in ("none", "state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self.apt, folder), exist_ok=True)
        with open(os.path.join(self.apt, "sources.list"), "w") as file:
            for suite in (self.name, *BASES.get(self.name, ())):
                file.write(f"deb [signed-by={keyring}] {Suite.mirror} {suite} main\n")
        open(os.path.join(self.apt, "status"), "w").close()
        run(["apt-get", *self.options(), "update"])

    def stamp(self, package):
        return os.path.join(self.root, "." + package)

    def version(self, package):
        """Of a package that was unpacked, or None."""
        try:
            with open(self.stamp(package)) as file:
                return file.read().strip()
        except OSError:
            return None

    def fetch(self, package):
        """Unpacks a package and what it depends on; gives its version."""
        if self.version(package):
            return self.version(package)
        self.update()
        wanted = f"{package}/{self.name}"
        text = run(["apt-get", *self.options(), "--print-uris", "--yes", "install", wanted])
        files = re.findall(r"^'[^']+' (\S+\.deb) ", text, re.M)
        run(["apt-get", *self.options(), "--yes", "--download-only", "install", wanted])
        os.makedirs(self.root, exist_ok=True)
        for name in files:
            run(["dpkg", "-x", os.path.join(self.apt, "cache/archives", name), self.root])
        version = next((name.split("_")[1].replace("%3a", ":") for name in files
                        if name.startswith(package + "_")), None)
        if not version:
            raise Missing(f"apt gave no file of {package}")
        with open(self.stamp(package), "w") as file:
            file.write(version + "\n")
        return version

    def find(self, name):
        """A program's path in the root."""
        for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
            path = os.path.join(self.root, folder, name)
            if os.path.exists(path):
                return path
        raise Missing(f"the package has no program {name}")

    def command(self, name):
        """The words that run a program with its suite's libraries."""
        path = self.find(name)
        linker = interpreter(path)
        if not linker:
            return [path]
        found = [place for place in (os.path.join(self.root, linker.lstrip("/")),
                                     os.path.join(self.root, "usr", linker.lstrip("/")),
                                     *glob.glob(f"{self.root}/usr/lib/*/{os.path.basename(linker)}"),
                                     *glob.glob(f"{self.root}/lib/*/{os.path.basename(linker)}"))
                 if os.path.exists(place)]
        if not found:
            raise Missing(f"no {linker} for {name}")
        libraries = glob.glob(self.root + "/usr/lib/*-linux-*") + glob.glob(self.root + "/lib/*-linux-*")
        return [found[0], "--library-path", ":".join(libraries), path]


def interpreter(path):
    """The dynamic linker that an ELF program names, or None."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or head[4] != 2:
            return None
        offset, size, count = struct.unpack_from("=Q", head, 32)[0], *struct.unpack_from("=HH", head, 54)
        for i in range(count):
            file.seek(offset + i * size)
            kind, _, at, _, _, length = struct.unpack("=IIQQQQ", file.read(40))
            if kind == PT_INTERP:
                file.seek(at)
                return file.read(length).rstrip(b"\0").decode()
    return None


class Store:
    """All suites below one folder."""

    def __init__(self, folder):
        self.folder, self.suites = folder, {}

    def suite(self, name):
        return self.suites.setdefault(name, Suite(self.folder, name))

    def get(self, package, suites):
        """The first of the suites that has the package, as (suite, version); Missing tells why none has."""
        reasons = []
        for name in suites:
            try:
                return self.suite(name), self.suite(name).fetch(package)
            except (Missing, subprocess.TimeoutExpired, OSError) as error:
                reasons.append(f"{name}: {error}")
        raise Missing("; ".join(reasons))
