"""Backups of volumes by Cinder's own backup service: made, read, restored."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.openstack.rig.pairings import OURS, with_backups
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

_UNDER_WAY = ("creating", "restoring")
_AT_WORK = ("creating", "backing-up", "restoring-backup")


@contextmanager
def backing_up_with(rig: Rig, driver: str) -> Iterator[Rig]:
    """Run Cinder's backup service in a rig of ours for a while, with another driver of the volumes."""
    pairing = with_backups(OURS)
    options = (*pairing.cinder, f"nfs1.volume_driver={driver}")
    with rig.configured(replace(pairing, cinder=options), "cinder"):
        yield rig


def backed_up(rig: Rig, volume: str, **more: object) -> tuple[str, str | None]:
    """Make a backup of a volume, or of its snapshot (`snapshot_id`); its id, and what it became."""
    asked = {"volume_id": volume, "force": True, **more}
    backup: str = rig.volumes("POST", "/backups", {"backup": asked})["backup"]["id"]
    became = read_until(lambda: rig.status("backups", backup), lambda it: it not in _UNDER_WAY)
    return backup, became


def restored(rig: Rig, backup: str, volume: str | None = None) -> tuple[str, str | None]:
    """Restore a backup, by default into a new volume; that volume's id, and what it became."""
    asked = {} if volume is None else {"volume_id": volume}
    answer = rig.volumes("POST", f"/backups/{backup}/restore", {"restore": asked})["restore"]
    into: str = answer["volume_id"]
    became = read_until(lambda: rig.status("volumes", into), lambda it: it not in _AT_WORK)
    read_until(lambda: rig.status("backups", backup), lambda it: it not in _UNDER_WAY)
    return into, became


def held(rig: Rig, backup: str) -> bytes:
    """Every byte that a backup holds."""
    (listed,) = (rig.folder / "state/backup").rglob(f"*{backup}_metadata")
    found = b""
    for one in json.loads(listed.read_bytes())["objects"]:
        ((name, piece),) = one.items()
        data = (listed.parent / name).read_bytes()
        data = zlib.decompress(data) if piece["compression"] == "zlib" else data
        assert (piece["offset"], piece["length"]) == (len(found), len(data))
        found += data
    return found
