"""
What a merge would harm: refused before anything is touched, unless it is asked for by name. Pure.

QEMU protects none of these: another overlay on the file that is written shares the permission to
write (block.c, bdrv_default_perms_for_cow()), and what only lies in a layer that leaves the chain
(bitmaps, internal snapshots) goes with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk
from qmpsnap.operations.job.states import ENDING, JobReport
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import growth
from qmpsnap.operations.volume import VolumeLayer, whole_pull


class Guard(StrEnum):
    """Names by which a guard is switched off (`--allow`)."""

    SHARED_BASE = "shared-base"
    BITMAPS = "bitmaps"
    INTERNAL_SNAPSHOTS = "internal-snapshots"
    LIBVIRT_SNAPSHOTS = "libvirt-snapshots"
    MIGRATION = "migration"
    GROW_BASE = "grow-base"
    SPACE = "space"
    FOREIGN_LAYER = "foreign-layer"
    SUBCLUSTERS = "subclusters"
    HALF_COMMITTED = "half-committed"


class WouldHarm(Refused):
    """The operation could be done, and would harm something that has no other copy."""

    msg = "{self.reason}"
    remedy = "{self.advice} (`--allow {self.guard}` does it all the same.)"

    guard: Guard
    reason: str
    advice: str


class DiskBusy(Refused):
    """
    A block job runs on the disk, and QEMU accepts no other operation on it until the job ends.

    There is no `--allow` for it: QEMU itself would refuse ("in use by block job").
    """

    msg = "{self.disk} has a job that has not ended: {self.type} {self.job!r}, {self.status}"
    remedy = (
        "See `qmpsnap job list`; wait for it (`qmpsnap job wait`), or cancel it (`qmpsnap job cancel`). A job "
        "that an interrupted `delete` left is finished by the same `delete` again."
    )

    disk: str
    job: str
    type: str
    status: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is around a guest at this moment, as far as it can be seen."""

    readers: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Who else has a layer's file open or names it as its own, by path: for people."""
    resting: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Images that rest on a layer by their headers alone, and may be younger than it, by its path."""
    older: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """The same of images that were last written before it: probably left over by a merge."""
    allocated: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Bytes that each layer's file takes on the host, by path; regular files only."""
    free: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Bytes that the file system of each layer has left, by path."""
    recorded: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Snapshots that libvirt keeps a record of, by the path of their overlay."""
    checkpoints: frozenset[str] = frozenset()
    """Names of libvirt's checkpoints: it takes their bitmaps along in a merge."""
    mixed: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Which commit into a layer was begun and not done, by its path: for people."""
    copies_into_subclusters: bool = True
    """Whether QEMU survives it; False as well where that is not known."""
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""


def check_merge(
    plan: MergePlan,
    around: Surroundings,
    allowed: Collection[Guard],
    *,
    migration: str | None = None,
) -> None:
    """
    Refuse a merge that would harm something.

    Args:
        plan: The merge.
        around: Who else uses its files.
        allowed: Guards that do not count.
        migration: State of a migration that is under way.

    Raises:
        WouldHarm: The first guard that holds and is not in `allowed`.
    """
    refusals = _refusals(plan, around)
    if migration is not None:
        refusals.insert(0, _migrating(migration))
    for refusal in refusals:
        if refusal.guard not in allowed:
            raise refusal


def taken_for_left_over(file: str, images: Collection[str], instead: str) -> tuple[str, ...]:
    """
    Say which images count as left over by their times alone: nobody may be sure of it but a person.

    Args:
        file: What would be written.
        images: Those that rest on it by their headers, and were last written before it was.
        instead: What to do where somebody needs one.
    """
    if not images:
        return ()
    return (
        f"images that rest on {file} by their headers count as left over by a merge, only because "
        f"{file} was written later: {', '.join(images)}; if somebody needs one, its content changes "
        f"with {file}: look at it after `--plan` (`qemu-img info`), and {instead}, or copy it away "
        "first (`qemu-img convert`)",
    )


def doubts(plan: MergePlan, around: Surroundings) -> tuple[str, ...]:
    """What is to be said before and after a merge: what was not looked at, or is not certain."""
    written = () if plan.base is None else (*plan.dropped[1:], plan.base)
    return (
        *around.notes,
        *(
            note
            for layer in written
            for note in taken_for_left_over(
                layer.file, around.older.get(layer.path, ()), "pull instead (`--method pull`)"
            )
        ),
    )


def check_create(migration: str | None, allowed: Collection[Guard]) -> None:
    """
    Refuse a snapshot in the middle of a migration.

    Raises:
        WouldHarm: A migration is under way, and that is not in `allowed`.
    """
    if migration is not None and Guard.MIGRATION not in allowed:
        raise _migrating(migration)


def check_revert(plan: CreatePlan, around: Surroundings, allowed: Collection[Guard]) -> None:
    """
    Refuse to go back to what a disk held, where a commit has written newer data into it.

    Raises:
        WouldHarm: There is such a commit, and that is not in `allowed`.
    """
    why = around.mixed.get(plan.active.path)
    if why is not None and Guard.HALF_COMMITTED not in allowed:
        raise WouldHarm(
            Guard.HALF_COMMITTED,
            f"{plan.active.file} does not hold any more what it did at the snapshot: {why}, and was "
            "not done, so newer data may have got into it",
            "What the disk held then cannot be had by it. Keep the disk as it is; the same `delete` "
            "again deletes that snapshot.",
        )


def check_idle(disks: Iterable[Disk], jobs: Iterable[JobReport]) -> None:
    """
    Refuse what would come into the way of a block job.

    Raises:
        DiskBusy: One of the disks has a job that has not ended.
    """
    names = [disk.disk for disk in disks]
    for job in jobs:
        for name in names:
            if job.disk == name and job.view.status not in ENDING:
                raise DiskBusy(name, job.id, job.type, job.view.status)


def _refusals(plan: MergePlan, around: Surroundings) -> list[WouldHarm]:
    found: list[WouldHarm] = []
    if plan.base is not None and plan.kind != "pull":
        found += _harm_to_readers(plan, around)
        sizes = plan.base.virtual_size, plan.top.virtual_size
        if sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]:
            found.append(
                WouldHarm(
                    Guard.GROW_BASE,
                    f"{plan.base.file} has {sizes[0]} bytes, {plan.top.file} has {sizes[1]}: "
                    "QEMU would grow it",
                    f"The disk was grown after the snapshot. {whole_pull(plan.disk)}.",
                )
            )
    found += _no_room(plan, around) + _crash(plan, around)
    for layer in plan.dropped:
        found += _lost_bitmaps(plan, layer, around) + _lost_snapshots(layer)
    return found + _lost_records(plan, around)


_LEFT_BY_A_PIVOT: Final = "libvirt-tmp-activewrite"
"""libvirt records the writes during a pivot with it. From a raw base it is not removed again (seen
with libvirt 11.3 on QEMU 10.0 and 12.8 on 11.1; removed from a qcow2 base, and by 9.0): it is not
persistent, stands for no backup, and would refuse every later pull of that disk."""


def _lost_bitmaps(plan: MergePlan, layer: VolumeLayer, around: Surroundings) -> list[WouldHarm]:
    if "bitmaps" not in layer.flags:
        return []
    bitmaps = layer.node_details.bitmaps if layer.node_details else ()
    if bitmaps == (_LEFT_BY_A_PIVOT,):
        return []
    of_checkpoints = bool(bitmaps) and {*bitmaps} <= {_LEFT_BY_A_PIVOT, *around.checkpoints}
    if of_checkpoints and plan.written.format == "qcow2":
        return []  # libvirt merges them into the file that is written
    names = ", ".join(bitmaps) or "by its header"
    if of_checkpoints:
        how = "delete the checkpoints (`virsh checkpoint-delete`)"
    elif layer.node_details is None and around.checkpoints:
        how = (
            "start the guest, and merge while it runs: libvirt then takes the bitmaps of its "
            f"checkpoints ({', '.join(sorted(around.checkpoints))}) along"
        )
    elif layer.node_details is None:
        how = f"remove the bitmaps (`qemu-img bitmap --remove -f qcow2 {layer.path} NAME`)"
    else:
        how = "remove the bitmaps (QMP `block-dirty-bitmap-remove`)"
    return [
        WouldHarm(
            Guard.BITMAPS,
            f"{layer.file} leaves the chain, and has dirty bitmaps ({names})",
            f"The next incremental backup would have to be a full one. Make the backup first, then {how}.",
        )
    ]


def _lost_snapshots(layer: VolumeLayer) -> list[WouldHarm]:
    if not layer.internal_snapshots:
        return []
    names = layer.node_details.snapshots if layer.node_details else ()
    those = ", ".join(names) or (
        f"{layer.internal_snapshots} by its header; `qemu-img info -U -f qcow2 {layer.path}` "
        "names them"
    )
    return [
        WouldHarm(
            Guard.INTERNAL_SNAPSHOTS,
            f"{layer.file} leaves the chain, and holds internal snapshots ({those})",
            "Copy what each holds elsewhere first (`qemu-img convert -U -f qcow2 -l SNAPSHOT "
            f"-O qcow2 {layer.path} COPY`).",
        )
    ]


def _lost_records(plan: MergePlan, around: Surroundings) -> list[WouldHarm]:
    """libvirt would go on naming files that are merged by then, and could not delete them."""
    merged = plan.dropped if plan.kind != "pull" else (plan.top, *plan.dropped)
    return [
        WouldHarm(
            Guard.LIBVIRT_SNAPSHOTS,
            f"{layer.file} is the overlay of {', '.join(names)}, which libvirt keeps a record of",
            "Let libvirt delete it (`virsh snapshot-delete`), or have it forget the record first "
            "(`virsh snapshot-delete --metadata`).",
        )
        for layer in merged
        if (names := around.recorded.get(layer.path))
    ]


def _no_room(plan: MergePlan, around: Surroundings) -> list[WouldHarm]:
    free = around.free.get(plan.written.path)
    grows = growth(plan.dropped, plan.written, around.allocated)
    if free is None or grows is None or grows.needed <= free:
        return []
    return [
        WouldHarm(
            Guard.SPACE,
            f"{plan.written.file} may grow by {grows.needed} bytes, and its file system has "
            f"{free} left",
            "Make room first; a merge that runs out of space fails, and what it has written stays.",
        )
    ]


def _crash(plan: MergePlan, around: Surroundings) -> list[WouldHarm]:
    """
    QEMU before 8.1 ends where it copies into a cluster of which a part is there.

    Seen with 5.2 and 7.2 ("Assertion `skip_bytes < pnum' failed", bdrv_co_do_copy_on_readv()),
    not with 10.0 and 11.1. A commit copies in another way.
    """
    if plan.kind != "pull" or around.copies_into_subclusters or not plan.written.has_subclusters:
        return []
    return [
        WouldHarm(
            Guard.SUBCLUSTERS,
            f"{plan.written.file} has subclusters (extended_l2), and QEMU before 8.1 may end with "
            "an assertion when it pulls into such a file; a running guest would end with it",
            "Merge downward instead (`--method commit`).",
        )
    ]


def _migrating(state: str) -> WouldHarm:
    return WouldHarm(
        Guard.MIGRATION,
        f"the guest is being migrated ({state})",
        "Wait until the migration has ended: its target knows the chain as it is now.",
    )


def _harm_to_readers(plan: MergePlan, around: Surroundings) -> list[WouldHarm]:
    """Whoever reads the base, or a layer that rests on it, would see it change."""
    assert plan.base is not None
    found = []
    for layer in (*plan.dropped, plan.base):
        others = list(around.readers.get(layer.path, ()))
        # What rests on the uppermost of them goes on reading all that is committed from there.
        if layer is not plan.dropped[0]:
            others += [f"{image}, by its header" for image in around.resting.get(layer.path, ())]
        if "shared-base" in layer.flags or layer.is_read_twice:
            others.append("another overlay, disk or export of this guest")
        if others:
            found.append(
                WouldHarm(
                    Guard.SHARED_BASE,
                    f"{plan.base.file} would be written, and {layer.file} is also read by "
                    f"{', '.join(others)}",
                    f"{whole_pull(plan.disk)}: it writes the active file only.",
                )
            )
    return found
