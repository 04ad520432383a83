"""What a ledger states of the layers of a reading: one more witness. Pure."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.verdict import Evidence, Witness, judge

Recorded = Callable[[str, str], tuple[str, str] | None]
"""By volume (the disk's serial) and bare file name: a format, and since when and by whom it is
known, in words; None where the ledger knows none."""


def with_recorded(disks: Disks, recorded: Recorded) -> Disks:
    """A reading in which the ledger has spoken as well; disks without a serial are no volumes."""
    return replace(disks, disks=tuple(_disk(one, recorded) for one in disks.disks))


def _disk(disk: Disk, recorded: Recorded) -> Disk:
    if not disk.serial:
        return disk
    return replace(
        disk, layers=tuple(_layer(one, recorded(disk.serial, one.file)) for one in disk.layers)
    )


def _layer(layer: Layer, said: tuple[str, str] | None) -> Layer:
    if said is None:
        return layer
    evidence = (*layer.evidence, Evidence(witness=Witness.LEDGER, format=said[0], detail=said[1]))
    format_, verdict = judge(evidence)
    return replace(layer, evidence=evidence, format=format_, verdict=verdict)
