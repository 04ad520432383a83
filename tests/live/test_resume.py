"""The tool dies around every act and every write of its journal, on both roads; then `resume`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry
from qmpsnap.journal.resume import Settled, Take, Wanted, resume
from tests.rig.kills import (
    KILLINGS,
    Moment,
    Victim,
    Victims,
    at_a_write,
    at_an_act,
    resumed_after_every_death,
    resumed_without_qemu,
)
from tests.rig.rig import DISK, assert_sound
from tests.rig.roads import MakeRig


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


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", [at_an_act, at_a_write])
@pytest.mark.parametrize("operation", KILLINGS)
def test_resumed(
    victims: Victims, journal: Journal, operation: str, moment: Moment, when: str
) -> None:
    def settle(_victim: Victim, entry: Entry) -> Settled:
        return resume(journal, entry)

    found = resumed_after_every_death(
        victims,
        KILLINGS[operation],
        when,
        journal,
        moment,
        settle,
    )
    print(f"{operation}: {found.count} deaths {when}, {dict(found.outcomes)}")
    assert found.count


WITH_QEMU = [name for name in KILLINGS if KILLINGS[name].is_sound]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", WITH_QEMU)
def test_resumed_when_qemu_is_gone(
    victims: Victims, journal: Journal, operation: str, when: str
) -> None:
    def settle(entry: Entry, take: Take | None) -> Settled:
        return resume(journal, entry, Wanted(take=take))

    found = resumed_without_qemu(victims, KILLINGS[operation], when, journal, at_an_act, settle)
    print(f"{operation}: {found.count} deaths {when}, QEMU too: {dict(found.outcomes)}")
    assert found.count
