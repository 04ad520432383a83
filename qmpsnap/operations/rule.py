"""
The specification's rule, for a libvirt that does not say a layer's format after an operation.

A commit leaves the format of the file committed into, a pull that of the file pulled into, a
create the format that was created: in each case the format that the file had before. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.verdict import Evidence, Verdict, Witness, judge


def by_rule(after: Disk, known: Mapping[str, str]) -> Disk:
    """
    Conclude formats that nobody states any more; a layer with a witness is left as it is.

    Args:
        after: The disk after an operation.
        known: Format by path, as it was known before, or was created.
    """
    return replace(after, layers=tuple(_layer(layer, known) for layer in after.layers))


def _layer(layer: Layer, known: Mapping[str, str]) -> Layer:
    before = known.get(layer.path or "")
    if layer.verdict is not Verdict.UNKNOWN or before is None:
        return layer
    evidence = Evidence(
        witness=Witness.RULE, format=before, detail="the format that this file had before"
    )
    format_, verdict = judge((evidence,))
    return replace(layer, format=format_, verdict=verdict, evidence=(evidence,))
