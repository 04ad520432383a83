"""qcow2 headers that lie: about lengths, offsets, versions and names."""

from __future__ import annotations

import random
import struct
from typing import Final

from tests.unit.qcow2_header import header

BACKING_FORMAT: Final = 0xE2792ACA
DATA_FILE: Final = 0x44415441
BITMAPS: Final = 0x23852875
FEATURE_NAMES: Final = 0x6803F857
CRYPTO: Final = 0x0537BE77
KINDS: Final = (BACKING_FORMAT, DATA_FILE, BITMAPS, FEATURE_NAMES, CRYPTO, 0, 0x12345678)

NAMES: Final = (
    b"base",
    b"/share/base",
    b"../base",
    b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}',
    b"nbd://127.0.0.1:9/x",
    b"a\nb\x1b[2J\x07",
    b"\xff\xfe\x80",
    b"\xe2\x80\xae",
    b"base\0hidden",
    b"\0",
    b"n" * 1022,
    b"n" * 1023,
    b"n" * 1024,
)
FORMATS: Final = (
    b"raw",
    b"qcow2",
    b"file",
    b"",
    b"\0raw",
    b"r\xffw",
    b"a" * 15,
    b"a" * 16,
    b"\x1b[m",
)
FIELDS: Final = (
    *((4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4)),
    *((60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1)),
)
"""Offset and length of each field of a header."""
EDGES: Final = (
    *(0, 1, 2, 3, 7, 8, 9, 15, 16, 21, 22, 71, 72, 73, 103, 104, 105, 112, 120, 511, 512, 513),
    *(1022, 1023, 1024, 4095, 4096, 8184, 8191, 8192, 8200, 65535, 65536, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8),
)


def case(seed: int) -> bytes:
    """The first bytes of one hostile image."""
    rng = random.Random(f"headers {seed}")
    data = bytearray(sound(rng))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        _mutate(rng, data)
    return bytes(data)


def sound(rng: random.Random, *, names: tuple[bytes, ...] = NAMES) -> bytes:
    """A header as QEMU might write it, with anything in its extensions."""
    extensions = []
    for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 8))):
        kind = rng.choice(KINDS[:-2] if rng.randrange(8) else KINDS)
        match kind:
            case 0xE2792ACA:
                body = rng.choice(FORMATS)
            case 0x44415441:
                body = rng.choice(names)
            case 0x23852875:
                body = struct.pack(">IIQQ", rng.choice((0, 1, 2, 65535, 65536)), 0, 48, 0x50000)
            case 0x6803F857:
                body = b"".join(
                    struct.pack(">BB46s", rng.randrange(4), rng.randrange(70), b"feature")
                    for _ in range(rng.choice((1, 13, 300)))
                )
            case 0x0537BE77:
                body = struct.pack(">QQ", 0x40000, 4096)
            case _:
                body = rng.randbytes(rng.choice((0, 1, 7, 8, 9, 4000, 9000)))
        extensions.append((kind, body))
    rest = rng.choice((0, 8, 16))
    return header(
        version=rng.choice((2, 3, 3)),
        backing=rng.choice((b"", *names)),
        extensions=extensions,
        ended=bool(rng.randrange(8)),
        cluster_bits=rng.choice((9, 12, 16, 16, 21)),
        size=rng.choice((0, 512, 2**20, 2**40, 2**63, 2**64 - 1)),
        method=rng.choice((0, 0, 0, 1, 2)),
        incompatible=rng.choice((0, 0, 4, 1, 8, 16)),
        autoclear=rng.choice((0, 1, 2)),
    ) + bytes(rest)


def _mutate(rng: random.Random, data: bytearray) -> None:
    if not data:
        return
    at = rng.randrange(len(data))
    match rng.randrange(8):
        case 0 | 1:
            data[at] ^= 1 << rng.randrange(8)
        case 2 | 3:
            offset, length = rng.choice(FIELDS)
            value = rng.choice(EDGES) % 2 ** (8 * length)
            if offset + length <= len(data):
                data[offset : offset + length] = value.to_bytes(length)
        case 4:
            del data[at:]
        case 5:  # the length of an extension, wherever one seems to be
            places = [place for place in range(72, len(data) - 7, 8) if _is_extension(data, place)]
            if places:
                length = rng.choice(EDGES) % 2**32
                struct.pack_into(">I", data, rng.choice(places) + 4, length)
        case 6:
            data[at:at] = data[at : at + rng.choice((8, 16, 64))]
        case _:
            data += bytes(rng.choice((8, 600, 8192)))


def _is_extension(data: bytearray, at: int) -> bool:
    return int.from_bytes(data[at : at + 4]) in KINDS
