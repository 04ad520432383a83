"""
Image headers as a malicious guest writes them into its raw disk.

Each payload is what stands at offset 0 of the disk; behind it the disk reads as zeros. Where a
format can name another file, the payload names the victim.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpsnap.guests.files import qemu_img
from tests.rig import images

MIB: Final = 1024 * 1024
VIRTUAL_SIZE: Final = 1 * MIB
"""Bytes that the forged images claim to have."""
_SECTOR: Final = 512


@dataclass(frozen=True)
class Payload:
    """One header, and what it tries."""

    name: str
    title: str
    """For the documentation."""
    build: Callable[[Path, Path], bytes]
    """From a victim and an empty folder to the bytes; whole sectors."""


def _made(format_: str, *options: str) -> Callable[[Path, Path], bytes]:
    """A genuine empty image, made by qemu-img."""

    def build(victim: Path, folder: Path) -> bytes:
        file = str(folder / "made")
        words = [option.format(victim=victim) for option in options]
        qemu_img.run("create", file, "-q", "-f", format_, *words, file, str(VIRTUAL_SIZE))
        return _cut(Path(file).read_bytes())

    return build


def _cut(data: bytes) -> bytes:
    """Without the zeros at the end, in whole sectors."""
    data = data.rstrip(b"\0")
    return data + bytes(-len(data) % _SECTOR)


def _qcow2(backing: str | None = None) -> Callable[[Path, Path], bytes]:
    def build(victim: Path, folder: Path) -> bytes:
        name = None if backing is None else backing.replace("VICTIM", str(victim)).encode()
        return images.foreign_qcow2_header(VIRTUAL_SIZE, backing=name, data_file=None)

    return build


def _data_file(victim: Path, folder: Path) -> bytes:
    """With tables that map every cluster, so that the victim is read (CVE-2024-32498)."""
    # qemu-img would make the data file anew, so another of the same length stands in for it.
    other = victim.with_name("x" * len(victim.name))
    file = str(folder / "made")
    options = f"data_file={other},data_file_raw=on,preallocation=metadata"
    qemu_img.run("create", file, "-q", "-f", "qcow2", "-o", options, file, str(VIRTUAL_SIZE))
    other.unlink()
    made = Path(file).read_bytes()
    assert made.count(bytes(other)) == 1
    return _cut(made.replace(bytes(other), bytes(victim)))


def _json_name() -> str:
    file = {"driver": "file", "filename": "VICTIM"}
    return "json:" + json.dumps({"driver": "raw", "file": file})


def _nested(victim: Path, folder: Path) -> bytes:
    """A whole qcow2 image in the raw disk, whose content begins with another forged header."""
    inner, outer = folder / "inner", folder / "outer"
    inner.write_bytes(_qcow2("VICTIM")(victim, folder) + bytes(256 * 1024))
    source, target = str(inner), str(outer)
    qemu_img.run("convert", source, "-f", "raw", "-O", "qcow2", source, target)
    return _cut(outer.read_bytes())


def _vmdk_flat(victim: Path, folder: Path) -> bytes:
    sectors = victim.stat().st_size // _SECTOR
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\n\nRW {sectors} FLAT "{victim}" 0\n\n'
        'ddb.adapterType = "ide"\n'
    )
    return _cut(text.encode())


def _luks(victim: Path, folder: Path) -> bytes:
    """LUKS 1 with no key in any slot. Source: the LUKS on-disk format, version 1.2.3."""
    slots = b"".join(
        struct.pack(">II32sII", 0x0000DEAD, 0, b"", 8 + 504 * slot, 4000) for slot in range(8)
    )
    names = (b"aes", b"xts-plain64", b"sha256")
    uuid = b"7d4f1c55-8d53-4b10-b0ce-0d4c6f5a0000"
    # Payload at sector 4096, a key of 64 bytes, 1000 iterations over digest and salt.
    numbers = struct.pack(">II20s32sI40s", 4096, 64, b"\1" * 20, b"\2" * 32, 1000, uuid)
    start = b"LUKS\xba\xbe" + struct.pack(">H32s32s32s", 1, *names)
    return _cut(start + numbers + slots + b"\0")


def _bochs(victim: Path, folder: Path) -> bytes:
    """Source: QEMU block/bochs.c."""
    header = struct.pack(
        "<32s16s16sII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, 512
    )
    # Catalog entries, bitmap size, extent size, (reserved), disk size.
    return _cut(header + struct.pack("<IIIIQ", 64, 512, 65536, 0, VIRTUAL_SIZE) + b"\1")


def _cloop(victim: Path, folder: Path) -> bytes:
    """Source: QEMU block/cloop.c."""
    magic = (
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    )
    offsets = struct.pack(">3Q", 160, 260, 360)
    return _cut(magic.ljust(128, b"\0") + struct.pack(">II", 65536, 2) + offsets + b"\1")


PAYLOADS: Final = (
    Payload("qcow2", "qcow2", _qcow2()),
    Payload("qcow2-backing", "qcow2, backed by the victim", _qcow2("VICTIM")),
    Payload(
        "qcow2-backing-raw",
        "qcow2, backed by the victim, backing format raw",
        _made("qcow2", "-u", "-b", "{victim}", "-F", "raw"),
    ),
    Payload(
        "qcow2-backing-json",
        "qcow2, backed by a `json:` name of the victim",
        _qcow2(_json_name()),
    ),
    Payload("qcow2-data-file", "qcow2, the victim as data file", _data_file),
    Payload("qcow2-nested", "qcow2 with a forged qcow2 header as its content", _nested),
    Payload(
        "qcow",
        "qcow (version 1), backed by the victim",
        _made("qcow", "-u", "-b", "{victim}", "-F", "raw"),
    ),
    Payload(
        "qed",
        "qed, backed by the victim",
        _made("qed", "-u", "-b", "{victim}", "-F", "raw"),
    ),
    Payload("vmdk-flat", "vmdk descriptor, the victim as flat extent", _vmdk_flat),
    Payload("vmdk-sparse", "vmdk, sparse", _made("vmdk")),
    Payload("vdi", "vdi", _made("vdi")),
    Payload("vhdx", "vhdx", _made("vhdx")),
    Payload("vpc", "vpc (VHD)", _made("vpc")),
    Payload("parallels", "parallels", _made("parallels")),
    Payload("luks", "LUKS, version 1", _luks),
    Payload("bochs", "bochs", _bochs),
    Payload("cloop", "cloop", _cloop),
)


def forged(name: str, victim: Path, folder: Path) -> bytes:
    """
    The bytes of a payload.

    Args:
        name: Of one of `PAYLOADS`.
        victim: The file that it is to name.
        folder: Where files may be made on the way.
    """
    payload = next(one for one in PAYLOADS if one.name == name)
    workshop = folder / "payload"
    workshop.mkdir()
    return payload.build(victim, workshop)


def put(data: bytes, file: Path) -> None:
    """Write to the start of a file, at rest."""
    with file.open("r+b") as opened:
        opened.write(data)
