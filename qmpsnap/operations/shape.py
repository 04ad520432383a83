"""Graphs that a snapshot or a merge would come into the way of. Pure."""

from __future__ import annotations

from typing import Final

from qmpsnap.formats.layers import Disks
from qmpsnap.operations.volume import DiskUnsuitable, Volume

_COPIES: Final = frozenset({"backup-top", "blklogwrites", "copy-before-write", "replication"})
"""Filters that write what passes through them, or what it replaces, to a second node."""


def check_shape(disk: Volume, guest: Disks) -> None:
    """
    Refuse a disk of which somebody keeps a second copy by a filter: an image fleecing, a log.

    Args:
        disk: The disk.
        guest: The reading that it is from.

    Raises:
        DiskUnsuitable: There is such a filter.
    """
    graph = guest.graph
    if graph is None or disk.root is None:
        return
    for name in graph.below(disk.root):
        node = graph.nodes.get(name)
        if node is not None and node.driver in _COPIES:
            raise DiskUnsuitable(
                disk.disk,
                f"what is written to it goes through a filter ({name}, {node.driver}), which copies "
                "it for somebody",
                "Wait until the backup or whatever put the filter there has ended, and has taken it "
                "out, then give the same command again.",
            )
