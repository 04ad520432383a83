"""The acts on files that an operation takes, the same on every road. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.step import Does, Step


def watch_step(path: str) -> Step:
    """Open a file, so that what the kernel could not write of it is heard."""
    return Step(does=Does.HOLD, by="file", what="open-file", arguments={"path": path})


def unwatch_step(path: str) -> Step:
    """Take it back."""
    return Step(does=Does.RELEASE, by="file", what="close-file", arguments={"path": path})


def sync_step(path: str) -> Step:
    """Have a file brought to its disk."""
    return Step(does=Does.FLUSH, by="file", what="fsync", arguments={"path": path})


def disk_steps(plan: MergePlan) -> tuple[Step, ...]:
    """What tells without QEMU whether all that was merged is on disk; nothing where it would not."""
    written = plan.written
    if written.format == "raw":
        return (sync_step(written.path),)
    if written.format != "qcow2":
        return ()
    layers = [{"path": layer.path, "format": layer.format} for layer in plan.dropped]
    arguments: dict[str, object] = {"path": written.path, "with": layers}
    if plan.kind == "pull":
        arguments["pulled"] = True
    compare = Step(does=Does.FLUSH, by="file", what="compare-tables", arguments=arguments)
    return (sync_step(written.path), compare)


def make_steps(
    plans: Sequence[CreatePlan], overlays: Sequence[Overlay]
) -> tuple[tuple[Step, ...], ...]:
    """For each disk: make its overlay, or correct the header of the one that is there."""
    return tuple(
        _correct(plan, overlay) if overlay.is_there else (_make(plan),)
        for plan, overlay in zip(plans, overlays, strict=True)
    )


def discard_steps(
    plans: Sequence[CreatePlan], overlays: Sequence[Overlay]
) -> tuple[Step | None, ...]:
    """For each disk: remove the overlay again; None where it was there before."""
    return tuple(
        None if overlay.is_there else _unlink(Does.DISCARD, plan.overlay)
        for plan, overlay in zip(plans, overlays, strict=True)
    )


def _make(plan: CreatePlan) -> Step:
    arguments = {
        "path": plan.overlay,
        "format": "qcow2",
        "size": plan.virtual_size,
        "backing": plan.backing_name,
        "backing-format": plan.backing_format,
        "like": plan.active.path,
    }
    return Step(does=Does.MAKE, by="file", what="make-overlay", arguments=arguments)


def _correct(plan: CreatePlan, overlay: Overlay) -> tuple[Step, ...]:
    spare = () if overlay.spare is None else (_unlink(Does.MAKE, overlay.spare),)
    if overlay.recorded is None or overlay.recorded[1] == plan.backing_format:
        return spare
    arguments = {
        "path": plan.overlay,
        "backing": overlay.recorded[0],
        "backing-format": plan.backing_format,
    }
    return (*spare, Step(does=Does.MAKE, by="file", what="record-backing", arguments=arguments))


def _unlink(does: Does, path: str) -> Step:
    return Step(does=does, by="file", what="unlink", arguments={"path": path})
