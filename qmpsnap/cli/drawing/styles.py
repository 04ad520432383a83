"""What each thing in a picture looks like, and what it says of itself. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from qmpsnap.cli.drawing.dot import attributes, text
from qmpsnap.cli.views import size
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.chain import host_path
from qmpsnap.graph.drivers import DriverKind
from qmpsnap.graph.nodes import Job, Node

RED: Final = '"#c62828"'
BLUE: Final = '"#1565c0"'
_CERTAIN: Final = {"fillcolor": '"#e8f5e9"', "color": '"#2e7d32"'}
_BELIEVED: Final = {"fillcolor": '"#fff8e1"', "color": '"#f9a825"'}
_LOOKS: Final = {
    Verdict.EXACT: _CERTAIN,
    Verdict.AGREED: _CERTAIN,
    Verdict.STATED: _BELIEVED,
    Verdict.INFERRED: _BELIEVED,
    Verdict.CONFLICT: {
        "fillcolor": '"#ffebee"',
        "color": RED,
        "fontcolor": RED,
        "penwidth": "2.5",
    },
    Verdict.UNKNOWN: {"fillcolor": '"#eeeeee"', "color": RED, "style": '"filled,dashed"'},
}
LEGEND: Final = "green: certain · yellow: believed · red: in doubt"
_TOOLTIP_LIMIT: Final = 1000
"""QEMU writes a whole chain as one `json:` name where no header tells it."""
_SMALL: Final = {"fontsize": "8", "margin": '"0.06,0.03"', "height": "0", "width": "0"}
_SHAPES: Final = {
    DriverKind.FILTER: {"shape": "hexagon", "fillcolor": '"#ede7f6"'},
    DriverKind.FORMAT: {"shape": "box"},
    DriverKind.PROTOCOL: {"shape": "box", "style": '"filled,rounded"', "fillcolor": '"#f5f5f5"'},
    DriverKind.UNKNOWN: {"shape": "octagon", "fillcolor": '"#fff3e0"'},
}


def device(disk: Disk) -> str:
    lines = [disk.disk]
    if disk.serial:
        lines.append(f"serial {disk.serial}")
    words = [disk.kind, *(["read-only"] if disk.read_only else [])]
    if not disk.layers and disk.root is None:
        words.append("empty")
    lines.append(", ".join(words))
    if disk.mirror:
        lines.append(f"mirror: {disk.mirror}")
    return attributes(
        label=text(lines),
        tooltip=text([disk.qdev or disk.disk], limit=_TOOLTIP_LIMIT),
        fontsize="13",
        fillcolor='"#e3f2fd"',
        color=BLUE,
        style='"filled,rounded"',
    )


def difference(what: str) -> str:
    return attributes(
        label=text(["CONFLICT", *textwrap.wrap(what, 48)]),
        shape="note",
        color=RED,
        fontcolor=RED,
        fillcolor='"#ffebee"',
    )


def layer(layer: Layer, *more: str) -> str:
    details = [f"{one.witness.value}: {one.format} ({one.detail})" for one in layer.evidence]
    said = [", ".join(dict.fromkeys(one.witness.value for one in layer.evidence))]
    if layer.verdict is Verdict.CONFLICT:
        said = details
    lines = [
        layer.file or f"({layer.protocol})",
        f"{layer.format or 'format unknown'} · {layer.verdict.value} · {size(layer.virtual_size)}",
        *(said if layer.evidence else ["nobody states a format"]),
        *([", ".join(layer.flags)] if layer.flags else []),
        *([f"node {layer.node}"] if layer.node else []),
        *more,
    ]
    tooltip = text([layer.path or layer.file, *details], limit=_TOOLTIP_LIMIT)
    return attributes(label=text(lines), tooltip=tooltip, **_LOOKS[layer.verdict])


def fold(group: Sequence[Layer]) -> str:
    """Several layers that have nothing to tell, named in the tooltip."""
    first, last = group[0], group[-1]
    lines = [
        first.file,
        f"… {len(group)} layers · {first.format} · {first.verdict.value} …",
        last.file,
    ]
    tooltip = text([layer.path or layer.file for layer in group], limit=_TOOLTIP_LIMIT)
    look = {**_LOOKS[first.verdict], "style": '"filled,dashed"'}
    return attributes(label=text(lines), tooltip=tooltip, **look)


def small(node: Node, *more: str, names_file: bool) -> str:
    """A node that is no layer; a layer's file is named in the layer already."""
    lines = [f"{node.driver} {node.name}", *more]
    if names_file and node.kind is DriverKind.PROTOCOL:
        path = host_path(node.filename)
        lines.insert(1, path.rpartition("/")[2] if path else node.filename)
    return attributes(
        label=text(lines),
        tooltip=text([node.filename or node.name], limit=_TOOLTIP_LIMIT),
        **{**_SMALL, "color": '"#9e9e9e"', **_SHAPES[node.kind]},
    )


def missing(name: str) -> str:
    return attributes(
        label=text([name, "named, but not among the nodes"]),
        **_SMALL,
        style="dashed",
        color=RED,
        fontcolor=RED,
    )


def job(job: Job) -> str:
    share = f"{100 * job.current // job.total} %" if job.total else "no progress told"
    lines = [f"job {job.id}", f"{job.type} · {job.status} · {share}"]
    if job.error:
        lines += textwrap.wrap(job.error, 48)
    return attributes(
        label=text(lines),
        style='"filled,dashed"',
        color=RED if job.error else BLUE,
        fontcolor=RED if job.error else BLUE,
        fontsize="10",
    )
