"""Whether a QEMU can pull into a file with subclusters; see `operations.guards`."""

from __future__ import annotations

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.abilities import Ability


def copies_into_subclusters(disk: Disk, reader: Reader | None) -> bool:
    """
    Whether a guest's QEMU survives a pull, as far as subclusters are concerned.

    That it does (from 8.1 on) cannot be asked for; that it is 9.0 can.

    Args:
        disk: Only one that has such a layer needs an answer.
        reader: Knows the QEMU; None: nobody may ask it.

    Raises:
        ConnectionLost, LostInMidCommand, CommandTimedOut: There was no answer.
    """
    if not any(layer.has_subclusters for layer in disk.layers):
        return True
    return reader is not None and reader.abilities.has(Ability.MASKED_STREAM)
