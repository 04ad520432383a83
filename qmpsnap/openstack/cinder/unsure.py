"""
The file of a create of which nobody knows whether a guest has been switched to it.

It settles itself in one case: nobody has the volume attached, and the file holds nothing of its
own. Then it shows what lies below, byte for byte, and whether a guest has ever been on it makes no
difference. While the volume is attached nothing on the share tells: a stock Nova may report a
failure before libvirt carries the snapshot out (libvirt/driver.py, _volume_snapshot_create, after a
lost connection), and what is empty now may be written to then.
"""

from __future__ import annotations

import os

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.overlay import readable
from qmpsnap.guests.files.qemu_img import is_empty
from qmpsnap.ledger.values import File


def shows_what_lies_below(folder: str, file: File, base_bytes: int) -> bool:
    """
    Whether an overlay that nobody has open holds nothing, and is as long as its backing file.

    False as well where that cannot be told: it may not be read, or a QEMU has one of the two.

    Args:
        folder: Of the volume.
        file: The overlay.
        base_bytes: What a guest sees of the file below.
    """
    path = os.path.join(folder, file.file)
    if file.backing is None or any(
        in_use_by_qemu(one) for one in (path, os.path.join(folder, file.backing))
    ):
        return False
    try:
        header = read_header(path, follow=False)
        named = os.path.basename(header.backing_file or "")
        is_plain = header.data_file is None and not header.snapshots and not header.is_corrupt
        is_whole = (named, header.virtual_size) == (file.backing, base_bytes)
        if not (is_plain and is_whole):
            return False
        with readable(path) as tables:
            return is_empty(tables)
    except (QmpsnapError, OSError):
        return False
