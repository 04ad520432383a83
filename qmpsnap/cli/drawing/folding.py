"""Which layers of a deep chain have nothing to tell, and are drawn as one box. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.nodes import Graph

DEEP: Final = 12
"""Chains of up to so many layers are drawn whole."""
FEW: Final = 3
"""So many quiet layers in a row are not worth a box of their own."""
_OWN: Final = frozenset({"file", "backing"})
_CERTAIN: Final = (Verdict.EXACT, Verdict.AGREED)

Group = tuple[Layer, ...]


def folded(
    disks: Sequence[Disk], graph: Graph, reach: Sequence[Collection[str]]
) -> Mapping[str, Group]:
    """
    The group of layers that each node stands in; nodes that are drawn by themselves are not there.

    A layer is quiet when its format is certain, it has no flags, and none of its nodes is in
    another disk, in a job, or has any child but its file and what lies below.

    Args:
        disks: Those that are drawn.
        graph: What they were read from.
        reach: Names of all nodes of each of them.
    """
    loud = {edge.child for edge in graph.job_edges}
    loud |= {edge.parent for edge in graph.edges if edge.role not in _OWN}
    loud |= {name for names in reach for name in names if sum(name in one for one in reach) > 1}
    found: dict[str, Group] = {}
    for disk in disks:
        for group in _groups(disk, loud):
            found |= {name: group for layer in group for name in layer.nodes}
    return found


def _groups(disk: Disk, loud: Collection[str]) -> Iterator[Group]:
    """Runs of quiet layers of one format; the first two and the last are never among them."""
    if len(disk.layers) <= DEEP:
        return
    run: list[Layer] = []
    for layer in (*disk.layers[2:-1], None):
        quiet = [layer] if layer is not None and _is_quiet(layer, loud) else []
        if quiet and run and run[0].format == quiet[0].format:
            run += quiet
            continue
        if len(run) > FEW:
            yield tuple(run)
        run = quiet


def _is_quiet(layer: Layer, loud: Collection[str]) -> bool:
    certain = layer.verdict in _CERTAIN and not layer.flags
    plain = len(layer.nodes) == len({layer.node, layer.protocol_node})
    return certain and plain and bool(layer.nodes) and not {*layer.nodes} & {*loud}
