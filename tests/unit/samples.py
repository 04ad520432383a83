"""Reports of guests that never ran: values for the pure parts, one word per difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.verdict import Evidence, Verdict, Witness
from qmpsnap.graph.nodes import Node

MIB: Final = 1024 * 1024
BASE: Final = "volume-1"
FOLDER: Final = "/share"


def names(depth: int) -> list[str]:
    """Bare names of a chain, active layer first: `volume-1.s2`, `volume-1.s1`, `volume-1`."""
    return [*(f"{BASE}.s{number}" for number in range(depth - 1, 0, -1)), BASE]


def layer(file: str, format_: str = "qcow2", **changes: Any) -> Layer:
    """One layer that QEMU has open in a format that nobody doubts."""
    node = Node(name=f"{file}-node", driver=format_, filename=f"{FOLDER}/{file}", virtual_size=MIB)
    said = Evidence(witness=Witness.QMP, format=format_, detail=f"node {node.name}")
    made = Layer(
        file=file,
        path=f"{FOLDER}/{file}",
        protocol="file",
        format=format_,
        verdict=Verdict.EXACT,
        node=node.name,
        virtual_size=MIB,
        flags=(),
        evidence=(said,),
        top_node=node.name,
        protocol_node=f"{file}-file",
        node_details=node,
    )
    return replace(made, **changes)


def linked(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers as one chain: each header names what lies below it, with its exact format."""
    result = []
    above: Layer | None = None
    for upper, lower in zip(layers, [*layers[1:], None], strict=True):
        evidence = [one for one in upper.evidence if one.witness is not Witness.HEADER]
        if above is not None:
            detail = f"header of {above.file}"
            evidence.append(
                Evidence(witness=Witness.HEADER, format=upper.format or "", detail=detail)
            )
        backing = lower.file if lower is not None else None
        written = lower.format if lower is not None else None
        result.append(
            replace(upper, evidence=tuple(evidence), backing_name=backing, backing_format=written)
        )
        above = upper
    return tuple(result)


def disk(depth: int = 1, *, base: str = "raw", **changes: Any) -> Disk:
    """Disk `vda`, serial 1, with qcow2 overlays over a base of the given format."""
    files = names(depth)
    layers = [layer(file) for file in files[:-1]] + [layer(BASE, base)]
    made = Disk(
        disk="vda",
        serial="1",
        qdev="/machine/peripheral/vda/virtio-backend",
        layers=linked(layers),
        root=layers[0].node,
    )
    return replace(made, **changes)


def changed_layer(report: Disk, position: int, **changes: Any) -> Disk:
    """The disk with one of its layers changed."""
    layers = list(report.layers)
    layers[position] = replace(layers[position], **changes)
    return replace(report, layers=tuple(layers))


def guest(*disks: Disk) -> Disks:
    """A guest with these disks; by default one of one layer."""
    return Disks(guest="web1", disks=disks or (disk(),))


def files(report: Disk) -> list[str]:
    """Bare names of its chain, active layer first."""
    return [one.file for one in report.layers]
