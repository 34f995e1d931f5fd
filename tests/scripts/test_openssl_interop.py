# SPDX-License-Identifier: MIT
"""Keys and certificates, ours and those of the `openssl` program (3.5 or newer).

Each side must read and verify what the other made. Environment: SM_BUILD, the build
folder; SM_OPENSSL, the program (scripts/setup-openssl.sh names it).
"""

import json
import os
import re
import subprocess

import pytest

PROGRAM = os.path.join(os.environ["SM_BUILD"], "shadowmesh")
OPENSSL = os.environ.get("SM_OPENSSL") or "openssl"
NETWORK = "00112233445566778899aabbccddeeff"

CA_SECTION = f"""
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectAltName = URI:shadowmesh://{NETWORK}
"""
NODE_SECTION = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {san}
"""
SAN = f"URI:shadowmesh://{NETWORK}/alice, IP:10.7.0.2, IP:fd00:7::2"


def run(*args, code=0, stdin=None):
    """Runs a program and returns its output; the exit code must be as said."""
    done = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def ours(*args, code=0):
    return run(PROGRAM, *args, code=code)


def openssl(*args, code=0):
    return run(OPENSSL, *args, code=code)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHADOWMESH_CA", raising=False)
    return tmp_path


def make_ca(name, algorithm="ML-DSA-87", section=CA_SECTION):
    """NAME.key and NAME.pem by openssl alone."""
    openssl("genpkey", "-algorithm", algorithm, "-out", f"{name}.key",
            *(("-pkeyopt", "ec_paramgen_curve:P-384") if algorithm == "EC" else ()))
    with open(f"{name}.cnf", "w", encoding="ascii") as file:
        file.write("[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n"
                   f"[dn]\nCN = {name}\n[ext]\n{section}")
    openssl("req", "-x509", "-new", "-key", f"{name}.key", "-config", f"{name}.cnf", "-days", "30",
            "-out", f"{name}.pem")


def make_node(name, ca, algorithm="ML-DSA-87", san=SAN, days=("-days", "10"), request=None):
    """NAME.pem by openssl, for a key of openssl or for a request of ours."""
    if request is None:
        request = f"{name}.csr"
        openssl("genpkey", "-algorithm", algorithm, "-out", f"{name}.key",
                *(("-pkeyopt", "ec_paramgen_curve:P-384") if algorithm == "EC" else ()))
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", request)
    with open(f"{name}.ext", "w", encoding="ascii") as file:
        file.write(NODE_SECTION.format(san=san))
    openssl("x509", "-req", "-in", request, "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", *days,
            "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def verdict(cert, ca, *more, accepted=True):
    text = run(PROGRAM, "ca", "show", "--file", cert, "--ca", ca, "--json", *more,
               code=0 if accepted else 1)
    answer = json.loads(text)
    assert answer["accepted"] is accepted
    return answer


def test_openssl_made_network_is_accepted():
    make_ca("authority")
    make_node("alice", "authority")
    answer = verdict("alice.pem", "authority.pem")
    assert answer["name"] == "alice"
    assert answer["network_id"] == NETWORK
    assert answer["addresses"] == ["10.7.0.2/32", "fd00:7::2/128"]
    # openssl writes seed and expanded key; we read it and agree on the fingerprint
    der = subprocess.run([OPENSSL, "pkey", "-in", "alice.key", "-pubout", "-outform", "DER"],
                         capture_output=True, check=True).stdout
    with open("alice.spki", "wb") as file:
        file.write(der)
    digest = openssl("dgst", "-sha256", "-r", "alice.spki").split()[0]
    assert ours("fingerprint", "alice.key") == f"sha256:{digest}\n"
    assert ours("fingerprint", "alice.pem") == f"sha256:{digest}\n"
    assert ours("fingerprint", "alice.csr") == f"sha256:{digest}\n"


def test_openssl_certifies_our_request():
    make_ca("authority")
    ours("request", "bob")
    openssl("req", "-in", "bob.req", "-verify", "-noout")
    make_node("bob", "authority", san=f"URI:shadowmesh://{NETWORK}/bob", request="bob.req")
    assert verdict("bob.pem", "authority.pem")["name"] == "bob"
    assert ours("fingerprint", "bob.key") == ours("fingerprint", "bob.pem")


def test_we_certify_a_request_of_openssl():
    ours("ca", "init", "home")
    openssl("genpkey", "-algorithm", "ML-DSA-87", "-out", "carol.key")
    openssl("req", "-new", "-key", "carol.key", "-subj", "/CN=carol", "-out", "carol.csr")
    ours("ca", "issue", "carol", "--request", "carol.csr", "--address", "10.7.0.9/24")
    openssl("verify", "-CAfile", "home-ca/ca.pem", "carol.pem")
    openssl("genpkey", "-algorithm", "ED25519", "-out", "dave.key")
    openssl("req", "-new", "-key", "dave.key", "-subj", "/CN=dave", "-out", "dave.csr")
    assert "not ML-DSA-87" in ours("ca", "issue", "dave", "--request", "dave.csr", code=1)


def test_ours_is_read_and_verified_by_openssl():
    ours("ca", "init", "home")
    ours("ca", "issue", "alice", "--address", "10.7.0.2/24", "--address", "fd00:7::2/64",
         "--group", "db", "--role", "relay")
    text = openssl("x509", "-in", "alice.pem", "-noout", "-text")
    assert "Version: 3" in text
    assert text.count("Signature Algorithm: ML-DSA-87") == 2
    assert "Public Key Algorithm: ML-DSA-87" in text
    assert re.search(r"Subject: CN ?= ?alice", text)
    assert re.search(r"Basic Constraints: critical\s+CA:FALSE", text)
    assert re.search(r"Key Usage: critical\s+Digital Signature\n", text)
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert re.search(r"URI:shadowmesh://[0-9a-f]{32}/alice, IP Address:10.7.0.2, "
                     r"IP Address:FD00:7:0:0:0:0:0:2", text)
    assert "2.25.124508153268231950913476801372649015311" in text
    text = openssl("x509", "-in", "home-ca/ca.pem", "-noout", "-text")
    assert re.search(r"CA:TRUE, pathlen:0", text)
    assert re.search(r"Key Usage: critical\s+Certificate Sign, CRL Sign", text)
    for purpose in ("sslserver", "sslclient"):
        openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", "home-ca/ca.pem",
                "alice.pem")


def test_our_keys_are_read_by_openssl(folder):
    ours("keygen", "-o", "plain.key")
    assert openssl("pkey", "-in", "plain.key", "-noout", "-text").startswith("ML-DSA-87 Private-Key")
    # PKCS#8 with the seed alone: 54 bytes
    der = subprocess.run([OPENSSL, "asn1parse", "-in", "plain.key"], capture_output=True,
                         text=True, check=True).stdout
    assert re.search(r"^ +0:d=0 +hl=2 l= +52 cons: SEQUENCE", der)
    assert (folder / "plain.key").stat().st_mode & 0o777 == 0o600

    (folder / "phrase").write_text("correct horse\n", encoding="ascii")
    (folder / "phrase").chmod(0o600)
    ours("keygen", "-o", "secret.key", "--passphrase-file", "phrase")
    text = openssl("asn1parse", "-in", "secret.key")
    for part in ("PBES2", "PBKDF2", "hmacWithSHA512", "aes-256-cbc"):
        assert part in text
    openssl("pkey", "-in", "secret.key", "-passin", "file:phrase", "-noout")
    openssl("pkey", "-in", "secret.key", "-passin", "pass:wrong", "-noout", code=1)


def test_we_read_an_encrypted_key_of_openssl(folder):
    (folder / "phrase").write_text("correct horse\n", encoding="ascii")
    (folder / "phrase").chmod(0o600)
    openssl("genpkey", "-algorithm", "ML-DSA-87", "-aes-256-cbc", "-pass", "file:phrase", "-out",
            "node.key")
    assert ours("fingerprint", "node.key", "--passphrase-file", "phrase").startswith("sha256:")
    (folder / "phrase").write_text("wrong\n", encoding="ascii")
    assert "wrong passphrase" in ours("fingerprint", "node.key", "--passphrase-file", "phrase",
                                      code=1)


def test_our_revocations_hold_for_openssl():
    ours("ca", "init", "home")
    ours("ca", "issue", "alice")
    ours("ca", "issue", "bob")
    args = ("verify", "-crl_check", "-CAfile", "home-ca/ca.pem", "-CRLfile", "home-ca/crl.pem")
    openssl(*args, "bob.pem")
    ours("ca", "revoke", "bob", "--reason", "keyCompromise")
    assert "certificate revoked" in openssl(*args, "bob.pem", code=2)
    openssl(*args, "alice.pem")
    text = openssl("crl", "-in", "home-ca/crl.pem", "-noout", "-text")
    assert "Key Compromise" in text
    assert re.search(r"CRL Number:\s+2\n", text)


def test_revocations_of_openssl_hold_for_us(folder):
    make_ca("authority")
    make_node("alice", "authority")
    make_node("bob", "authority", san=f"URI:shadowmesh://{NETWORK}/bob")
    (folder / "index.txt").write_text("", encoding="ascii")
    (folder / "number").write_text("1000\n", encoding="ascii")
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\n"
                                   "crlnumber = number\ndefault_md = default\n"
                                   "default_crl_days = 5\n", encoding="ascii")
    common = ("ca", "-config", "ca.cnf", "-cert", "authority.pem", "-keyfile", "authority.key")
    openssl(*common, "-revoke", "bob.pem")
    openssl(*common, "-gencrl", "-out", "crl.pem")
    verdict("alice.pem", "authority.pem", "--crl", "crl.pem")
    answer = verdict("bob.pem", "authority.pem", "--crl", "crl.pem", accepted=False)
    assert answer["reason"] == "revoked"
    # A list of a stranger
    make_ca("stranger")
    openssl("ca", "-config", "ca.cnf", "-cert", "stranger.pem", "-keyfile", "stranger.key",
            "-gencrl", "-out", "strange.pem")
    assert "not signed by a CA" in ours("ca", "show", "--file", "alice.pem", "--ca",
                                        "authority.pem", "--crl", "strange.pem", code=1)


@pytest.mark.parametrize("make, reason, sentence", [
    (lambda: (make_ca("authority"), make_ca("foreign"), make_node("alice", "foreign")),
     "not-trusted", "not signed by a CA of this network"),
    (lambda: (make_ca("authority"), make_ca("classical", "EC"), make_node("alice", "classical")),
     "not-trusted", "a classical CA"),
    (lambda: (make_ca("authority"), make_node("alice", "authority", "EC")),
     "not-trusted", "key that is not ML-DSA-87"),
    (lambda: (make_ca("authority"), make_node("alice", "authority", "ML-DSA-65")),
     "not-trusted", "key that is not ML-DSA-87"),
    (lambda: (make_ca("authority"),
              make_node("alice", "authority",
                        days=("-not_before", "20200101000000Z", "-not_after", "20210101000000Z"))),
     "expired", "expired on 2021-01-01"),
    (lambda: (make_ca("authority"),
              make_node("alice", "authority",
                        days=("-not_before", "21200101000000Z", "-not_after", "21210101000000Z"))),
     "expired", "is not valid before 2120-01-01"),
    (lambda: (make_ca("authority"), make_node("alice", "authority", san="DNS:alice")),
     "not-trusted", "no SAN URI"),
    (lambda: (make_ca("authority"),
              make_node("alice", "authority", san=f"URI:shadowmesh://{'9' * 32}/alice")),
     "network", "is of network 99999999"),
    (lambda: (make_ca("authority"),
              make_node("alice", "authority", san=f"URI:shadowmesh://{NETWORK}/Alice")),
     "not-trusted", "is not shadowmesh://NETWORK/NODE"),
], ids=["foreign-ca", "classical-ca", "classical-key", "smaller-key", "expired", "not-yet-valid",
        "no-san", "wrong-network", "wrong-name"])
def test_refused(make, reason, sentence):
    make()
    answer = verdict("alice.pem", "authority.pem", accepted=False)
    assert sentence in answer["error"]
    assert answer["reason"].replace("_", "-").replace(" ", "-") == reason


def test_classical_ca_is_refused_when_it_is_loaded():
    make_ca("classical", "EC")
    make_node("alice", "classical")
    assert "CA's key is not ML-DSA-87" in ours("ca", "show", "--file", "alice.pem", "--ca",
                                               "classical.pem", code=1)


def test_authority_keeps_its_books(folder):
    ours("ca", "init", "home", "--valid", "2y")
    assert "holds a CA already" in ours("ca", "init", "home", code=1)
    ours("ca", "issue", "alice", "--address", "10.7.0.2/24")
    assert "belongs to 'alice'" in ours("ca", "issue", "bob", "--address", "10.7.0.2/24", code=1)
    assert not (folder / "bob.key").exists()
    assert "--key ./alice.key" in ours("ca", "issue", "alice", "--address", "10.7.0.2/24", code=1)
    ours("ca", "issue", "alice", "--address", "10.7.0.2/24", "--key", "alice.key")
    ours("ca", "issue", "bob", "--address", "10.7.0.2/24", "--force", "--out", str(folder))
    rows = json.loads(ours("ca", "list", "--json"))
    assert [row["name"] for row in rows] == ["alice", "alice", "bob"]
    assert {row["status"] for row in rows} == {"valid"}
    assert ours("ca", "revoke", rows[2]["serial"][:12]).startswith("revoked: bob")
    assert "revoked or expired already" in ours("ca", "revoke", "bob", code=1)
    assert "no certificate of 'carol'" in ours("ca", "revoke", "carol", code=1)
    rows = json.loads(ours("ca", "list", "--json"))
    assert [row["status"] for row in rows] == ["valid", "valid", "revoked"]
    ours("ca", "crl", "--next-update", "30d")
    info = json.loads(ours("ca", "show", "--json"))
    assert info["crl"] == {"number": 3, "entries": 1}
    assert info["issued"] == 3
    # A revoked holder's address is free again, its key is none for ever
    ours("ca", "revoke", "alice")
    assert "this key is revoked" in ours("ca", "issue", "alice", "--key", "alice.key", code=1)
    ours("ca", "issue", "carol", "--address", "10.7.0.2/24")
    os.chmod("home-ca/ca.key", 0o644)
    assert "chmod 600" in ours("ca", "issue", "dave", code=1)


def test_config_check_reads_what_the_files_hold(folder):
    ours("ca", "init", "home")
    ours("ca", "issue", "alice")
    ours("ca", "issue", "bob", "--valid", "10d")

    def check(code, **other):
        files = {"ca": "home-ca/ca.pem", "crl": "home-ca/crl.pem", "cert": "alice.pem",
                 "key": "alice.key"} | other
        (folder / "home.conf").write_text(
            f"[Network]\nName = home\nCA = {files['ca']}\nCRL = {files['crl']}\n"
            f"[Node]\nCertificate = {files['cert']}\nPrivateKey = {files['key']}\n")
        return ours("config", "check", "home.conf", code=code)

    assert check(0) == "home.conf: good\n"
    assert "is not for the key in" in check(1, key="bob.key")
    assert "a network and no node" in check(1, cert="home-ca/ca.pem")
    assert "not a CA certificate" in check(1, ca="alice.pem")
    assert "no revocation list" in check(1, crl="alice.pem")
    assert "home.conf:4: [Network] CRL: " in check(1, crl="none.pem")
    assert "warning: home.conf: our certificate expires in" in check(0, cert="bob.pem",
                                                                    key="bob.key")


@pytest.mark.parametrize("args", [
    ("ca",), ("ca", "nonsense"), ("ca", "init"), ("ca", "init", "Bad_Name"),
    ("ca", "init", "a", "b"), ("ca", "issue"), ("ca", "issue", "x", "--address", "10.0.0.1"),
    ("ca", "issue", "x", "--role", "king"), ("ca", "issue", "x", "--valid", "soon"),
    ("ca", "issue", "x", "--key", "a", "--request", "b"), ("ca", "revoke"),
    ("ca", "revoke", "x", "--reason", "fun"), ("ca", "list", "x"), ("ca", "show", "--verify"),
    ("ca", "issue", "x", "--nonsense"), ("keygen", "x"), ("keygen", "--nonsense"),
    ("fingerprint",), ("request",), ("request", "Bad_Name"),
], ids=" ".join)
def test_wrong_use(args):
    assert "--help" in ours(*args, code=2)


@pytest.mark.parametrize("command", ["ca", "ca init", "ca issue", "ca revoke", "ca crl", "ca list",
                                     "ca show", "keygen", "fingerprint", "request"])
def test_help(command):
    text = ours(*command.split(), "--help")
    assert text.startswith(f"usage: shadowmesh {command} ")
    assert "Example" in text
