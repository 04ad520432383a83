"""
What a plan expects of the graph until its own last step: the chain that it was made from.

Between the reading and a step lie a freeze, a proof, or hours of copying, and others may work on
the guest in that time. So it is looked at again before every step that changes the graph, and
compared. While a job runs QEMU keeps most of them out itself ("in use by block job"), but not all:
a node may be put in another's place, or the disk taken away.

The look is an outline where there is one: node names cost a millisecond, a reading many. Names are
enough, since a node never changes its file but by `blockdev-reopen`, which gives it another child.
But a name may come to mean another file, so every layer's is looked up again as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, DiskNotFound, Disks
from qmpsnap.operations.guest import Guest, Outline


class GraphChanged(Refused):
    """The graph is not the one that the plan was made from; the next step was not taken."""

    msg = "the plan was made from another graph: {self.difference}"
    remedy = (
        "Nothing was changed. Somebody else is at work on this guest: wait until that is over, "
        "look at `qmpsnap chain`, then give the command again."
    )

    difference: str


def check_unchanged(guest: Guest, planned: Iterable[Disk]) -> None:
    """
    Look at disks again, and compare them with what they were when the plan was made.

    Raises:
        GraphChanged: One differs.
    """
    found = changes(guest, planned)
    if found:
        raise GraphChanged("; ".join(found))


def changes(guest: Guest, planned: Iterable[Disk]) -> tuple[str, ...]:
    """Look at disks again; in what they differ from what they were. Empty: in nothing."""
    disks = tuple(planned)
    by_nodes = [disk for disk in disks if disk.nodes]
    outlines = iter(guest.outlines(by_nodes) if by_nodes else ())
    found: list[str] = []
    now: Disks | None = None
    for disk in disks:
        outline = next(outlines) if disk.nodes else None
        if outline is not None:
            found += in_outline(disk, outline)
            continue
        now = guest.read() if now is None else now
        found += differences(disk, now)
    return (*found, *(one for disk in disks for one in _replaced(guest, disk)))


def _replaced(guest: Guest, planned: Disk) -> Iterator[str]:
    """Of each layer whose name does not lead to the same file any more."""
    for layer in planned.layers:
        if layer.path is not None and layer.identity is not None:
            now = guest.files.identity(layer.path)
            if now != layer.identity:
                what = "no file" if now is None else "another file"
                yield f"{layer.path} leads to {what} now"


def in_outline(planned: Disk, now: Outline) -> tuple[str, ...]:
    """In what the nodes of a disk differ from what they were; empty: in nothing."""
    come, gone = now.nodes - planned.nodes, planned.nodes - now.nodes
    what = [f"{', '.join(sorted(names))} {verb}" for names, verb in ((come, "came"), (gone, "went")) if names]  # fmt: skip
    order = tuple(layer.node for layer in planned.layers if layer.node is not None)
    if not what and now.order != order:
        what = ["its layers have changed places"]
    return (f"the chain of {planned.disk} was {planned.chain_text}: {'; '.join(what)}",) if what else ()  # fmt: skip


def differences(planned: Disk, now: Disks) -> tuple[str, ...]:
    """
    In what a disk's chain differs from what it was when the plan was made; empty: in nothing.

    The root of the disk does not count, nor do filters: a job puts its own there.
    """
    try:
        disk = now.disk(planned.disk)
    except DiskNotFound:
        return (f"disk {planned.disk} is gone",)
    files = [tuple(layer.path or layer.file for layer in one.layers) for one in (planned, disk)]
    if files[0] != files[1]:
        return (f"the chain of {disk.disk} is {disk.chain_text}, and was {planned.chain_text}",)
    return tuple(_layer_differences(planned, disk))


def _layer_differences(planned: Disk, disk: Disk) -> Iterator[str]:
    """By what both readings state: the XML alone names no nodes."""
    for before, layer in zip(planned.layers, disk.layers, strict=True):
        if before.node and layer.node and before.node != layer.node:
            yield f"{layer.file} is open as node {layer.node}, and was as {before.node}"
        if before.format and layer.format and before.format != layer.format:
            yield f"{layer.file} is {layer.format}, and was {before.format}"
