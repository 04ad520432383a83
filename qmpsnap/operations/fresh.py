"""
Read again what an operation has changed, and give libvirt's XML the time to follow.

Events and replies may be lost; only the graph says what happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.outcome import XmlBehind
from qmpsnap.operations.rule import by_rule

XML_LAG_S: Final = 5.0
"""libvirt's XML was seen 3 to 19 ms behind QEMU; five seconds mean that it will not follow."""
AGAIN_S: Final = 0.005


def fresh(guest: Guest, disk: Disk) -> tuple[Disks, Disk]:
    """
    Read one disk again; see `fresh_all`.

    Raises:
        XmlBehind: libvirt's XML did not follow.
    """
    now, (after,) = fresh_all(guest, (disk,))
    return now, after


def fresh_all(
    guest: Guest, disks: Sequence[Disk], made: Mapping[str, str] | None = None
) -> tuple[Disks, tuple[Disk, ...]]:
    """
    Read disks again, all in one reading, and give libvirt's XML the time to follow QEMU.

    Args:
        guest: Who reads.
        disks: The disks as they were before.
        made: Format by path of files that were made since.

    Raises:
        XmlBehind: It did not.
    """
    deadline = time.monotonic() + XML_LAG_S
    while True:
        now = guest.read()
        afters = tuple(now.disk(disk.disk) for disk in disks)
        lagging = [one for one in afters if one.xml_differs is not None or one.mirror is not None]
        if not lagging:
            return now, tuple(
                by_rule(after, {**_formats(disk), **(made or {})})
                for disk, after in zip(disks, afters, strict=True)
            )
        if time.monotonic() > deadline:
            behind = lagging[0]
            reason = behind.xml_differs or f"it still shows a {behind.mirror}"
            raise XmlBehind(reason, behind.chain_text)
        time.sleep(AGAIN_S)


def _formats(disk: Disk) -> dict[str, str]:
    return {one.path: one.format for one in disk.layers if one.path and one.format}
