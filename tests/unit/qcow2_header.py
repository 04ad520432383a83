"""qcow2 headers made by hand, also ones that QEMU would never write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

MIB: Final = 1024 * 1024

Extensions = Sequence[tuple[int, bytes]]


def header(
    *,
    magic: bytes = b"QFI\xfb",
    version: int = 3,
    backing: bytes = b"",
    extensions: Extensions = (),
    ended: bool = True,
    cluster_bits: int = 16,
    size: int = 64 * MIB,
    method: int = 0,
    incompatible: int = 0,
    autoclear: int = 0,
    header_length: int | None = None,
    name_offset: int | None = None,
    name_size: int | None = None,
    snapshots: int = 0,
) -> bytes:
    """A header as QEMU writes it: extensions behind it, then the backing file name."""
    length = 72 if version == 2 else 104
    body = b"".join(extension(kind, data) for kind, data in extensions)
    body += struct.pack(">II", 0, 0) if ended else b""
    if name_offset is None:
        name_offset = length + len(body) if backing else 0
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        magic,
        version,
        name_offset,
        len(backing) if name_size is None else name_size,
        cluster_bits,
        size,
        method,
        1,
        0x30000,
        0x10000,
        1,
        snapshots,
        0,
    )
    if version == 3:
        tail = length if header_length is None else header_length
        fixed += struct.pack(">QQQII", incompatible, 0, autoclear, 4, tail)
    return fixed + body + backing


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
