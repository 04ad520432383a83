"""
What a delete will do, decided before anything is touched. Pure.

A plan is made from one reading of the guest and carries what the chain must look like
afterwards; everything that can be refused is refused here, before the first command that changes
state.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.operations.lengths import ShorterLayer, check_lengths
from qmpsnap.operations.names import find_snapshot, folder_of, name_of_base
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.volume import DiskUnsuitable, Volume, VolumeLayer, usable, whole_pull


class NotInChain(Refused):
    """A file named in the request is not in the disk's chain."""

    msg = "{self.field} {self.name!r} is not in the chain of {self.disk}: {self.chain}"
    remedy = "Nothing was merged. If it was merged before, the volume service has an old picture."

    field: str
    name: str
    disk: str
    chain: str


class ForeignLayer(Refused):
    """
    A file that would be merged, or merged into, is not in the volume's folder.

    A bare name of the volume service's means its own file. A chain may lead out of the folder (to
    a template, or by a hostile header to anything that QEMU may write), and what lies there is
    not the volume's, unless the operator says so: of a block device, every snapshot's overlay lies
    elsewhere.
    """

    msg = "{self.what} would be {self.path}, which is not in {self.folder}"
    remedy = (
        "See with `qmpsnap chain` where this chain leads, and why. {self.pull}: that writes the "
        "active file only. (`--allow foreign-layer` does it all the same.)"
    )

    what: str
    path: str
    folder: str
    pull: str
    """See `whole_pull`."""


class WrongOrder(Refused):
    """The file to merge into does not lie below the file to merge."""

    msg = "{self.base!r} does not lie below {self.top!r} in the chain of {self.disk}: {self.chain}"
    remedy = "A merge goes down: give the upper file as file_to_merge, the lower as the target."

    base: str
    top: str
    disk: str
    chain: str


class FilterBetween(Refused):
    """
    A filter lies right above the file that is to be merged.

    QEMU would take both out, and leave the file's name in the header of the layer above (seen on
    7.2 with throttle, compress and blkdebug), or refuse ("Block node is read-only": copy-on-read).
    """

    msg = (
        "a filter ({self.node}) lies between {self.above} and {self.file}, so QEMU would not write "
        "the header of {self.above}"
    )
    remedy = (
        "Take the filter out (QMP `blockdev-reopen` of {self.reader} with the backing node "
        "{self.read}, then `blockdev-del` of {self.node}), and give the same command again; or start "
        "the guest without it."
    )

    node: str
    above: str
    file: str
    reader: str
    read: str


class NothingToPull(Refused):
    """The active file reads through nothing that a pull would remove."""

    msg = "{self.file} has nothing to pull: it already reads {self.below}"
    remedy = (
        "If an earlier pull was interrupted, it may have ended by itself: pause and resume the "
        "guest once, which flushes, before a file that left the chain is removed."
    )

    file: str
    below: str


WORTH_A_PULL: Final = 64 * 1024 * 1024
"""Bytes that a pull must save: after a commit the volume has its own file and name again, after
a pull the overlay's."""

MergeKind = Literal["commit", "active-commit", "pull"]


class MergePlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    Take layers out of a chain.

        commit         above ─► top ─► … ─► base     top's data goes down into base
        active-commit          top ─► … ─► base     the same, and the guest pivots to base
        pull                   top ─► … ─► base     what lies between comes up into top;
                                                     base None: all of it
    """

    kind: MergeKind
    disk: Volume
    top: VolumeLayer
    base: VolumeLayer | None
    above: VolumeLayer | None
    """The layer whose header will name `base`: for a commit the one above `top`, for a pull
    `top` itself; None when no header changes its backing file."""
    backing_name: str | None
    """What that header must say."""
    dropped: tuple[VolumeLayer, ...]
    """Layers that leave the chain; their data moves."""
    remaining: tuple[VolumeLayer, ...]
    """The chain afterwards."""
    why: str = ""
    """Why it is this kind of merge, where another one was possible."""

    @property
    def written(self) -> VolumeLayer:
        """The layer that receives the data."""
        if self.kind == "pull" or self.base is None:
            return self.top
        return self.base

    @property
    def reported(self) -> tuple[VolumeLayer, ...]:
        """The files whose format is reported to the volume service."""
        if self.kind == "pull":
            return (self.top,) if self.base is None else (self.top, self.base)
        return (self.written,)


def plan_delete(
    guest: Disks, request: DeleteRequest | NamedDeleteRequest, *, foreign: bool = False
) -> MergePlan:
    """
    Plan the removal of layers.

    Args:
        guest: All disks of the guest.
        request: What to delete.
        foreign: Whether files of other folders may be merged.

    Raises:
        DiskNotFound, DiskAmbiguous, DiskUnsuitable, FormatUncertain: The disk cannot be used.
        SnapshotNotFound, NotInChain, ForeignLayer, WrongOrder, NothingToPull, ShorterLayer,
            FilterBetween: The chain does not allow what is asked for.
    """
    disk = usable(guest.disk(request.disk))
    if isinstance(request, NamedDeleteRequest):
        snapshot = find_snapshot(disk, request.snapshot)
        top, base = disk.layers.index(snapshot.overlay), disk.layers.index(snapshot.data)
        if request.method == "pull":
            if len(disk.layers) != 2:
                # The active file keeps its name, so an older snapshot would go by the name of
                # the one that was deleted.
                raise _older_by_pull(disk, top, base, foreign)
            return _plan_pull(disk, None)
        if request.method == "commit":
            return _plan_commit(disk, top, base, foreign)
        return _commit_or_pull(disk, top, base, foreign)
    if request.merge_target_file is None:
        base_name = request.file_to_merge
        return _plan_pull(
            disk,
            None if base_name is None else _position(disk, "file_to_merge", base_name, foreign),
        )
    assert request.file_to_merge is not None  # requests.delete_request() has seen to it
    return _plan_commit(
        disk,
        _position(disk, "file_to_merge", request.file_to_merge, foreign),
        _position(disk, "merge_target_file", request.merge_target_file, foreign),
        foreign,
    )


def _older_by_pull(disk: Volume, top: int, base: int, foreign: bool) -> DiskUnsuitable:
    """Refuse to pull one of several snapshots, and name a way that is not refused."""
    try:
        _plan_commit(disk, top, base, foreign)
        advice = "Delete it by commit (`--method commit`)."
    except Refused:
        advice = f"{whole_pull(disk)}."
    reason = "only the last snapshot that is left can be deleted by pull"
    return DiskUnsuitable(disk.disk, reason, advice)


def _commit_or_pull(disk: Volume, top: int, base: int, foreign: bool) -> MergePlan:
    """
    Choose between a commit and a pull, where both are possible.

    With more than two layers only a commit keeps the names of the other snapshots right.
    """
    if len(disk.layers) != 2:
        return _plan_commit(disk, top, base, foreign)
    try:
        commit = _plan_commit(disk, top, base, foreign)
    except ShorterLayer as error:
        why = f"a commit would make the disk grow to the {error.base_size} bytes of {error.base}"
        return replace(_plan_pull(disk, None), why=why)
    return _cheaper(disk, commit)


def _cheaper(disk: Volume, commit: MergePlan) -> MergePlan:
    """Choose what moves less."""
    active, base = disk.layers
    up, down = _allocated(base), _allocated(active)
    if "shared-base" in base.flags or base.is_read_twice:
        return replace(_plan_pull(disk, None), why=f"{base.file} is read by others too")
    if up is None or down is None:
        return replace(commit, why="how much each way would move is not known")
    if up + WORTH_A_PULL < down:
        why = f"it moves {up} bytes at most, a commit {down}"
        return replace(_plan_pull(disk, None), why=why)
    if up < down:
        why = f"a pull would move {up} bytes instead of {down}, too little less to keep the overlay"
        return replace(commit, why=why)
    return replace(commit, why=f"it moves {down} bytes at most, a pull {up}")


def _allocated(layer: VolumeLayer) -> int | None:
    return layer.node_details.actual_size if layer.node_details else None


def _plan_commit(disk: Volume, top: int, base: int, foreign: bool) -> MergePlan:
    layers = disk.layers
    upper, lower = layers[top], layers[base]
    if base <= top:
        raise WrongOrder(lower.file, upper.file, disk.disk, disk.chain_text)
    own = folder_of(layers[0])
    for what, layer in (
        ("the file to merge", upper),
        (f"the file that {upper.file} is committed into", lower),
    ):
        if folder_of(layer) != own and not foreign:
            raise ForeignLayer(what, layer.path, own, whole_pull(disk))
    above = layers[top - 1] if top else None
    if above is not None and "filter" in upper.flags:
        nodes = str(upper.top_node), above.file, upper.file, str(above.node), str(upper.node)
        raise FilterBetween(*nodes)
    check_lengths(disk, above, upper, lower)
    return MergePlan(
        kind="commit" if top else "active-commit",
        disk=disk,
        top=upper,
        base=lower,
        above=above,
        backing_name=name_of_base(above, lower) if above else None,
        dropped=layers[top:base],
        remaining=layers[:top] + layers[base:],
    )


def _plan_pull(disk: Volume, base: int | None) -> MergePlan:
    layers = disk.layers
    active, lower = layers[0], None if base is None else layers[base]
    if base == 0:
        raise WrongOrder(active.file, active.file, disk.disk, disk.chain_text)
    if len(layers) == 1 or base == 1:
        raise NothingToPull(active.file, f"straight from {lower.file}" if lower else "from itself")
    if active.format != "qcow2":
        raise DiskUnsuitable(disk.disk, "its active file is not qcow2", "Delete by commit.")
    if lower is not None:  # otherwise there are zeros beyond each end, as before
        check_lengths(disk, active, layers[1], lower)
    return MergePlan(
        kind="pull",
        disk=disk,
        top=active,
        base=lower,
        above=active,
        backing_name=name_of_base(active, lower) if lower else None,
        dropped=layers[1:base] if base is not None else layers[1:],
        remaining=(active,) if base is None else (active, *layers[base:]),
    )


def _position(disk: Volume, field: str, name: str, foreign: bool) -> int:
    """Find a file of the volume by its bare name, which means one in the active file's folder."""
    folder = folder_of(disk.layers[0])
    for position, layer in enumerate(disk.layers):
        if layer.file == name:
            if folder_of(layer) != folder and not foreign:
                raise ForeignLayer(f"{field} {name!r}", layer.path, folder, whole_pull(disk))
            return position
    raise NotInChain(field, name, disk.disk, disk.chain_text)
