"""
How an overlay is opened: as the active layer is, so that the guest's discards go on. Pure.

    detect-zeroes, cache     by QMP
    discard, aio             by QEMU's command line; of an overlay of this tool, by its name

`detect-zeroes=unmap` goes with `discard=unmap` alone, so it tells that as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.graph.opening import Opening, opening
from qmpsnap.guests.qmp.names import FILE, FORMAT, opened_as
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.step import Does, Step

_UNKNOWN: Final = (
    "whether {active} passes on what the guest discards is not known (its node was added after "
    "the start of QEMU, or QEMU's command line cannot be read); {overlay} does not"
)


def overlay_opening(
    plan: CreatePlan, graph: Graph | None, arguments: Sequence[str]
) -> tuple[Opening, str | None]:
    """
    Decide how an overlay is opened.

    Args:
        plan: The overlay.
        graph: As it was read.
        arguments: The command line of QEMU; empty where it is not known.

    Returns:
        The options, and a note where they are not known.
    """
    known = opened_as(plan.active.node or "") or opening(
        arguments,
        node=plan.active.node or "",
        drive=_drive_of(plan, graph),
        path=plan.active.path,
    )
    if (details := plan.active.node_details) is not None and details.unmaps_zeroes:
        return replace(known or Opening(), discard=True), None
    if known is not None:
        return known, None
    return Opening(), _UNKNOWN.format(active=plan.active.file, overlay=plan.file)


def _drive_of(plan: CreatePlan, graph: Graph | None) -> str | None:
    devices = graph.devices if graph is not None else ()
    return next((one.device or None for one in devices if one.root == plan.disk.root), None)


def open_step(plan: CreatePlan, name: str, opened: Opening) -> Step:
    """An overlay as `blockdev-add` takes it: without its backing file."""
    active = plan.active.node_details or Node(name="", driver="", filename="")
    cache = {"direct": active.cache.direct, "no-flush": active.cache.no_flush}
    file: dict[str, object] = {
        "driver": "file",
        "node-name": f"{name}{FILE}",
        "filename": plan.overlay,
        "cache": cache,
        "discard": _word(opened.passed_on),
    }
    if opened.aio is not None:
        file["aio"] = opened.aio
    arguments = {
        "driver": "qcow2",
        "node-name": f"{name}{FORMAT}",
        "cache": cache,
        "discard": _word(opened.discard),
        "detect-zeroes": zeroes_of(active)["detect-zeroes"],
        "backing": None,
        "file": file,
    }
    return Step(does=Does.OPEN, by="qmp", what="blockdev-add", arguments=arguments, again=False)


def zeroes_of(node: Node) -> dict[str, object]:
    """The options of a node about zeroes, as `blockdev-reopen` takes them."""
    if node.unmaps_zeroes:
        return {"detect-zeroes": "unmap", "discard": "unmap"}
    return {"detect-zeroes": "on" if node.detect_zeroes else "off"}


def _word(discard: bool) -> str:
    return "unmap" if discard else "ignore"
