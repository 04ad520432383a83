r"""
The qcow2 header: backing file and format, data file, encryption.

Only ever applied to bytes of a file that somebody states to be qcow2; whether a file *is* qcow2
is never concluded from them. Every length is checked before it is used; no name that is found
here is opened.

    offset   0  magic "QFI\xfb", version, backing name offset and size, cluster bits, virtual
                size, encryption method, …
            72  (version 3) feature bits, refcount order, header length
       ≤ 4096+  extensions: type, length, data padded to 8 bytes; type 0 ends them
                backing file name (not terminated), anywhere in the first cluster

Source: QEMU docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Refused

MAGIC: Final = b"QFI\xfb"
READ_SIZE: Final = 8192
"""Bytes of a file that `parse()` wants to see: QEMU puts extensions and the backing file's name
right behind the header, whatever the cluster size. The names are at most 1023 bytes (backing file)
and 4095 (data file) long, the rest takes about 1000."""

_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3_TAIL: Final = struct.Struct(">QQQII")
_EXTENSION: Final = struct.Struct(">II")
_BACKING_FORMAT: Final = 0xE2792ACA
_DATA_FILE_NAME: Final = 0x44415441
_BITMAPS: Final = 0x23852875
_ENCRYPTION_HEADER: Final = 0x0537BE77
_NOTHING: Final = 0x716E6F74
"""No extension of QEMU's, which skips what it does not know."""
_METHOD: Final = slice(32, 36)
_FEATURE_NAMES: Final = 0x6803F857
_INCOMPATIBLE_CORRUPT: Final = 1 << 1
_INCOMPATIBLE_DATA_FILE: Final = 1 << 2
_INCOMPATIBLE_EXTENDED_L2: Final = 1 << 4
_INCOMPATIBLE_KNOWN: Final = 0b11111
"""Dirty, corrupt, data file, compression type, extended L2."""
_AUTOCLEAR_BITMAPS: Final = 1 << 0
_NAME_LIMIT: Final = 1023
_FORMAT_LIMIT: Final = 15
_ENCRYPTION: Final = {0: None, 1: "aes", 2: "luks"}


