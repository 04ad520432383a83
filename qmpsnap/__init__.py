"""
Live disk snapshots of QEMU guests, the format of every file known, never guessed.

    import qmpsnap

    with qmpsnap.connect("qemu:///system", guest="web1") as guest:
        for layer in guest.read().disk("vda").layers:
            print(layer.file, layer.format, layer.verdict)
        qmpsnap.create(guest, disk="vda", snapshot="before")
        qmpsnap.delete(guest, disk="vda", snapshot="before")

docs/howto/use-as-a-library.md has more. What stands in `__all__` is public, most important first;
everything else may change. A name is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qmpsnap.by_name import create, delete, revert
    from qmpsnap.errors import Failed, QmpsnapError, Refused, Unknown, Unreachable
    from qmpsnap.formats.layers import Disk, Disks, Layer
    from qmpsnap.formats.verdict import Evidence, Verdict, Witness
    from qmpsnap.guests.connect import connect, connect_qmp, from_domain
    from qmpsnap.guests.libvirt.guest import LibvirtGuest
    from qmpsnap.guests.offline.guest import OfflineGuest
    from qmpsnap.guests.qmp.guest import QmpGuest
    from qmpsnap.journal.file import Journal
    from qmpsnap.journal.letter import Addressee
    from qmpsnap.operations.guards import Guard
    from qmpsnap.operations.guest import Guest
    from qmpsnap.operations.names import Snapshot, snapshots
    from qmpsnap.operations.options import MergeOptions, OnError
    from qmpsnap.operations.outcome import Interrupted, Result
    from qmpsnap.operations.quiesce import Policy, Quiesce
    from qmpsnap.service import Update, volume_snapshot_create, volume_snapshot_delete
    from qmpsnap.status import Dialect

__all__ = [  # noqa: RUF022  # most important first
    "connect",
    "connect_qmp",
    "from_domain",
    "create",
    "delete",
    "revert",
    "snapshots",
    "volume_snapshot_create",
    "volume_snapshot_delete",
    "Guest",
    "Disks",
    "Disk",
    "Layer",
    "Verdict",
    "Evidence",
    "Witness",
    "Snapshot",
    "Result",
    "Update",
    "Quiesce",
    "Policy",
    "MergeOptions",
    "OnError",
    "Guard",
    "Journal",
    "Addressee",
    "Dialect",
    "QmpsnapError",
    "Refused",
    "Failed",
    "Unknown",
    "Unreachable",
    "Interrupted",
    "LibvirtGuest",
    "OfflineGuest",
    "QmpGuest",
]

_HOME: Final = {
    "by_name": "create delete revert",
    "errors": "Failed QmpsnapError Refused Unknown Unreachable",
    "formats.layers": "Disk Disks Layer",
    "formats.verdict": "Evidence Verdict Witness",
    "guests.connect": "connect connect_qmp from_domain",
    "guests.libvirt.guest": "LibvirtGuest",
    "guests.offline.guest": "OfflineGuest",
    "guests.qmp.guest": "QmpGuest",
    "journal.file": "Journal",
    "journal.letter": "Addressee",
    "operations.guards": "Guard",
    "operations.guest": "Guest",
    "operations.names": "Snapshot snapshots",
    "operations.options": "MergeOptions OnError",
    "operations.outcome": "Interrupted Result",
    "operations.quiesce": "Policy Quiesce",
    "service": "Update volume_snapshot_create volume_snapshot_delete",
    "status": "Dialect",
}
"""The module of each public name; a checker of types reads the same above."""


if not TYPE_CHECKING:  # a checker would take it for a yes to every name

    def __getattr__(name: str) -> object:
        for module, names in _HOME.items():
            if name in names.split():
                value = getattr(import_module(f"{__name__}.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
