"""A create that a stock Nova calls failed, and the file that was made for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from qmpsnap.ledger.values import Place
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked, ledger_of, open_operations


def place_of(rig: Rig, volume: str, snapshot: str) -> Place:
    """Where the ledger has the file of a snapshot."""
    with ledger_of(rig).reading() as ledger:
        files = ledger.files(volume, gone=True)
    (found,) = [one for one in files if one.file == f"volume-{volume}.{snapshot}"]
    return found.place


@contextmanager
def failed(rig: Rig) -> Iterator[tuple[Guest, str]]:
    """A guest, and a snapshot of its volume that compute has called failed; it dies before it is one."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"create": 3600})
    snapshot = rig.begin_snapshot(volume)
    asked(rig, "POST")
    rig.restart("compute", signal.SIGKILL)
    said = {"os-update_snapshot_status": {"status": "error", "progress": "90%"}}
    rig.volumes("POST", f"/snapshots/{snapshot}/action", said)
    read_until(lambda: open_operations(rig), lambda it: it == ())
    read_until(lambda: place_of(rig, volume, snapshot), lambda it: it is Place.UNSURE)
    yield guest, snapshot
