"""
Remove the files that left a chain, as far as they are the volume's own and nobody uses them.

The last acts of a merge, after the proof: neither QEMU's graph nor libvirt's XML holds them any
more, and nobody else on this host has them open.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import NOT_SEEN
from qmpsnap.operations.names import folder_of
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does, Door, Step
from qmpsnap.operations.volume import VolumeLayer


def removal(plan: MergePlan, *, force: bool) -> tuple[Step, ...]:
    """
    What would remove the files that leave the chain.

    Those in another folder than the active file's stay: there a template may lie that many
    volumes rest on. So do block devices, whose names are not files, and what cannot be seen to be
    the file that QEMU had open.

    Args:
        plan: Of the merge.
        force: Whether also where no lock of another host is seen.
    """
    forced = {"force": True} if force else {}
    return tuple(
        Step(does=Does.REMOVE, by="file", what="unlink", arguments={**_named(layer), **forced})
        for layer in plan.dropped
        if _kept(plan, layer) is None
    )


def _named(layer: VolumeLayer) -> dict[str, object]:
    """The file by its name, and by what the name led to when the plan was made."""
    if layer.identity is None:
        return {"path": layer.path}
    return {"path": layer.path, "identity": [*layer.identity]}


def _kept(plan: MergePlan, layer: VolumeLayer) -> str | None:
    """Why a file stays, whoever uses it; None: it need not."""
    if not is_own(plan, layer):
        return f"it is not in {folder_of(plan.disk.layers[0])}"
    if layer.identity is not None and layer.identity[0] == "device":
        return "it is a block device"
    return f"what the guest had open could not be seen ({layer.sight})" if NOT_SEEN in layer.flags else None  # fmt: skip


def is_own(plan: MergePlan, layer: VolumeLayer) -> bool:
    """Whether a file lies in the folder of the active file."""
    return folder_of(layer) == folder_of(plan.disk.layers[0])


def removed(door: Door, plan: MergePlan, steps: Sequence[Step], done: Result) -> Result:
    """
    Remove what the merge has released and nothing else.

    Returns:
        The result with `removed`, and with a note for each file that was kept.
    """
    gone: list[str] = []
    notes: list[str] = []
    for step in steps:
        path = str(step.arguments["path"])
        if path not in done.dropped:
            continue
        try:
            door.take(step)
        except (QmpsnapError, KeyboardInterrupt) as error:
            notes.append(f"{path} was not removed: {str(error) or 'interrupted'}")
        else:
            gone.append(path)
    notes += [
        f"{layer.path} was not removed: {why}"
        for layer in plan.dropped
        if (why := _kept(plan, layer)) is not None
    ]
    return replace(done, removed=tuple(gone), notes=(*done.notes, *notes))
