"""
Replies of a real QEMU (Debian's 7.2.22), and the graphs they make.

Each file in `recorded/` says with which arguments that QEMU was started, on `-M pc -S -nodefaults`,
and which commands it was then given. What no test looks at (limits, statistics) is left out. The
two that begin with `libvirt` come from one guest of libvirt 9.0.0, before and during an active
commit of its disk `vda`, and hold its XML as well.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from qmpsnap.graph.blockstats import edges_from_blockstats
from qmpsnap.graph.chain import ChainLink, chain
from qmpsnap.graph.debug_graph import debug_graph_from
from qmpsnap.graph.nodes import Edge, Graph
from qmpsnap.graph.qmp import devices_from, jobs_from, nodes_from

_FOLDER: Final = Path(__file__).parent / "recorded"
NAMES: Final = tuple(sorted(file.stem for file in _FOLDER.glob("*.json")))

Source = Literal["children", "debug", "blockstats"]
SOURCES: Final[tuple[Source, ...]] = ("children", "debug", "blockstats")
"""The three ways to a graph's edges."""


@cache
def _text(name: str) -> str:
    return (_FOLDER / f"{name}.json").read_text()


def replies(name: str) -> dict[str, Any]:
    """All of one recording, by command; the caller may change it."""
    recording: dict[str, Any] = json.loads(_text(name))
    return recording


def with_children(recording: dict[str, Any]) -> list[dict[str, Any]]:
    """`query-named-block-nodes` as QEMU 10.1 and later answer: with `children`."""
    debug = recording["x-debug-query-block-graph"]
    names = {node["id"]: node["name"] for node in debug["nodes"] if node["type"] == "block-driver"}
    return [
        node
        | {
            "children": [
                {"child": edge["name"], "node-name": names[edge["child"]]}
                for edge in debug["edges"]
                if names.get(edge["parent"]) == node["node-name"]
            ]
        }
        for node in recording["query-named-block-nodes"]
    ]


def graph(name: str, source: Source = "debug") -> Graph:
    """The graph of one recording, its edges told in one of three ways."""
    recording = replies(name)
    debug = debug_graph_from(recording["x-debug-query-block-graph"])
    nodes, edges = nodes_from(recording["query-named-block-nodes"])
    if source == "children":
        nodes, edges = nodes_from(with_children(recording))
    elif source == "debug":
        edges = debug.edges
    else:
        edges = edges_from_blockstats(recording["query-blockstats"])
    assert edges is not None
    return Graph(
        devices=debug.with_entries(devices_from(recording["query-block"])),
        nodes={node.name: node for node in nodes},
        edges=edges,
        jobs=jobs_from(recording["query-jobs"]),
        job_edges=debug.job_edges,
    )


def xml(name: str) -> str:
    """The live domain XML of a guest of libvirt 9.0, with nothing but its disks."""
    return "\n".join(replies(name)["xml"])


def layers(name: str, source: Source = "debug", *, disk: int = 0) -> tuple[ChainLink, ...]:
    """The chain of one disk of a recording."""
    made = graph(name, source)
    root = made.devices[disk].root
    return chain(made, root) if root is not None else ()


def edges_of(made: Graph) -> set[tuple[str, str]]:
    """Pairs of parent and child; the roles differ from source to source."""
    return {_pair(edge) for edge in made.edges}


def _pair(edge: Edge) -> tuple[str, str]:
    return (edge.parent, edge.child)
