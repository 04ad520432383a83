"""What can be seen on this host around a chain: who uses its files, and how much room they have."""

from __future__ import annotations

from collections.abc import Collection

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.neighbours import BY_LOCKS, layer_paths, other_users, space_of
from qmpsnap.guests.files.resting import Resting, resting_on
from qmpsnap.operations.guards import Surroundings


def around(
    disk: Disk, left: Collection[str] | None, *, runs: bool, qemu: int | None = None
) -> Surroundings:
    """
    What can be seen on this host around a disk.

    Args:
        disk: As it was planned with.
        left: See `Guest.neighbours`. What has left the chain its own QEMU has open no more, so
            whoever has it open is somebody else.
        runs: Whether the guest does.
        qemu: Its process, where that is known.
    """
    paths = layer_paths(disk, left)
    active = disk.layers[0].path if runs and left is None else None
    own = qemu if left is None else None
    readers, notes = other_users(paths, active, qemu=own, left=left is not None)
    if not runs:  # else its own QEMU has locks on them; those that have left were looked at
        readers |= {
            path: (BY_LOCKS,) for path in paths if path not in readers and in_use_by_qemu(path)
        }
    # Before the first change only: the removal of a file looks again itself.
    beside = resting_on(disk) if left is None else Resting({}, {})
    allocated, free = space_of(paths)
    return Surroundings(
        readers=readers,
        resting=beside.younger,
        older=beside.older,
        allocated=allocated,
        free=free,
        notes=(*notes, *beside.notes),
    )
