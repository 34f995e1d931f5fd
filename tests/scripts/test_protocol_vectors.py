# SPDX-License-Identifier: MIT
"""docs/PROTOCOL.md by itself: its test vectors, computed from its words alone.

Nothing of ours runs here: the protocol is written down a second time in paper.py. tests/unit/test_crypto_vectors.c holds the same vectors against the code, so the two
agree byte by byte. The table of constants is compared with src/wire/const.h.

Environment: SM_OPENSSL, the program; SM_SOURCE, the checkout.
"""

import hashlib
import hmac
import os
import re
import struct

import pytest

from paper import (AES256GCM, CHACHA20POLY1305, CLIENT_TO_SERVER, FRAME, PART, PROBE, SERVER_TO_CLIENT, STREAM,
                   Lane, address, expand, expand_label, extract, first_secret, labelled, mac_of, message,
                   next_secret, node_id, seal_chacha, seal_gcm, ula_of)

SOURCE = os.environ.get("SM_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def section(title):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", read("docs/PROTOCOL.md"), re.M | re.S)
    assert found, f"PROTOCOL.md has no section {title}"
    return found[1]


def vectors():
    """{name: bytes}; "name = hexadecimal", continued on lines that begin with a space"""
    found = {}
    for block in re.findall(r"^```\n(.*?)^```", section("Test vectors"), re.M | re.S):
        for name, digits in re.findall(r"^(\w+) = ([0-9a-f]+(?:\n [0-9a-f]+)*)$", block, re.M):
            found[name] = bytes.fromhex(re.sub(r"\s", "", digits))
    return found


VECTORS = vectors()
checked = set()


def expect(name, data):
    checked.add(name)
    assert name in VECTORS, f"PROTOCOL.md lacks {name} = {data.hex()}"
    assert data.hex() == VECTORS[name].hex(), name


def count_up(first, length):
    """a, a+1, ... as the table of inputs says"""
    return bytes((first + i) % 256 for i in range(length))


def test_the_parts_make_known_aeads():
    """McGrew and Viega's test case 16; RFC 8439, 2.8.2"""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    text = bytes.fromhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809"
                         "532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
    ad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = seal_gcm(key, bytes.fromhex("cafebabefacedbaddecaf888"), ad, text)
    assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
    text = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
            b"sunscreen would be it.")
    sealed = seal_chacha(count_up(0x80, 32), bytes.fromhex("070000004041424344454647"),
                         bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), text)
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


# --- "Identity" ---


def check_identity(who, network, subject):
    node = node_id(network, subject)
    expect(f"{who}_node_id", node)
    expect(f"{who}_mac", mac_of(node))
    expect(f"{who}_ula", ula_of(network, node))


def test_identity():
    check_identity("certified", count_up(0x00, 16), b"alice")
    home = labelled(b"network", b"home")[:16]
    expect("home_network_id", home)
    check_identity("pinned", home, count_up(0x20, 32))


# --- "Access key" ---


def test_access_key():
    psk = expand(extract(b"shadowmesh/1 access", count_up(0x40, 32)), count_up(0x00, 16), 48)
    expect("access_psk", psk)
    early = extract(bytes(48), psk)
    key = expand_label(expand_label(early, b"ext binder", hashlib.sha384(b"").digest(), 48),
                       b"finished", b"", 48)
    covered = count_up(0x00, 300)
    expect("access_binder", hmac.digest(key, hashlib.sha384(covered).digest(), "sha384"))


# --- "Control messages" ---


