"""The header that a malicious guest writes into its raw disk, and who believes it."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from qmpsnap.guests.files import qemu_img

_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
"""Version 3, without the fields behind `header_length`."""
_EXTENSION: Final = struct.Struct(">II")
_DATA_FILE_NAME: Final = 0x44415441
_INCOMPATIBLE_DATA_FILE: Final = 1 << 2
_CLUSTER_BITS: Final = 16
_CLUSTER: Final = 1 << _CLUSTER_BITS
_SECTOR: Final = 512


def foreign_qcow2_header(size: int, backing: bytes | None, data_file: bytes | None) -> bytes:
    """
    Forge the qcow2 header that a malicious guest writes at offset 0 of its raw disk.

    Whoever opens that disk without an explicit format sees a qcow2 image over a host file of the
    guest's choice (CVE-2014-3641, CVE-2024-32498). The L1 table is said to lie at 64 KiB and the
    refcount table at 128 KiB: both must read as zeros, as in a fresh disk of 192 KiB or more.

    Args:
        size: Virtual size to claim, in bytes.
        backing: Name for the backing file, or None. No backing format is recorded.
        data_file: Name for the external data file, or None.

    Returns:
        The header, padded to whole sectors of 512 bytes.

    Source: QEMU docs/interop/qcow2.txt.
    """
    extensions = b""
    if data_file is not None:
        padded = data_file + bytes(-len(data_file) % 8)
        extensions += _EXTENSION.pack(_DATA_FILE_NAME, len(data_file)) + padded
    extensions += _EXTENSION.pack(0, 0)
    name = backing or b""
    # Each L1 entry stands for one cluster of L2 entries, of 8 bytes each.
    l1_entries = -(-size // (_CLUSTER * _CLUSTER // 8))
    header = _HEADER.pack(
        b"QFI\xfb",
        3,
        _HEADER.size + len(extensions) if name else 0,
        len(name),
        _CLUSTER_BITS,
        size,
        0,  # not encrypted
        l1_entries,
        1 * _CLUSTER,
        2 * _CLUSTER,
        1,  # clusters of refcount table
        0,  # internal snapshots
        0,
        _INCOMPATIBLE_DATA_FILE if data_file is not None else 0,
        0,  # compatible features
        0,  # autoclear features
        4,  # refcounts of 16 bits
        _HEADER.size,
    )
    whole = header + extensions + name
    return whole + bytes(-len(whole) % _SECTOR)


class _Believed(msgspec.Struct, rename="kebab"):
    format: str
    backing_filename: str | None = None


def what_probing_believes(path: str | os.PathLike[str]) -> str:
    """
    Tell what a tool that looks into a file takes it for. For showing; nothing may act on it.

    This is the one call of qemu-img without a format in this project. It is safe on the file of
    a throw-away guest: `info` opens the file alone, not what its header names.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be told.
    """
    name = str(Path(path).absolute())
    said = msgspec.json.decode(
        qemu_img.run("info", name, "-U", "--output=json", name), type=_Believed
    )
    backing = said.backing_filename
    return said.format + (f", backed by {backing}" if backing else "")


def what_believing_reads(path: Path) -> bytes:
    """
    Read a copy of a disk as the qcow2 image that it is not, as whoever has probed it does next.

    Of the copy alone: QEMU opens the file that the forged header names, and only reads it.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be read.
    """
    with TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
        copy, read = Path(scratch, path.name), Path(scratch, "read")
        shutil.copyfile(path, copy)
        qemu_img.run("convert", str(copy), "-f", "qcow2", "-O", "raw", str(copy), str(read))
        return read.read_bytes()
