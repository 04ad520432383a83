"""Chains that QEMU was started with and does not let be changed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qmpsnap.graph.started import freezing_filters
from qmpsnap.operations.volume import DiskUnsuitable, Volume


def check_changeable(disk: Volume, arguments: Sequence[str]) -> None:
    """
    Refuse what QEMU would refuse.

    Args:
        disk: The disk.
        arguments: The command line of this QEMU, where it is known.

    Raises:
        DiskUnsuitable: It cannot be changed.
    """
    freezing = freezing_filters(arguments)
    for layer in disk.layers:
        for node in layer.nodes:
            if node in freezing:
                raise DiskUnsuitable(
                    disk.disk,
                    f"a copy-on-read filter ({node}) with a `bottom` keeps its chain as it is",
                    "Start the guest without `bottom`.",
                )
