"""Chains that QEMU was started with and does not let be changed, or throws away. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from typing import Final

from qmpsnap.graph.started import freezing_filters, throws_away
from qmpsnap.operations.volume import DiskUnsuitable, Volume

_TEMPORARY: Final = "vl."
"""How QEMU names the overlay that `-snapshot` makes (bdrv_create_temporary(), get_tmp_filename())."""


def check_changeable(disk: Volume, arguments: Sequence[str]) -> None:
    """
    Refuse what QEMU would refuse, or what it throws away.

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
    name = os.path.basename(disk.layers[0].path)
    if name.startswith(_TEMPORARY) and throws_away(arguments):
        raise DiskUnsuitable(
            disk.disk,
            "QEMU throws away what the guest writes to it (`-snapshot`)",
            "Start the guest without `-snapshot` (`snapshot=on` of a drive).",
        )
