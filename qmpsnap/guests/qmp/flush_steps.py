"""The acts that flush what a merge has written, and tell when that fails. Pure; see `operations.flushed`."""

from __future__ import annotations

from qmpsnap.guests.files.steps import disk_steps
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import VolumeLayer


def heard_flush(layer: VolumeLayer) -> Step | None:
    """
    Flush the format node of a layer, and hear when that fails; None where it has no node.

    qemu-io's `reopen` opens a node with the options that it has, for which QEMU flushes it and what
    is below first ("Error flushing drive"). Unlike `blockdev-reopen` it needs no options, so that
    it is right for `-drive` too, and unlike `block_resize` it can be had for every node, whatever
    jobs and exports are on it. The plain `flush` answers nothing when it fails. The same on 5.2,
    7.2, 10.0 and 11.1 (reopen_f(), qemu-io-cmds.c; bdrv_reopen_multiple(), block.c).

    `detect-zeroes` is given all the same: that of a `-drive` is no option of its node, and would be
    off afterwards (blockdev_init(), blockdev.c).
    """
    details = layer.node_details
    if layer.node is None or details is None or not details.detect_zeroes:
        return None if layer.node is None else _reopened(layer.node)
    return _reopened(layer.node, "unmap" if details.unmaps_zeroes else "on")


def heard_flushes(layer: VolumeLayer) -> tuple[Step, ...]:
    """
    The same when no job writes to the layer any more; nothing where it cannot be had.

    A raw node then flushes nothing (bdrv_co_flush(), block/io.c), so those below are flushed by
    themselves; a format that is open for writing does write to those.
    """
    first = heard_flush(layer)
    if first is None or layer.format != "raw":
        return () if first is None else (first,)
    return tuple(first if name == layer.node else _reopened(name) for name in layer.nodes)


def otherwise(plan: MergePlan, *, by_qemu: bool) -> tuple[tuple[Step, ...], ...]:
    """What tells of a flush when the acts that are planned do not: by QEMU, then by this host."""
    acts = heard_flushes(plan.written) if by_qemu else ()
    return tuple(one for one in (acts, disk_steps(plan)) if one)


def _reopened(node: str, detect_zeroes: str | None = None) -> Step:
    line = f"qemu-io {node} reopen"
    if detect_zeroes is not None:
        line = f'qemu-io {node} "reopen -o detect-zeroes={detect_zeroes}"'
    return Step(
        does=Does.FLUSH, by="qmp", what="human-monitor-command", arguments={"command-line": line}
    )
