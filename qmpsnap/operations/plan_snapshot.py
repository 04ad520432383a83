"""What a create will do, decided before anything is touched. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.operations.names import (
    SnapshotExists,
    backing_name,
    check_belongs,
    overlay_name,
    tidy,
)
from qmpsnap.operations.requests import BadFileName, CreateRequest
from qmpsnap.operations.volume import DiskUnsuitable, FormatUncertain, Volume, VolumeLayer, usable

_BACKABLE: Final = frozenset({"raw", "qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc", "luks"})


class DiskTwice(Refused):
    """Two of the disks to take a snapshot of are the same one."""

    msg = "disk {self.disk} is named twice: as {self.first!r} and as {self.second!r}"
    remedy = "Name each disk once; `qmpsnap disks` lists them."

    disk: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePlan:
    """Put an overlay on a disk."""

    disk: Volume
    active: VolumeLayer
    """Becomes the first backing file."""
    overlay: str
    """Path of the overlay."""
    backing_name: str
    """Name of the active file for the overlay's header: relative where they share a folder."""
    backing_format: str
    virtual_size: int
    """Bytes; the overlay must have just these."""

    @property
    def file(self) -> str:
        """Bare name of the overlay."""
        return os.path.basename(self.overlay)


def plan_creates(guest: Disks, requests: Iterable[CreateRequest]) -> tuple[CreatePlan, ...]:
    """
    Plan one new overlay for each of several disks.

    Raises:
        Refused: See `plan_create`; for any of them.
        DiskTwice: Two requests are about the same disk.
        BadFileName: Two overlays would be the same file.
    """
    plans: list[CreatePlan] = []
    asked: dict[str, str] = {}
    for request in requests:
        plan = plan_create(guest, request)
        name = plan.disk.disk
        if name in asked:
            raise DiskTwice(name, asked[name], request.disk)
        asked[name] = request.disk
        for other in plans:
            if other.overlay == plan.overlay:
                reason = f"it would be the new file of {other.disk.disk} as well"
                raise BadFileName("new_file", plan.file, reason)
        plans.append(plan)
    return tuple(plans)


class AlreadyActive(BadFileName):
    """
    A snapshot was asked for again that was taken before.

    Nobody may be told that it has failed: the guest writes to its overlay.
    """

    remedy = "The snapshot is there already: look at `qmpsnap chain` and `qmpsnap log`."


def plan_create(guest: Disks, request: CreateRequest) -> CreatePlan:
    """
    Plan a new overlay.

    Raises:
        DiskNotFound, DiskAmbiguous, DiskUnsuitable, FormatUncertain: The disk cannot be used.
        BadFileName, BadSnapshotName, SnapshotExists: The overlay's name is another volume's, or
            in use; `AlreadyActive`: by this very disk.
    """
    disk = usable(guest.disk(request.disk))
    active = disk.layers[0]
    new_file = request.new_file or overlay_name(disk, request.snapshot)
    check_belongs(new_file, disk, tuple(other for other in guest.disks if other.disk != disk.disk))
    beside = os.path.dirname(active.path)
    path = os.path.join(beside if request.into is None else request.into, new_file)
    for other in guest.disks:
        if any(layer.path == path for layer in other.layers):
            if request.new_file is None:
                raise SnapshotExists(request.snapshot, new_file, other.disk)
            reason = f"it is in use in the chain of {other.disk}"
            if other.disk == disk.disk and path == active.path and len(disk.layers) > 1:
                raise AlreadyActive("new_file", new_file, f"{reason}, and the guest writes to it")
            raise BadFileName("new_file", new_file, reason)
    if active.format not in _BACKABLE:
        raise FormatUncertain(active.file, f"{active.format} cannot be a backing format")
    if active.virtual_size is None:
        raise DiskUnsuitable(disk.disk, "its size is not known", "Give the tool access to QMP.")
    return CreatePlan(
        disk=disk,
        active=active,
        overlay=path,
        backing_name=backing_name(active.file)
        if tidy(os.path.dirname(path)) == tidy(beside)
        else active.path,
        backing_format=active.format,
        virtual_size=active.virtual_size,
    )
