"""The lengths of raw files, which no header tells: where QMP cannot be had, the files are asked."""

from __future__ import annotations

import os
import stat

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Layer

_SECTOR = 512


def with_raw_sizes(disk: Disk) -> Disk:
    """The disk with the lengths of its raw layers, as far as their files can be looked at."""
    if all(layer.virtual_size is not None for layer in disk.layers):
        return disk
    return replace(disk, layers=tuple(_with_size(layer) for layer in disk.layers))


def _with_size(layer: Layer) -> Layer:
    if layer.virtual_size is not None or layer.format != "raw" or layer.path is None:
        return layer
    if "slice" in layer.flags:
        return layer
    return replace(layer, virtual_size=raw_size(layer.path))


def raw_size(path: str) -> int | None:
    """
    The bytes of a raw file or block device, in full sectors as QEMU counts them.

    None for anything else, and for a device that cannot be opened.

    Source: bdrv_refresh_total_sectors(), block.c.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return _length(path)
    except OSError:
        return None
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            return None
        size = os.lseek(descriptor, 0, os.SEEK_END)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return _in_sectors(size)


def _length(path: str) -> int | None:
    """Of a regular file that may not be opened."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _in_sectors(status.st_size) if stat.S_ISREG(status.st_mode) else None


def _in_sectors(size: int) -> int:
    return -(-size // _SECTOR) * _SECTOR
