"""
The overlay between the look at it and the switch: it must be the file that was looked at. Pure.

Whoever may write to its folder can put another file in its place: one with data of somebody else,
or with a data file. So its name is looked up again, and what QEMU has opened is compared with what
was expected of it, before the guest writes to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Identity
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.operations.guest import Overlay, SnapshotSteps
from qmpsnap.operations.plan_snapshot import CreatePlan


class OverlaySwapped(Refused):
    """The overlay is not the file any more that was made, or looked at; it was not used."""

    msg = "{self.path} is not the file that was {self.looked}: {self.difference}"
    remedy = (
        "Nothing was changed, and what is there was kept. Find out who has put it there before "
        "you choose another name, or remove it."
    )

    path: str
    looked: str
    difference: str


def made_identity(answer: object) -> Identity | None:
    """What a file is that was made, as its act has answered; None where it has not."""
    match answer:
        case (str(kind), int(device), int(number)):
            return kind, device, number
        case _:
            return None


def check_same(
    plan: CreatePlan, overlay: Overlay, before: Identity | None, now: Identity | None
) -> None:
    """
    Compare what the overlay's name leads to.

    Args:
        plan: The overlay.
        overlay: As it was found.
        before: What the name led to when it was made, or looked at; None where that is not known.
        now: What it leads to.

    Raises:
        OverlaySwapped: It is another file, or none.
    """
    if before is not None and now != before:
        what = "there is nothing of this name" if now is None else "it is another file now"
        raise OverlaySwapped(plan.overlay, _looked(overlay), what)


def check_all_opened(
    plans: Sequence[CreatePlan],
    overlays: Sequence[Overlay],
    steps: SnapshotSteps,
    graph: Graph | None,
) -> None:
    """
    Compare the nodes that QEMU has opened with what they must be.

    Raises:
        OverlaySwapped: One is not.
    """
    nodes = opened_nodes(steps, graph)
    for plan, overlay, node in zip(plans, overlays, nodes, strict=True):
        if node is not None:
            check_opened(plan, overlay, node)


def check_opened(plan: CreatePlan, overlay: Overlay, node: Node) -> None:
    """
    Compare the node that QEMU has opened with what it must be.

    Raises:
        OverlaySwapped: It is not.
    """
    difference = next(_differences(plan, overlay, node), None)
    if difference is not None:
        raise OverlaySwapped(plan.overlay, _looked(overlay), difference)


def opened_nodes(steps: SnapshotSteps, graph: Graph | None) -> tuple[Node | None, ...]:
    """The node of each overlay that is open, in order; none where nothing is opened by itself."""
    nodes = graph.nodes if graph is not None else {}
    return tuple(nodes.get(str(step.arguments.get("node-name"))) for step in steps.open)


def _differences(plan: CreatePlan, overlay: Overlay, node: Node) -> Iterator[str]:
    if node.data_file is not None:
        yield "QEMU has opened one with a data file"
    if node.encrypted:
        yield "QEMU has opened one that is encrypted"
    if node.snapshots:
        yield "QEMU has opened one with internal snapshots"
    if node.virtual_size != plan.virtual_size:
        yield f"QEMU has opened one of {node.virtual_size} bytes"
    name = plan.backing_name if overlay.recorded is None else overlay.recorded[0]
    told = node.recorded
    if told is None:
        yield "QEMU has opened one without a backing file"
    elif (told.filename, told.format) != (name, plan.backing_format):
        yield f"QEMU has opened one that is backed by {told.filename!r} ({told.format})"


def _looked(overlay: Overlay) -> str:
    return "looked at" if overlay.is_there else "made"
