"""
How long a guest would stand still while QEMU lists its nodes. Pure.

`query-named-block-nodes` runs in QEMU's main loop, and for each node works out the file name anew
from everything below it (`bdrv_refresh_filename()`, block.c): the time grows with the square of a
chain's depth. Where a header names its backing file otherwise than the node below is named (a
relative name, a node given by name), each of these names is a `json:` text of all that lies
below, and the time grows with the cube: 200 layers stop a guest for seconds, on an idle machine.
The edges alone are told in a few milliseconds, so the time is known before the query is sent.

`query-block` takes half of it again on QEMU before 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from qmpsnap.graph.nodes import Edge, by_parent

PLAIN_S: Final = 2.7e-6
"""A node, for each node that it is part of the name of. Measured; docs/reference/benchmarks.md."""
NESTED_S: Final = 1.8e-6
"""The same where names nest, for each time that a node is written into the name of another."""


_MANY: Final = 10**15
"""Filters and quorums can be stacked so that the number of visits has no bounds."""


class Stall(msgspec.Struct, frozen=True, kw_only=True):
    """What one listing of all nodes costs the guest."""

    depth: int
    """Layers of the deepest chain."""
    plain_s: float
    """Seconds, when every header names the node below as QEMU does."""
    nested_s: float
    """Seconds, when none does."""


def stall_of(edges: Iterable[Edge]) -> Stall:
    """
    Estimate from the edges of a graph.

    A node that is read by several counts for each of them, as QEMU visits it. A circle, which
    QEMU cannot have, is cut where it closes.
    """
    below = by_parent(edges)
    size: dict[str, int] = {}
    text: dict[str, int] = {}
    layers: dict[str, int] = {}
    for name in _lower_first(below):
        children = below.get(name, ())
        size[name] = min(1 + sum(size.get(edge.child, 0) for edge in children), _MANY)
        text[name] = min(size[name] + sum(text.get(edge.child, 0) for edge in children), _MANY)
        layers[name] = max(
            (layers.get(edge.child, 0) + (edge.role == "backing") for edge in children), default=0
        )
    return Stall(
        depth=1 + max(layers.values(), default=0),
        plain_s=PLAIN_S * sum(size.values()),
        nested_s=NESTED_S * sum(text.values()),
    )


def _lower_first(below: Mapping[str, Sequence[Edge]]) -> Iterable[str]:
    """All nodes that have an edge, each after its children; without recursion, chains are deep."""
    seen: set[str] = set()
    for start in below:
        waiting = [(start, False)]
        while waiting:
            name, children_done = waiting.pop()
            if children_done:
                yield name
            elif name not in seen:
                seen.add(name)
                waiting.append((name, True))
                waiting += [(edge.child, False) for edge in below.get(name, ())]
