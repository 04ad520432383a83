"""
A guest's disks as a picture: devices at the top, each chain below its device in chain order.

    device ──► [filter] ──► layer ──► layer ──► layer        one frame a disk
                             └ file    └ file    └ file

A node is drawn once, also where two disks share it. What QEMU has and no disk reads is shown in a
frame of its own, and what is named without being there as well: a picture that leaves out the odd
node hides what one is looking for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from qmpsnap.cli.drawing import styles
from qmpsnap.cli.drawing.dot import Cluster, attributes, document, text
from qmpsnap.cli.drawing.folding import folded
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.verdict import judge
from qmpsnap.graph.nodes import Edge, Graph, Job

_DEFAULTS: Final = (
    'graph [rankdir=TB, newrank=true, nodesep=0.25, ranksep=0.35, fontname="Helvetica"]',
    'node [shape=box, fontname="Helvetica", fontsize=11, style=filled, fillcolor=white]',
    'edge [fontname="Helvetica", fontsize=8, color="#757575", fontcolor="#616161", arrowsize=0.6]',
)
_FRAME: Final = "#bdbdbd"
PER_ROW: Final = 4
"""Frames side by side."""
_PASSED: Final = "intermediate node"
"""Role of the nodes that a job only locks (QEMU blockjob.c, block/commit.c, block/stream.c): as
many as a chain has layers, so they get a line of text instead of an edge."""


def picture(guest: Disks, chosen: Sequence[Disk]) -> str:
    """
    Draw disks of a guest in DOT.

    Args:
        guest: The reading.
        chosen: The disks to draw; with all of them, what is on no disk is drawn too.
    """
    return _Picture(guest, chosen).dot()


class _Picture:
    """What goes where, collected while the report is walked through once."""

    def __init__(self, guest: Disks, chosen: Sequence[Disk]) -> None:
        self._guest = guest
        self._chosen = chosen
        self._graph = guest.graph or Graph(devices=(), nodes={}, edges=())
        self._reach = [
            dict.fromkeys(self._graph.below(disk.entry) if disk.entry else ()) for disk in chosen
        ]
        self._ids: dict[str, str] = {}
        self._layers = _by_node(chosen)
        self._files = {layer.protocol_node for layer in self._layers.values()}
        self._passed = _passed(self._graph)
        self._folded = folded(chosen, self._graph, self._reach)
        self._clusters: list[Cluster] = []
        self._outside: list[str] = []
        self._edges: list[str] = []

    def dot(self) -> str:
        """The whole text."""
        self._shared()
        for number, disk in enumerate(self._chosen):
            self._disk(number, disk)
        if self._chosen == self._guest.disks:
            self._on_no_disk()
        self._rows()
        for edge in self._graph.edges:
            if edge.parent in self._ids:
                self._edge(edge)
        for number, job in enumerate(self._guest.jobs):
            self._job(f"job{number}", job)
        title = [self._guest.guest or "guest", *self._guest.remarks, styles.LEGEND]
        return document(title, _DEFAULTS, self._clusters, [*self._outside, *self._edges])

    def _disk(self, number: int, disk: Disk) -> None:
        device = f"disk{number}"
        self._outside.append(f"{device} {styles.device(disk)}")
        frame = Cluster(title=disk.disk, color=_FRAME)
        self._clusters.append(frame)
        if disk.xml_differs:
            self._outside.append(f"conflict{number} {styles.difference(disk.xml_differs)}")
            look = attributes(color=styles.RED, style="dashed", arrowhead="none")
            self._edges.append(f"conflict{number} -> {device} {look}")
        if self._guest.graph is not None and disk.entry is not None:
            for name in self._reach[number]:
                self._node(name, frame)
            self._beside(self._reach[number], frame)
            arrow = {"penwidth": "1.5"}
            if len(self._chosen) > PER_ROW:
                arrow["weight"] = "100"  # right above its chain, whatever keeps the row in order
            self._edges.append(f"{device} -> {self._known(disk.entry)} {attributes(**arrow)}")
            return
        above = device
        for depth, layer in enumerate(disk.layers):
            frame.statements.append(f"{device}_{depth} {styles.layer(layer)}")
            self._edges.append(f"{above} -> {device}_{depth} {attributes(penwidth='1.5')}")
            above = f"{device}_{depth}"

    def _rows(self) -> None:
        """Many frames stand in rows: each row below a point that all of the row above lead to."""
        count = len(self._chosen)
        for number in range(count if count > PER_ROW else 0):
            if number % PER_ROW:
                pair = f"disk{number - 1} -> disk{number} [style=invis]"
                self._outside.append(f"{{ rank=same; {pair} }}")
        for first in range(PER_ROW, count, PER_ROW):
            point = f"row{first}"
            self._outside.append(f'{point} [shape=point, style=invis, label=""]')
            for number in range(first - PER_ROW, min(first + PER_ROW, count)):
                device = f"disk{number}"
                ends = (point, device) if number >= first else (self._lowest(number), point)
                self._edges.append(f"{ends[0]} -> {ends[1]} [style=invis]")

    def _lowest(self, number: int) -> str:
        """The last box of a disk's chain, or its device."""
        disk = self._chosen[number]
        if not disk.layers:
            return f"disk{number}"
        return self._ids.get(disk.layers[-1].node or "", f"disk{number}_{len(disk.layers) - 1}")

    def _shared(self) -> None:
        """Nodes of several disks stand in no disk's frame."""
        for name in dict.fromkeys(name for names in self._reach for name in names):
            users = [
                d.disk for d, names in zip(self._chosen, self._reach, strict=True) if name in names
            ]
            if len(users) > 1:
                title = f"shared by {', '.join(users)}"
                frame = next((one for one in self._clusters if one.title == title), None)
                if frame is None:
                    frame = Cluster(title=title, color="#6a1b9a")
                    self._clusters.append(frame)
                self._node(name, frame)
        for frame in self._clusters:
            self._beside(self._ids, frame)

    def _on_no_disk(self) -> None:
        """What QEMU has and no disk reads: pflash, an export, what a dead client left."""
        frame = Cluster(title="on no disk", color=_FRAME)
        self._clusters.append(frame)
        for name in self._graph.nodes:
            self._node(name, frame)
        self._beside(self._graph.nodes, frame)

    def _node(self, name: str, frame: Cluster) -> None:
        if name in self._ids:
            return
        made = self._ids[name] = f"node{len(self._ids)}"
        if (group := self._folded.get(name)) is not None:
            self._ids |= {one: made for layer in group for one in layer.nodes}
            frame.statements.append(f"{made} {styles.fold(group)}")
            return
        node = self._graph.nodes.get(name)
        jobs = [f"job {job}: {_PASSED}" for job in self._passed.get(name, ())]
        if name in self._layers:
            look = styles.layer(self._layers[name], *jobs)
        elif node is None:
            look = styles.missing(name)
        else:
            look = styles.small(node, *jobs, names_file=name not in self._files)
        frame.statements.append(f"{made} {look}")

    def _known(self, name: str) -> str:
        """The id of a node that may be missing from the reading."""
        if name not in self._ids:
            self._ids[name] = f"node{len(self._ids)}"
            self._outside.append(f"{self._ids[name]} {styles.missing(name)}")
        return self._ids[name]

    def _beside(self, names: Iterable[str], frame: Cluster) -> None:
        """A layer's protocol node stands beside it, so that a chain is one column."""
        drawn = {statement.partition(" ")[0] for statement in frame.statements}
        for name in names:
            layer = self._layers.get(name)
            if layer is None or layer.protocol_node in (None, name):
                continue
            pair = (self._ids.get(name), self._ids.get(layer.protocol_node or ""))
            if (
                pair[0] != pair[1]
                and drawn.issuperset(pair)
                and self._joined(name, layer.protocol_node)
            ):
                frame.statements.append(f"{{ rank=same; {pair[0]}; {pair[1]} }}")

    def _joined(self, parent: str, child: str | None) -> bool:
        return any(edge.child == child for edge in self._graph.children(parent))

    def _edge(self, edge: Edge) -> None:
        look = {"penwidth": "1.5", "color": "black"} if edge.role == "backing" else {}
        if edge.role not in ("backing", "file"):
            look["label"] = text([edge.role])
        parent, child = self._ids[edge.parent], self._known(edge.child)
        if edge.parent in self._folded and parent == child:
            return  # within one box
        self._edges.append(f"{parent} -> {child} {attributes(**look)}".removesuffix(" []"))

    def _job(self, made: str, job: Job) -> None:
        roles: dict[str, list[str]] = {}
        for edge in self._graph.job_edges:
            if edge.parent == job.id and edge.role != _PASSED:
                roles.setdefault(edge.child, []).append(edge.role)
        drawn = {name: self._ids[name] for name in roles if name in self._ids}
        if roles and not drawn:
            return  # it works on another disk than the chosen one
        self._outside.append(f"{made} {styles.job(job)}")
        for name, node in drawn.items():
            look = attributes(
                label=text(roles[name]),
                style="dashed",
                color=styles.BLUE,
                fontcolor=styles.BLUE,
                constraint="false",
            )
            self._edges.append(f"{made} -> {node} {look}")


def _passed(graph: Graph) -> dict[str, list[str]]:
    """Ids of the jobs that hold a node as an intermediate one."""
    found: dict[str, list[str]] = {}
    for edge in graph.job_edges:
        if edge.role == _PASSED:
            found.setdefault(edge.child, []).append(edge.parent)
    return found


def _by_node(disks: Iterable[Disk]) -> dict[str, Layer]:
    """Layers by node; one of two disks is judged by what both chains say of it."""
    found: dict[str, Layer] = {}
    for disk in disks:
        for layer in disk.layers:
            if layer.node is None:
                continue
            first = found.setdefault(layer.node, layer)
            evidence = tuple(dict.fromkeys((*first.evidence, *layer.evidence)))
            if evidence != first.evidence:
                format_, verdict = judge(evidence)
                found[layer.node] = replace(
                    first, evidence=evidence, format=format_, verdict=verdict
                )
    return found
