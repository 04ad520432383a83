"""
The tool dies around acts and writes of its journal, on both roads; then `resume`.

At which of all points: `tests.rig.sampling`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap.guests.files import door
from qmpsnap.guests.files.markers import PREFIX
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import deleted
from qmpsnap.journal.record import Entry
from qmpsnap.journal.resume import Settled, resume
from qmpsnap.operations.requests import CreateRequest
from tests.rig import startable
from tests.rig.kills import (
    KILLINGS,
    Victim,
    Victims,
    killed_and_resumed,
    killed_while_resuming,
    killed_with_the_journal,
    open_entries,
)
from tests.rig.rig import DISK, assert_sound
from tests.rig.roads import MakeRig, Road
from tests.rig.startable import Startables
from tests.rig.started import HOW, How, killed_and_started


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    folder = tmp_path_factory.mktemp("journal")
    folder.chmod(0o700)
    return Journal(folder)


@pytest.fixture
def victims(make_rig: MakeRig, tmp_path: Path) -> Victims:
    @contextmanager
    def make() -> Iterator[Victim]:
        for path in (tmp_path / "share").glob("*"):
            path.unlink()
        with make_rig("raw") as rig:
            rig.grow(3)
            rig.guest.qemu_io(DISK, "flush")
            yield Victim(
                folder=rig.folder,
                connect=rig.connect,
                content=lambda: rig.guest.read_sha256(DISK),
                sound=lambda: assert_sound(rig.disk()),
                kill=rig.kill,
            )

    return make


@pytest.mark.parametrize("operation", KILLINGS)
def test_resumed(road: Road, victims: Victims, journal: Journal, operation: str) -> None:
    def settle(_victim: Victim, entry: Entry) -> Settled:
        return resume(journal, entry)

    name = f"{operation} on {road}, resumed"
    found = killed_and_resumed(name, victims, KILLINGS[operation], journal, settle)
    print(f"{name}: {found}")
    assert found.count


WITH_QEMU = [name for name in KILLINGS if KILLINGS[name].is_sound]


@pytest.fixture
def startables(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> Startables:
    if road == "qmp":
        return startable.direct(tmp_path / "share")
    return startable.in_libvirt(request.getfixturevalue("connection"), tmp_path / "share")


@pytest.fixture
def refusing_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that takes root for nobody (root_squash), in a folder that is another user's."""

    def refuse(path: str, _text: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(door, "write_marker", refuse)


@pytest.mark.usefixtures("refusing_share")
@pytest.mark.parametrize("operation", ["create", "active commit", "pull"])
def test_resumed_from_the_journal_alone(
    road: Road, victims: Victims, journal: Journal, operation: str
) -> None:
    def settle(victim: Victim, entry: Entry) -> Settled:
        assert not list(victim.folder.glob(f"{PREFIX}*"))
        return resume(journal, entry)

    name = f"{operation} on {road}, no markers"
    found = killed_and_resumed(name, victims, KILLINGS[operation], journal, settle)
    print(f"{name}: {found}")
    assert found.count


@pytest.mark.usefixtures("refusing_share")
def test_the_result_says_that_no_marker_was_taken(victims: Victims, journal: Journal) -> None:
    request = KILLINGS["active commit"].request
    assert not isinstance(request, CreateRequest)
    with victims() as victim, victim.connect() as guest:
        done = deleted(journal, guest, request)
    assert [one for one in done.notes if "no marker lies beside the images" in one]
    assert not open_entries(journal)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("operation", WITH_QEMU)
def test_resumed_when_qemu_is_gone(
    road: Road, startables: Startables, journal: Journal, operation: str, how: How
) -> None:
    """The guest had gone on writing; perhaps somebody has started it again before."""
    name = f"{operation} on {road}, QEMU gone, started: {how}"
    found = killed_and_started(name, startables, KILLINGS[operation], journal, how)
    print(f"{name}: {found}")
    assert found.count


@pytest.mark.parametrize("operation", KILLINGS)
def test_resume_is_killed_too(
    road: Road, victims: Victims, journal: Journal, operation: str
) -> None:
    name = f"{operation} on {road}, resume killed"
    found = killed_while_resuming(name, victims, KILLINGS[operation], journal)
    print(f"{name}: {found}")
    assert found.count


@pytest.mark.parametrize("with_qemu", [False, True], ids=["guest runs", "QEMU gone"])
@pytest.mark.parametrize("operation", WITH_QEMU)
def test_markers_alone(
    road: Road, victims: Victims, journal: Journal, operation: str, with_qemu: bool
) -> None:
    """The journal is deleted before anything is settled."""
    name = f"{operation} on {road}, journal gone{', QEMU too' * with_qemu}"
    killing = KILLINGS[operation]
    found = killed_with_the_journal(name, victims, killing, journal, with_qemu=with_qemu)
    print(f"{name}: {found}")
    assert found.count
