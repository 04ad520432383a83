"""
How much a merge moves, and how much the file it writes can grow by. Pure.

Both are upper bounds, from allocated bytes: what is allocated in the file already is counted
again, since what lies where is not asked for (it would cost a reading of every layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from qmpsnap.operations.volume import VolumeLayer

_METADATA_SHIFT: Final = 11
"""A qcow2 needs 16 bytes of tables and counts for a cluster of 64 KiB, 1/4096 of its size; twice
that is more than any cluster size that is used needs (docs/interop/qcow2.txt)."""
_METADATA_FLOOR: Final = 1024 * 1024


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge does to the file that it writes, in bytes."""

    moved: int
    """Bytes that are copied, at most."""
    needed: int
    """Bytes that the file grows by on the host, at most."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a job writes, and how much room is left where it lies."""

    file: str
    mount: str
    """Where its file system is mounted."""
    free: int
    """Bytes that its owner may still write there."""
    allocated: int
    """Bytes that the file takes there now."""

    def shortage(self, left: int) -> str:
        """Say how much is missing and where, when `left` bytes are still to be copied at most."""
        have = f"{bytes_text(self.free)} free on {self.mount}"
        missing = max(0, left - self.free)
        more = f": up to {bytes_text(missing)} more are needed" if missing else ""
        return f"writing {self.file}, which takes {bytes_text(self.allocated)}; {have}{more}"


def bytes_text(value: float) -> str:
    """Bytes in the largest binary unit that keeps them above 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def growth(
    sources: tuple[VolumeLayer, ...], target: VolumeLayer, allocated: Mapping[str, int]
) -> Growth | None:
    """
    Estimate a merge of `sources` into `target`.

    Args:
        sources: Layers whose data moves.
        target: The layer that is written.
        allocated: Allocated bytes by path.

    Returns:
        None when the allocation of a layer is not known.
    """
    sizes = [allocated.get(layer.path) for layer in (*sources, target)]
    *moved, present = sizes
    if present is None or any(size is None for size in moved):
        return None
    total = sum(size for size in moved if size is not None)
    virtual = max((layer.virtual_size or 0 for layer in (*sources, target)), default=0)
    if virtual:
        total = min(total, virtual)
    tables = (virtual >> _METADATA_SHIFT) + _METADATA_FLOOR if target.format == "qcow2" else 0
    room_in_file = max(0, virtual + tables - present) if virtual else total
    return Growth(moved=total, needed=min(total + tables, room_in_file))
