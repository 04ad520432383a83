"""
Somebody else takes a snapshot in the middle of an operation, on both roads.

Every step compares a fresh graph with the plan's, and stops. Not while a job runs: then QEMU
itself allows no snapshot of the disk ("block device is in use by block job").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from qmpsnap.guests.files.locks import Claim
from qmpsnap.operations import merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.step import Does
from qmpsnap.operations.unchanged import GraphChanged
from tests.rig.doors import at, with_door
from tests.rig.rig import BASE, DISK, SERIAL, Rig, assert_sound
from tests.rig.roads import MakeRig

THEIRS = CreateRequest(disk=SERIAL, new_file=f"{BASE}.theirs", snapshot="theirs")
OURS = CreateRequest(disk=SERIAL, new_file=f"{BASE}.ours", snapshot="ours")
COMMIT = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)


class _AfterALook:
    """A guest with which somebody does something, once, right after one look."""

    def __init__(self, guest: Guest, look: str, meddle: Callable[[Guest], object]) -> None:
        self._guest, self._look, self._meddle = guest, look, meddle

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._guest, name)
        if name != self._look:
            return found

        def then(*arguments: Any) -> Any:
            returned = found(*arguments)
            self._look = ""
            self._meddle(self._guest)
            return returned

        return then


def snapshot(host: Guest) -> None:
    """What somebody else does, who knows nothing of our locks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Claim, "take", lambda *_: None)
        create(host, THEIRS)


def files(*names: str) -> list[str]:
    """Bare names of a chain, by snapshots."""
    return [f"{BASE}.{name}" for name in names] + [BASE]


class TestMeddling:
    """See the module."""

    def test_create_stops_before_it_opens_anything(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            content = rig.guest.read_sha256(DISK)
            with rig.host() as host, pytest.raises(GraphChanged) as caught:
                create(with_door(host, after=at(Does.MAKE, lambda _step: snapshot(host))), OURS)
            assert caught.value.changed == "no"
            self.holds(rig, files("theirs", "s1"), content)
            assert not (rig.folder / f"{BASE}.ours").exists()

    def test_commit_stops_before_it_starts(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            with rig.host() as host, pytest.raises(GraphChanged) as caught:
                merge.delete(cast(Guest, _AfterALook(host, "neighbours", snapshot)), COMMIT)
            assert caught.value.changed == "no"
            self.holds(rig, files("theirs", "s2", "s1"), content)

    def holds(self, rig: Rig, chain: Sequence[str], content: str) -> None:
        assert rig.files() == list(chain)
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content
        left = [path.name for path in rig.folder.iterdir() if path.name.startswith(BASE)]
        assert sorted(left) == sorted(chain)
