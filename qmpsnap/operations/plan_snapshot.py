"""What a create will do, decided before anything is touched. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.operations.names import (
    SnapshotExists,
    backing_name,
    check_belongs,
    find_snapshot,
    overlay_name,
    tidy,
)
from qmpsnap.operations.requests import NAME_MAX, TOO_LONG, BadFileName, CreateRequest
from qmpsnap.operations.volume import DiskUnsuitable, FormatUncertain, Volume, VolumeLayer, usable

_BACKABLE: Final = frozenset({"raw", "qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc", "luks"})


class DiskTwice(Refused):
    """Two of the disks to take a snapshot of are the same one."""

    msg = "disk {self.disk} is named twice: as {self.first!r} and as {self.second!r}"
    remedy = "Name each disk once; `qmpsnap disks` lists them."

    disk: str
    first: str
    second: str


class CreatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Put an overlay on a disk, or, to revert it, over one of its lower layers."""

    disk: Volume
    active: VolumeLayer
    """Becomes the first backing file: the active one, or, of a revert, the one that is gone back to."""
    overlay: str
    """Path of the overlay."""
    backing_name: str
    """Name of the active file for the overlay's header: relative where they share a folder."""
    backing_format: str
    virtual_size: int
    """Bytes; the overlay must have just these."""

    @property
    def secret(self) -> str | None:
        """UUID of libvirt's secret that the overlay is encrypted with; None: it is not."""
        return self.active.secret

    @property
    def file(self) -> str:
        """Bare name of the overlay."""
        return os.path.basename(self.overlay)

    @property
    def kind(self) -> Literal["create", "revert"]:
        """Whether it is one or the other."""
        return "revert" if self.kept else "create"

    @property
    def kept(self) -> tuple[VolumeLayer, ...]:
        """What is not in the chain afterwards, and stays as it is: of a revert, all above."""
        return self.disk.layers[: self.disk.layers.index(self.active)]

    @property
    def below(self) -> tuple[VolumeLayer, ...]:
        """What the overlay lies over, the uppermost first."""
        return self.disk.layers[len(self.kept) :]

    @property
    def chain(self) -> tuple[str, ...]:
        """The chain afterwards, as paths."""
        return (self.overlay, *(layer.path for layer in self.below))

    @property
    def below_text(self) -> str:
        """What the overlay lies over, as people read it, base first."""
        return " <- ".join(layer.file for layer in reversed(self.below))


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
        SnapshotNotFound, SnapshotAmbiguous: There is no one snapshot to go back to.
    """
    disk = usable(guest.disk(request.disk))
    active = disk.layers[0] if request.over is None else _data_of(disk, request.over)
    new_file = request.new_file or overlay_name(disk, request.snapshot)
    if len(new_file.encode("utf-8", "surrogateescape")) > NAME_MAX:
        example = f"{disk.layers[-1].file[:20]}.{request.snapshot[:20]}"
        raise BadFileName("the new file", new_file, TOO_LONG, example)
    check_belongs(new_file, disk, tuple(other for other in guest.disks if other.disk != disk.disk))
    beside = os.path.dirname(disk.layers[0].path)
    path = os.path.join(beside if request.into is None else request.into, new_file)
    for other in guest.disks:
        if any(layer.path == path for layer in other.layers):
            if request.new_file is None:
                raise SnapshotExists(request.snapshot, new_file, other.disk)
            reason = f"it is in use in the chain of {other.disk}"
            if other.disk == disk.disk and path == disk.layers[0].path and len(disk.layers) > 1:
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
        if tidy(os.path.dirname(path)) == tidy(os.path.dirname(active.path))
        else active.path,
        backing_format=active.format,
        virtual_size=active.virtual_size,
    )


def _data_of(disk: Volume, snapshot: str) -> VolumeLayer:
    """What a disk held at a snapshot: the layer below its overlay."""
    overlay = find_snapshot(disk, snapshot).overlay
    number = next(at for at, layer in enumerate(disk.layers) if layer is overlay)
    return disk.layers[number + 1]
