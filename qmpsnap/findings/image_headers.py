"""
What a tool that probes would take the first bytes of a raw file for.

Only ever applied to a file that is stated to be raw, and only to warn: the file stays raw.

Source: QEMU, the `bdrv_probe` functions of block/qcow2.c, qcow.c, vmdk.c, vdi.c, vhdx.c, vpc.c,
qed.c, parallels.c and crypto.c.
"""

from __future__ import annotations

import re
from typing import Final

READ_SIZE: Final = 2048
"""Bytes to look at; QEMU probes 512 of them, and other tools (a vmdk's text) some more."""

_MAGICS: Final = (
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"QED\0", "qed"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"LUKS\xba\xbe\0\1", "luks"),
    (0, b"LUKS\xba\xbe\0\2", "luks"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
_QCOW: Final = b"QFI\xfb"
_VMDK_TEXT: Final = re.compile(rb"(?:(?:#[^\n]*| *\r?)\n)*version=[123]\r?\n")
"""A descriptor: comments and empty lines, then the version (block/vmdk.c, vmdk_probe())."""


def looks_like(data: bytes) -> str | None:
    """
    Name the format whose header `data` would be, in QEMU's words; None for none.

    Args:
        data: The first `READ_SIZE` bytes of a file that is stated to be raw.
    """
    if data.startswith(_QCOW) and len(data) >= 8:
        version = int.from_bytes(data[4:8])
        return "qcow" if version == 1 else "qcow2" if version >= 2 else None
    for offset, magic, format_ in _MAGICS:
        if data[offset : offset + len(magic)] == magic:
            return format_
    return "vmdk" if _VMDK_TEXT.match(data) else None