def test_control_messages():
    expect("hello", message(0x8001, struct.pack(">HBBBBHHHIQQ", 1, 1, 0b11, 0, 2, 9443, 8443, 1500,
                                                0xa1b20003, 0x1122334455667788, 0b1)))
    expect("ready", message(0x8002, b""))
    expect("endpoints", message(0x0003, b"\x02" +
                                b"\x00" + address("192.0.2.1", 9443, struct.pack(">H", 8443)) +
                                b"\x01" + address("2001:db8::7", 9443, struct.pack(">H", 0))))
    expect("observed", message(0x0004, address("198.51.100.7", 40000) + b"\x00"))
    expect("ping", message(0x0005, struct.pack(">Q", 0x0102030405060708)))
    expect("wanted", message(0x0009, b""))
    expect("close", message(0x800a, struct.pack(">H", 6) + b"tap against tun"))


# --- "Key schedule", "Data packets", and the bodies ---


def check_packet(name, lane, session, number, body, kind):
    content = body + bytes([kind])
    expect(f"{name}_key", lane.key)
    expect(f"{name}_iv", lane.iv)
    expect(f"{name}_content", content)
    datagram = lane.seal(session, number, content)
    expect(f"{name}_datagram", datagram)
    assert lane.open(datagram) == (number, content)
    assert lane.open(datagram[:-1] + bytes([datagram[-1] ^ 1])) is None


def test_key_schedule_and_packets():
    secret = first_secret(count_up(0x60, 48))
    expect("secret_0", secret)
    frame = bytes.fromhex("020000000002" "020000000001" "88b5") + b"hi"
    check_packet("frame", Lane(secret, CLIENT_TO_SERVER, AES256GCM, 0, 1), 0xa1b20003, 0x0102, frame, FRAME)

    request = message(0x8007, struct.pack(">I", 1) + b"\x11" * 1665)
    reply = message(0x8008, struct.pack(">I", 1) + b"\x22" * 1665)
    secret = next_secret(secret, count_up(0x90, 80), request, reply)
    expect("secret_1", secret)
    probe = struct.pack(">BQ", 0, 0x0102030405060708).ljust(28, b"\0")
    check_packet("probe", Lane(secret, SERVER_TO_CLIENT, CHACHA20POLY1305, 1, 0), 0x0badcafe, 7, probe, PROBE)


def test_bodies():
    expect("part_content", b"piece" + struct.pack(">BBH", 1, 3, 0) + bytes([PART]))
    expect("segment_content", struct.pack(">II", 0xfffffff0, 0x00000100) +
           message(0x0005, struct.pack(">Q", 0x0102030405060708)) +
           bytes([STREAM]))
    expect("answer_content", struct.pack(">BQ", 1, 0x0102030405060708) + address("2001:db8::7", 9443) +
           bytes([PROBE]))


def test_no_vector_is_left_over():
    """The last of them: a vector that nobody computes proves nothing."""
    if not checked:
        pytest.skip("only with the tests before")
    assert checked == set(VECTORS)


# --- the table of constants ---


def constants():
    """{name: value} of src/wire/const.h; times in seconds"""
    text = re.sub(r"/\*.*?\*/", "", read("src/wire/const.h"), flags=re.S).replace("\\\n", " ")
    found = {}
    for name, value in re.findall(r"^#define (SM_\w+)[ \t]+(\S.*?)[ \t]*$", text, re.M):
        value = re.sub(r"UINT64_C\((\w+)\)", r"\1", value)
        value = re.sub(r"\b(0x[0-9a-f]+|\d+)u\b", r"\1", value)
        for other, known in found.items():
            value = re.sub(rf"\b{other}\b", repr(known), value)
        found[name] = eval(value, {"__builtins__": {}}, {"SM_SEC_US": 1})  # pylint: disable=eval-used
    return found


def test_limits_are_those_of_the_header():
    told = {}
    for name, value, unit in re.findall(r"^\| (SM_\w+) \| (\S+) \| (.*?) ?\|$", section("Limits"), re.M):
        if value.startswith("`"):
            told[name] = value.strip("`")
        elif value.startswith("2^"):
            told[name] = 2 ** int(value[2:])
        else:
            told[name] = int(value, 0) * (3600 if unit.split(" ")[0].rstrip(",") == "h" else 1)
    assert told == constants()