class BadHeader(Refused):
    """A file that is stated to be qcow2 has a header that QEMU would not accept either."""

    msg = "{self.name} has no valid qcow2 header: {self.reason}"
    remedy = "Check who made this file; `qemu-img check -f qcow2` says more."

    name: str
    reason: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a qcow2 header says. Names are as they stand there: perhaps relative, perhaps hostile."""

    version: int
    virtual_size: int
    """Bytes."""
    backing_file: str | None = None
    backing_format: str | None = None
    """None as well where no backing file is named."""
    data_file: str | None = None
    """External data file; an empty name when only the feature bit is there. QEMU opens it only where
    that bit is set, but tells the name in any case."""
    encryption: str | None = None
    """`aes`, `luks` or None."""
    bitmaps: int = 0
    """Number of persistent bitmaps; those that a program without bitmaps has outdated, and that
    QEMU drops, do not count."""
    snapshots: int = 0
    """Number of internal snapshots."""
    is_corrupt: bool = False
    """Marked by QEMU, which then opens it for reading only."""
    has_subclusters: bool = False
    """Whether parts of a cluster may be allocated (`extended_l2`)."""


def parse(data: bytes, name: str) -> Header:
    """
    Parse the first bytes of a qcow2 file.

    Args:
        data: The first `READ_SIZE` bytes, or fewer if the file is shorter.
        name: What to call the file in an error.

    Raises:
        BadHeader: Cut off, another magic, an unknown version or feature, or a length that lies.
    """

    def bad(reason: str) -> BadHeader:
        return BadHeader(name, reason)

    if len(data) < _V2.size:
        raise bad(f"it ends after {len(data)} bytes")
    (magic, version, name_offset, name_size, cluster_bits, size, method, *rest) = _V2.unpack_from(
        data
    )
    if magic != MAGIC:
        raise bad("the magic is missing")
    if version not in (2, 3):
        raise bad(f"version {version} is unknown")
    if not 9 <= cluster_bits <= 21:
        raise bad(f"{cluster_bits} cluster bits are not between 9 and 21")
    if method not in _ENCRYPTION:
        raise bad(f"encryption method {method} is unknown")
    incompatible, autoclear, header_length = 0, 0, _V2.size
    if version == 3:
        if len(data) < _V2.size + _V3_TAIL.size:
            raise bad(f"it ends after {len(data)} bytes")
        incompatible, _, autoclear, _, header_length = _V3_TAIL.unpack_from(data, _V2.size)
        if header_length < _V2.size + _V3_TAIL.size or header_length % 8:
            raise bad(f"a header length of {header_length} is not possible")
        if incompatible & ~_INCOMPATIBLE_KNOWN:
            raise bad(f"incompatible features {incompatible:#x} are unknown")
    first_cluster = 1 << cluster_bits
    if header_length > first_cluster:
        raise bad("the header is longer than the first cluster")
    if name_offset and name_offset + name_size > first_cluster:
        raise bad("the backing file name is not within the first cluster")
    if name_size > _NAME_LIMIT:
        raise bad(f"a backing file name of {name_size} bytes is longer than {_NAME_LIMIT}")
    backing = None
    if name_offset:
        if name_offset < header_length or name_offset + name_size > len(data):
            raise bad("the backing file name lies outside of the header")
        backing = _text(data[name_offset : name_offset + name_size]) or None
    extensions = _extensions(data, header_length, name_offset or first_cluster, name)
    data_file = extensions.get(_DATA_FILE_NAME) if version == 3 else None
    if incompatible & _INCOMPATIBLE_DATA_FILE and data_file is None:
        data_file = b""
    backing_format = extensions.get(_BACKING_FORMAT, b"")
    if len(backing_format) > _FORMAT_LIMIT:
        raise bad(f"a format name of {len(backing_format)} bytes is longer than {_FORMAT_LIMIT}")
    bitmaps = extensions.get(_BITMAPS, b"") if autoclear & _AUTOCLEAR_BITMAPS else b""
    return Header(
        version=version,
        virtual_size=size,
        backing_file=backing,
        backing_format=(_text(backing_format) or None) if backing else None,
        data_file=None if data_file is None else _text(data_file),
        encryption=_ENCRYPTION[method],
        bitmaps=int.from_bytes(bitmaps[:4]) if len(bitmaps) >= 4 else 0,
        snapshots=rest[-2],
        is_corrupt=bool(incompatible & _INCOMPATIBLE_CORRUPT),
        has_subclusters=bool(incompatible & _INCOMPATIBLE_EXTENDED_L2),
    )


def first_cluster(data: bytes) -> int:
    """Bytes of the first cluster, which holds the whole header; of data that `parse` takes."""
    return 1 << int.from_bytes(data[20:24])


def without_encryption(data: bytes) -> bytes:
    """
    Have a qcow2 file say that it is not encrypted, so that its tables can be read without a key.

    Args:
        data: The whole file, or its beginning.

    Raises:
        BadHeader: See `parse`.
    """
    parse(data[:READ_SIZE], "the header")
    changed = bytearray(data)
    changed[_METHOD] = bytes(4)
    version, name_offset = int.from_bytes(data[4:8]), int.from_bytes(data[8:16])
    start = int.from_bytes(data[100:104]) if version == 3 else _V2.size
    for kind, at, _ in _located(data, start, name_offset or first_cluster(data), "the header"):
        if kind == _ENCRYPTION_HEADER:
            changed[at - _EXTENSION.size : at - 4] = _NOTHING.to_bytes(4)
    return bytes(changed)


def with_backing(data: bytes, name: str, format_: str) -> bytes:
    """
    Have a header name a backing file, as qemu-img does, which would ask for the key of an encrypted one.

    Nothing else changes, and the cluster keeps its size.

    Args:
        data: The first cluster.
        name: Of the backing file; at most 1023 bytes.
        format_: Of the backing file; at most 15 bytes.

    Raises:
        BadHeader: See `parse`; or it has no room for that.

    Source: qcow2_update_header(), block/qcow2.c.
    """
    before = parse(data, "the header")
    version, name_offset = int.from_bytes(data[4:8]), int.from_bytes(data[8:16])
    start = int.from_bytes(data[100:104]) if version == 3 else _V2.size
    parts = [(_BACKING_FORMAT, format_.encode())]
    for kind, at, length in _located(data, start, name_offset or len(data), "the header"):
        if kind != _BACKING_FORMAT:
            parts.append((kind, data[at : at + length]))
    made = bytearray(data[:start])
    for kind, content in (*parts, (0, b"")):
        made += _EXTENSION.pack(kind, len(content)) + content.ljust(
            (len(content) + 7) // 8 * 8, b"\0"
        )
    word = os.fsencode(name)
    made[8:20] = struct.pack(">QI", len(made), len(word))
    changed = bytes(made + word).ljust(len(data), b"\0")
    if len(changed) > len(data) or parse(changed, "the new header") != replace(
        before, backing_file=name, backing_format=format_
    ):
        raise BadHeader("the header", f"it has no room for {name!r}")
    return changed


def differ_in_format_alone(before: bytes, after: bytes) -> bool:
    """
    Whether two first clusters say the same of a file, but for the format of its backing file.

    Where the backing file's name stands may differ, and the names of features, which mean nothing.

    Raises:
        BadHeader: One of the two is not a qcow2 header.
    """
    old, new = parse(before, "the header"), parse(after, "the new header")
    if old.backing_file is None or replace(old, backing_format=new.backing_format) != new:
        return False
    fixed = [slice(20, _V2.size), *((slice(72, 80), slice(88, 100)) if old.version == 3 else ())]
    if any(before[part] != after[part] for part in fixed):
        return False
    return _meaning(before) == _meaning(after)


def _meaning(data: bytes) -> dict[int, bytes]:
    version, name_offset = int.from_bytes(data[4:8]), int.from_bytes(data[8:16])
    start = int.from_bytes(data[100:104]) if version == 3 else _V2.size
    found = _extensions(data, start, name_offset, "the header")
    return {kind: found[kind] for kind in found.keys() - {_BACKING_FORMAT, _FEATURE_NAMES}}


def _extensions(data: bytes, start: int, end: int, name: str) -> dict[int, bytes]:
    """Collect the header extensions; the last of a kind counts, as for QEMU (block/qcow2.c)."""
    found = _located(data, start, end, name)
    return {kind: data[at : at + length] for kind, at, length in found}


def _located(data: bytes, start: int, end: int, name: str) -> Iterator[tuple[int, int, int]]:
    """The kind of each extension, and where its data are."""
    at = start
    room = min(end, len(data))
    while at < end:
        if at + _EXTENSION.size > room:
            # What follows may name a backing format or a data file: not seen is not absent.
            raise BadHeader(name, f"its extensions do not end within {room} bytes")
        kind, length = _EXTENSION.unpack_from(data, at)
        if kind == 0:
            return
        at += _EXTENSION.size
        if at + length > room:
            raise BadHeader(name, f"extension {kind:#010x} of {length} bytes runs past its room")
        yield kind, at, length
        at += (length + 7) // 8 * 8


def _text(name: bytes) -> str:
    """File names are bytes; the same escapes as Python's own file functions use."""
    return name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
