"""
A disk is unplugged before `resume`, and plugged in again: the same QEMU proves nothing of it then.

Whoever plugs it in was not told what became of the operation, and takes the file that he knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, cast

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.journal.markers import OperationOpen
from qmpsnap.journal.resume import Settled, resume
from qmpsnap.operations.requests import CreateRequest, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.doors import Killed, dying_at
from tests.rig.kills import open_entries
from tests.rig.plugging import Plugged, plugged
from tests.rig.rig import BASE, DISK, SIZE
from tests.rig.roads import Road
from tests.rig.waiting import until

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")
ACTIVE_COMMIT = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    folder = tmp_path_factory.mktemp("journal")
    folder.chmod(0o700)
    return Journal(folder)


class Start(Protocol):
    """Start a guest on one layer, or on two."""

    def __call__(self, layers: int) -> AbstractContextManager[Plugged]: ...


@pytest.fixture
def start(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    @contextmanager
    def started(layers: int) -> Iterator[Plugged]:
        share = tmp_path / "share"
        share.mkdir()
        images.create_qcow2(share / BASE, SIZE)
        images.create_qcow2(share / "other", SIZE)
        if layers > 1:
            images.create_qcow2(share / f"{BASE}.s1", SIZE, BASE, "qcow2")
        with plugged(road, request, share) as guest:
            guest.write(1)
            yield guest

    return started


def killed_in_a_create(guest: Plugged, journal: Journal, when: str = "after") -> Path:
    with guest.rig.host() as host, pytest.raises(Killed):
        created(journal, dying_at(host, Does.SWITCH, when), (NEW,))
    return guest.rig.folder / f"{BASE}.new"


def killed_after_the_pivot(guest: Plugged, journal: Journal) -> Path:
    with guest.rig.host() as host, pytest.raises(Killed):
        deleted(journal, dying_at(host, Does.COMMIT, "after"), ACTIVE_COMMIT)
    until(lambda: guest.rig.files() == [BASE])
    for job in cast("list[dict[str, str]]", guest.rig.guest.qmp("query-jobs")):  # not of libvirt
        until(lambda: "concluded" in str(guest.rig.guest.qmp("query-jobs")))
        guest.rig.guest.qmp("job-dismiss", {"id": job["id"]})
    return guest.rig.folder / f"{BASE}.s1"


def settled(journal: Journal) -> Settled:
    (entry,) = open_entries(journal)
    return resume(journal, entry)


def test_the_old_file_of_a_create(start: Start, journal: Journal) -> None:
    """What the guest has written is in the overlay alone."""
    with start(1) as guest:
        overlay = killed_in_a_create(guest, journal)
        guest.write(2)
        guest.unplug()
        assert not qemu_img.is_empty(str(overlay))
        guest.plug(guest.rig.folder / BASE)
        found = settled(journal)
        assert (found.outcome, found.active[0]) == ("unknown", str(overlay))
        assert "the disk was plugged in again with the old file" in found.notes[0]
        with guest.rig.host() as host, pytest.raises(OperationOpen, match="plugged in again"):
            created(journal, host, (CreateRequest(disk=DISK, new_file=None, snapshot="s2"),))
        guest.unplug()
        guest.plug(overlay)
        found = settled(journal)
        assert (found.outcome, found.active) == ("finished", (str(overlay),))


def test_a_create_that_was_not_done(start: Start, journal: Journal) -> None:
    """Its overlay is empty, which is certain."""
    with start(1) as guest:
        overlay = killed_in_a_create(guest, journal, "before")
        guest.unplug()
        guest.plug(guest.rig.folder / BASE)
        found = settled(journal)
        assert (found.outcome, found.active) == ("rolled-back", (str(guest.rig.folder / BASE),))
        assert not overlay.exists()


@pytest.mark.parametrize("file", [f"{BASE}.s1", BASE])
def test_a_file_of_an_active_commit(start: Start, journal: Journal, file: str) -> None:
    """After the pivot the guest writes to the base."""
    with start(2) as guest:
        overlay = killed_after_the_pivot(guest, journal)
        guest.write(3)
        guest.unplug()
        guest.plug(guest.rig.folder / file)
        found = settled(journal)
        assert (found.outcome, found.active[0]) == ("unknown", str(overlay))


def test_unplugged(start: Start, journal: Journal) -> None:
    """The files tell, as of a guest that is off."""
    with start(1) as guest:
        overlay = killed_in_a_create(guest, journal)
        guest.write(2)
        guest.unplug()
        found = settled(journal)
        assert (found.outcome, found.active) == ("finished", (str(overlay),))


def test_the_name_is_another_volumes(start: Start, journal: Journal) -> None:
    with start(1) as guest:
        overlay = killed_in_a_create(guest, journal)
        guest.write(2)
        guest.unplug()
        guest.plug(guest.rig.folder / "other")
        found = settled(journal)
        assert (found.outcome, found.active) == ("finished", (str(overlay),))
        assert guest.rig.files() == ["other"]


def test_the_disk_has_another_name(start: Start, journal: Journal) -> None:
    with start(1) as guest:
        overlay = killed_in_a_create(guest, journal)
        guest.write(2)
        guest.unplug()
        guest.plug(guest.rig.folder / "other")
        guest.plug(overlay, "vdb")
        found = settled(journal)
        assert (found.outcome, found.active) == ("finished", (str(overlay),))
        assert [one.disk.disk for one in found.results] == ["vdb"]
