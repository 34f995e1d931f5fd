# SPDX-License-Identifier: MIT
"""
PROTOCOL.md written down a second time, for tests that compare it with ours: identities, messages, key
schedule, packets. The cryptography is that of the `openssl` program (3.5 or newer; SM_OPENSSL names it) and of
Python's library; GCM and the AEAD of RFC 8439 are put together from their parts.
"""

import hashlib
import ipaddress
import os
import struct
import subprocess

OPENSSL = os.environ.get("SM_OPENSSL") or "openssl"
CLIENT_TO_SERVER, SERVER_TO_CLIENT = 0, 1
AES256GCM, CHACHA20POLY1305 = 0, 1
FRAME, PART, STREAM, PROBE = 1, 2, 3, 4

# --- cryptography from its parts ---


def openssl(*args, stdin=b""):
    done = subprocess.run([OPENSSL, *args], input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"openssl {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout


def hkdf(mode, length, **options):
    """RFC 5869 with SHA-384 by the openssl program"""
    words = [word for name, value in options.items() if value
             for word in ("-kdfopt", f"hex{name}:{value.hex()}")]
    return openssl("kdf", "-binary", "-keylen", str(length), "-kdfopt", "digest:SHA384", "-kdfopt",
                   f"mode:{mode}", *words, "HKDF")


def extract(salt, ikm):
    return hkdf("EXTRACT_ONLY", 48, key=ikm, salt=salt)


def expand(secret, info, length):
    return hkdf("EXPAND_ONLY", length, key=secret, info=info)


def expand_label(secret, label, context, length):
    """RFC 8446, 7.1"""
    label = b"tls13 " + label
    return expand(secret, struct.pack(">HB", length, len(label)) + label +
                  struct.pack("B", len(context)) + context, length)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def cipher(name, key, iv, data):
    return openssl("enc", f"-{name}", "-K", key.hex(), "-iv", iv.hex(), "-nopad", stdin=data)


def gf_multiply(x, y):
    """In GF(2^128) with the bits of NIST SP 800-38D, 6.3"""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = x >> 1 ^ (0xe1 << 120 if x & 1 else 0)
    return product


def padded(data):
    return data + bytes(-len(data) % 16)


def seal_gcm(key, nonce, ad, data):
    """NIST SP 800-38D, 7.1, with AES-CTR as the only piece that is not written here"""
    subkey = int.from_bytes(cipher("aes-256-ctr", key, bytes(16), bytes(16)), "big")
    stream = cipher("aes-256-ctr", key, nonce + struct.pack(">I", 1), bytes(16) + data)
    mask, sealed = stream[:16], stream[16:]
    state = 0
    whole = padded(ad) + padded(sealed) + struct.pack(">QQ", 8 * len(ad), 8 * len(sealed))
    for at in range(0, len(whole), 16):
        state = gf_multiply(state ^ int.from_bytes(whole[at:at + 16], "big"), subkey)
    return sealed + xor(mask, state.to_bytes(16, "big"))


def seal_chacha(key, nonce, ad, data):
    """RFC 8439, 2.8"""
    def stream(counter, text):
        return cipher("chacha20", key, struct.pack("<I", counter) + nonce, text)

    sealed = stream(1, data)
    whole = padded(ad) + padded(sealed) + struct.pack("<QQ", len(ad), len(sealed))
    tag = openssl("mac", "-binary", "-macopt", f"hexkey:{stream(0, bytes(32)).hex()}", "-in", "-",
                  "Poly1305", stdin=whole)
    return sealed + tag


def opened(seal, name, key, counter_iv, nonce, ad, sealed):
    """What sealing again gives the same bytes is authentic."""
    text = cipher(name, key, counter_iv, sealed[:-16])
    return text if seal(key, nonce, ad, text) == sealed else None


def open_gcm(key, nonce, ad, sealed):
    return opened(seal_gcm, "aes-256-ctr", key, nonce + struct.pack(">I", 2), nonce, ad, sealed)


def open_chacha(key, nonce, ad, sealed):
    return opened(seal_chacha, "chacha20", key, struct.pack("<I", 1) + nonce, nonce, ad, sealed)


SEAL = {AES256GCM: seal_gcm, CHACHA20POLY1305: seal_chacha}
OPEN = {AES256GCM: open_gcm, CHACHA20POLY1305: open_chacha}


# --- "Identity" ---


def labelled(label, *pieces):
    return hashlib.sha256(b"shadowmesh/1 " + label + b"".join(pieces)).digest()


def node_id(network, who):
    return labelled(b"node", network, who)[:16]


def mac_of(node):
    mac = bytearray(labelled(b"mac", node)[:6])
    mac[0] = mac[0] & 0xfc | 0x02
    return bytes(mac)


def ula_of(network, node):
    return b"\xfd" + labelled(b"ula", network)[:7] + labelled(b"iid", node)[:8]


# --- "Control messages" ---


def message(kind, value=b""):
    return struct.pack(">HH", kind, len(value)) + value


def address(text, port, between=b""):
    """family (8), port (16), ip; ENDPOINTS has the control port between the last two"""
    ip = ipaddress.ip_address(text)
    return struct.pack(">BH", ip.version, port) + between + ip.packed


# --- "Key schedule", "Data packets" ---


def first_secret(root):
    return extract(b"shadowmesh/1 epoch", root)


def next_secret(secret, kem_secret, request, reply):
    """request, reply: whole control messages"""
    return extract(secret, kem_secret + hashlib.sha384(request + reply).digest())


class Lane:
    """Key and IV of one sender in one epoch and direction."""

    def __init__(self, secret, direction, suite, epoch, lane):
        tail = struct.pack(">BBIB", direction, suite, epoch, lane)
        self.key = expand(secret, b"shadowmesh/1 key" + tail, 32)
        self.iv = expand(secret, b"shadowmesh/1 iv" + tail, 12)
        self.suite, self.epoch, self.lane = suite, epoch, lane

    def nonce(self, number):
        return xor(self.iv, bytes(4) + struct.pack(">Q", number))

    def seal(self, session, number, content):
        """content: body and kind"""
        header = struct.pack(">BBBBIQ", 0x80, self.epoch % 256, self.lane, 0, session, number)
        return header + SEAL[self.suite](self.key, self.nonce(number), header, content)

    def open(self, datagram):
        """(packet number, content); None if it is not authentic"""
        header, sealed = datagram[:16], datagram[16:]
        number = struct.unpack_from(">Q", header, 8)[0]
        content = OPEN[self.suite](self.key, self.nonce(number), header, sealed)
        return None if content is None else (number, content)
