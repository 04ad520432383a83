"""
Read again before a contradiction is believed: its witnesses are not asked in one moment.

The header of the layer above names the new base as soon as a pull or commit has concluded;
libvirt's XML follows up to 19 ms later, and a graph that was read just before knows nothing of it.
What QEMU has open is looked at last, and a node that the graph still showed may be closed by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from qmpsnap.formats.layers import REPLACED, Disks
from qmpsnap.formats.verdict import Verdict

AGAIN_S: Final = 0.05
"""Seconds before the next reading."""
WITH_GRAPH: Final = 1
"""Further readings when QEMU is asked each time, which its guest has to wait for."""
XML_ALONE: Final = 4
"""Further readings of XML and headers, which cost the guest nothing."""


def settled(read: Callable[[], Disks]) -> Disks:
    """
    Read a guest; again, a few times, while its witnesses contradict each other.

    Args:
        read: Reads it afresh.
    """
    report = read()
    left = XML_ALONE if report.graph is None else WITH_GRAPH
    while left and _is_in_doubt(report):
        time.sleep(AGAIN_S)
        report = read()
        left -= 1
    return report


def _is_in_doubt(report: Disks) -> bool:
    return any(
        disk.xml_differs is not None
        or any(
            layer.verdict is Verdict.CONFLICT or REPLACED in layer.flags for layer in disk.layers
        )
        for disk in report.disks
    )
