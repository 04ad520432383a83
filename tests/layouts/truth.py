"""What a report says, in the words in which the truth about a layout is written."""

from __future__ import annotations

import re

from qmpsnap.formats.layers import Disks, Layer
from qmpsnap.graph.drivers import DriverKind, kind_of
from tests.layouts.layout import LOOP, Flags, Truth


def told(report: Disks, loop: str = LOOP) -> Truth:
    """
    Return file and format of every layer, by disk.

    Args:
        report: Of a guest, or of a recording.
        loop: The device that stands for LOOP in this run.
    """
    return {
        disk.disk: tuple((_file(layer, loop), layer.format) for layer in disk.layers)
        for disk in report.disks
    }


def flagged(report: Disks, loop: str = LOOP) -> Flags:
    """Return the files that have a flag about which there is a truth; see `Flags`."""
    layers = [layer for disk in report.disks for layer in disk.layers]
    found = {
        flag: frozenset(_file(layer, loop) for layer in layers if flag in layer.flags)
        for flag in ("encrypted", "data-file", "slice")
    }
    return {flag: files for flag, files in found.items() if files}


def _file(layer: Layer, loop: str) -> str:
    if layer.path is not None:
        name = layer.path.replace(loop, LOOP).rpartition("/")[2]
        return re.sub(r"^vl\.\w{6}$", "vl.XXXXXX", name)
    return f"{layer.protocol}:" if kind_of(layer.protocol) is DriverKind.PROTOCOL else "?"
