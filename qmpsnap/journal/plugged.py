"""
Which disks of a guest an operation is about, and whether each has had its chain ever since. Looks only.

A disk is known by its files. Disks can be unplugged and plugged in again while the guest runs, with
another name, and with a file that is no longer the active one. So the same QEMU proves nothing by
itself. The nodes tell: a file that was opened again has a node of another name, unless somebody chooses
the names and chooses the same one again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, DiskAmbiguous, Disks, Layer
from qmpsnap.guests.files.identity import Identity, identity
from qmpsnap.journal.record import Record, works_on
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan

_ONCE: Final = re.compile(r"#block|libvirt-[0-9]+-")
"""
Names that a QEMU, or a guest of libvirt, gives to one node only. Source: util/id.c, id_generate();
qemuDomainStorageIDNew(), whose number libvirt keeps in the guest's state file.
"""


class Stay(StrEnum):
    """Whether a disk has had its chain since an operation was planned."""

    SURE = "sure"
    LIKELY = "likely"
    """Its nodes are called as they were, by names that can be given again."""
    NO = "no"
    """It is another QEMU, or the disk was plugged in again."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The disks of an operation as its guest has them."""

    disks: tuple[Disk, ...]
    """In the order of its plans."""
    open_files: frozenset[str]
    """Those of the guest, on a disk or not."""
    runs: bool
    is_same: bool
    """Whether the guest's QEMU is the one of the operation."""
    stay: Stay

    def begun_with(self, file: str) -> str:
        """How a disk has come to a file that the operation did not lead to, in words."""
        if self.is_same:
            return f"the disk was plugged in again with {file}"
        return f"somebody has started the guest from {file}"


def found_of(
    record: Record, disks: Sequence[Disk], open_files: frozenset[str], *, runs: bool, is_same: bool
) -> Found:
    """Compare the disks of an operation with those of its plans."""
    stays = {_stay(plan, disk) for plan, disk in zip(record.plans, disks, strict=True)}
    stay = Stay.LIKELY
    if not is_same or Stay.NO in stays:
        stay = Stay.NO
    elif stays == {Stay.SURE}:
        stay = Stay.SURE
    return Found(disks=tuple(disks), open_files=open_files, runs=runs, is_same=is_same, stay=stay)


def whose(record: Record, disks: Disks) -> tuple[Disk | None, ...]:
    """
    Find the disks of an operation, in the order of its plans, by files that its guest alone has.

    None: the guest has it no more.

    Raises:
        DiskAmbiguous: Several have files of one, and none of them all.
    """
    return tuple(_whose(plan, record, disks) for plan in record.plans)


def has_any_of(record: Record, disks: Disks) -> bool:
    """Whether a guest has a file that only the operation's own can have, by whatever name."""
    mine = _keys(record.own)
    return any(mine & _keys(disk.paths) for disk in disks.disks)


def called(record: Record, names: Sequence[str]) -> Record:
    """The operation with its disks as the guest calls them now; no names: as they were."""
    if not names or tuple(names) == record.disks:
        return record
    creates = tuple(
        replace(plan, disk=replace(plan.disk, disk=name))
        for plan, name in zip(record.creates, names, strict=False)
    )
    merge = record.merge
    if merge is not None:
        merge = replace(merge, disk=replace(merge.disk, disk=names[0]))
    return replace(record, disks=tuple(names), creates=creates, merge=merge)


def _whose(plan: CreatePlan | MergePlan, record: Record, disks: Disks) -> Disk | None:
    own = _keys(works_on((plan,), remove=record.wishes.remove))
    keys = [(disk, found) for disk in disks.disks if own & (found := _keys(disk.paths))]
    # A backup's disk may show what lies below the active file.
    whole = [disk for disk, mine in keys if not any(mine < other for _, other in keys)]
    named = [disk for disk in whole if disk.disk == plan.disk.disk]
    if not whole:
        return None
    if len(named or whole) > 1:
        raise DiskAmbiguous(plan.disk.disk, tuple(disk.disk for disk in whole))
    return (named or whole)[0]


def _keys(paths: Iterable[str | None]) -> set[str | Identity]:
    """What files are known by: their names, and what these lead to on this host."""
    found: set[str | Identity] = set()
    for path in paths:
        if path is not None:
            found.add(path)
            if (key := identity(path)) is not None:
                found.add(key)
    return found


def _stay(plan: CreatePlan | MergePlan, disk: Disk) -> Stay:
    before = {layer.path: layer for layer in plan.disk.layers}
    pairs = [(was, now) for now in disk.layers if (was := before.get(now.path or "")) is not None]
    if any(_differ(was, now) for was, now in pairs):
        return Stay.NO
    # What lies below the uppermost may have been given to another disk.
    same = _nodes(pairs[0][0]) & _nodes(pairs[0][1]) if pairs else set()
    if any(_ONCE.match(name) for name in same):
        return Stay.SURE
    return Stay.LIKELY if disk.disk == plan.disk.disk else Stay.NO


def _differ(was: Layer, now: Layer) -> bool:
    """Whether a file was opened again; where XML alone tells, by the number that it has there."""
    if was.node is None or now.node is None:
        return None not in (was.index, now.index) and was.index != now.index
    protocols = (was.protocol_node, now.protocol_node)
    return was.node != now.node or (None not in protocols and protocols[0] != protocols[1])


def _nodes(layer: Layer) -> set[str]:
    """What a layer's nodes are called; by XML alone, how libvirt begins their names."""
    number = None if layer.index is None else f"libvirt-{layer.index}-"
    return {name for name in (layer.node, layer.protocol_node, number) if name is not None}
