"""What is asked of a Cinder that dies of it; see dying.py."""

from __future__ import annotations

from tests.openstack.rig.guest import Guest
from tests.openstack.rig.pairings import CINDER
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

DYING = tuple(one.replace("qmpsnap.openstack.cinder.", "tests.openstack.dying.") for one in CINDER)
"""Of cinder.conf: our volume side, where it can be told to die."""


def written(rig: Rig) -> tuple[str, Guest]:
    """A volume, and a guest that runs on it and has written its first mebibyte."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    return volume, guest


def dies_at(rig: Rig, point: str, ask: str, *arguments: object) -> None:
    """
    Ask for something, wait until Cinder has died of it, and start it again.

    As it is installed, the parent of the process that has died starts the next one.
    """
    wanted = rig.folder / "die-at"
    wanted.write_text(point)
    rig.volumes(ask, *arguments)  # type: ignore[arg-type]
    read_until(lambda: wanted.exists(), lambda it: not it)
    if not rig.layout.has_processes:
        rig.restart("cinder")
