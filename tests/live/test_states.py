"""What is done to a guest in each state that it can be brought into, on both roads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.doors import at, patch
from tests.rig.jobs import fill, small_file_system
from tests.rig.rig import BASE, DISK, SERIAL, Rig, Said, assert_sound
from tests.rig.roads import Road, on_roads
from tests.rig.situations import situation
from tests.rig.states import (
    BOOT_SECTOR,
    CRASH,
    SIZE,
    SWITCH_OFF,
    WRITTEN_SECTOR,
    MakeMachine,
    Steered,
    migrate_away,
    state_of,
)
from tests.rig.waiting import until


def json_of(said: Said) -> dict[str, object]:
    """The document of a command that worked."""
    assert said.code == 0, said
    document = said.json
    assert isinstance(document, dict)
    return document


def every_operation(machine: Steered, state: str) -> None:
    """Create, commit, pull, active commit, list and verify; the guest stays as it is."""
    rig = machine.rig
    for snapshot in ("s1", "s2"):
        said = json_of(rig.cli("create", DISK, snapshot, "-o", "json"))
        assert said["guest_state"] == state
        rig.guest.write(DISK, 64 * 1024 * len(snapshot), 4096, 7)
    content = rig.guest.read_sha256(DISK)
    committed = rig.delete(f"{BASE}.s1", BASE)
    assert committed.status["file_format"] == {BASE: "raw"}, committed
    assert rig.files() == [f"{BASE}.s2", BASE]
    listed = json_of(rig.cli("list", "-o", "json"))
    assert len(listed["snapshots"]) == 1  # type: ignore[arg-type]
    assert_sound(rig.disk())
    pulled = rig.delete(None, None)
    assert pulled.code == 0, pulled
    assert rig.files() == [f"{BASE}.s2"]
    json_of(rig.cli("create", DISK, "s3", "-o", "json"))
    # Named by its method: where a pull would move less, that is what `auto` chooses.
    done = json_of(rig.cli("delete", DISK, "s3", "--method", "commit", "-o", "json"))
    assert done["guest_state"] == state
    assert rig.files() == [f"{BASE}.s2"]
    assert rig.cli("verify").code == 0
    assert rig.guest.read_sha256(DISK) == content
    assert machine.word() == state


REMARKS = {
    "running": "",
    "paused": "",
    "suspended": "note: the guest sleeps",
    "shutdown": "note: the guest has shut down",
    "guest-panicked": "note: the guest has crashed",
    "watchdog": "note: the guest is stopped by its watchdog",
}


_STATES: dict[Road, Sequence[str]] = {
    "qmp": ("running", "paused", "suspended", "shutdown", "guest-panicked", "watchdog"),
    "libvirt": ("running", "guest-panicked", "watchdog"),
}
_AWAY: dict[Road, Sequence[str]] = {
    "qmp": ("inmigrate", "postmigrate", "arrived"),
    "libvirt": ("inmigrate", "postmigrate"),
}


@pytest.fixture
def away(
    road: Road, request: pytest.FixtureRequest, make_machine: MakeMachine, tmp_path: Path
) -> Iterator[Steered]:
    """
    A guest whose images another QEMU may write.

    There is no second host to migrate to, so QEMU is told behind libvirt's back, which calls the
    guest paused.
    """
    where: str = request.param
    saved = tmp_path / "saved"
    if where == "arrived":
        with make_machine("away") as gone:
            migrate_away(gone.rig, saved)
    with make_machine("away", *(["-incoming", "defer"] * (where != "postmigrate"))) as machine:
        rig = machine.rig
        if where == "postmigrate":
            migrate_away(rig, saved)
        if where == "arrived":
            # libvirt sets it: the images are to be taken when the guest is resumed.
            late = {"capability": "late-block-activate", "state": True}
            rig.guest.qmp("migrate-set-capabilities", {"capabilities": [late]})
            rig.guest.qmp("migrate-incoming", {"uri": f"exec:cat {saved}"})
            until(lambda: state_of(rig) == "prelaunch")
        if road == "libvirt":
            assert state_of(rig) == where
        yield machine


class TestStates:
    """What a guest's state does to operations: nothing, as long as its images are its own."""

    @situation(
        "The guest is paused, crashed, asleep, shut down, or stopped by its watchdog",
        happens="every operation works; the result names the state",
        code=0,
        then="Nothing; the state is unchanged.",
    )
    @pytest.mark.parametrize(("road", "state"), on_roads(_STATES), indirect=["road"])
    def test_every_operation_works(self, make_machine: MakeMachine, state: str) -> None:
        with make_machine(state) as machine:
            machine.reach(state)
            every_operation(machine, state)
            said = machine.rig.cli("create", DISK, "last")
            assert REMARKS[state] in said.err
            assert ("note: the guest" in said.err) == bool(REMARKS[state])

    @situation(
        "The guest is stopped because its disk has no space (`io-error`)",
        happens="without room no snapshot is taken, and nothing is left behind; with room, "
        "every operation works, and a note says that the guest is stopped",
        code=1,
        then="Make room; resume the guest (`virsh resume`, QMP `cont`).",
        pain=6,
    )
    def test_stopped_by_an_error(self, make_machine: MakeMachine, tmp_path: Path) -> None:
        (tmp_path / "share").mkdir()
        with small_file_system(tmp_path / "share", 12), make_machine("booting") as machine:
            rig = machine.rig
            filler = fill(rig.folder, 0)
            machine.reach("io-error")
            refused = rig.cli("create", DISK, "s1")
            assert refused.code == 1, refused
            assert "No space left" in refused.err
            assert {path.name for path in rig.folder.iterdir()} >= {BASE, "filler"}
            assert not (rig.folder / f"{BASE}.s1").exists()
            filler.unlink()
            every_operation(machine, "io-error")
            assert "note: the guest is stopped by an input/output error" in (
                rig.cli("create", DISK, "s4").err
            )
            machine.go_on()
            until(lambda: machine.word() == "running")
            # What the guest was stopped at is done now, in the overlay that has come since.
            offset = WRITTEN_SECTOR * 512
            until(lambda: _read(rig, offset) == BOOT_SECTOR)

    @pytest.mark.parametrize("stopped", ["paused", "guest-panicked"])
    @situation(
        "A consistent snapshot is requested of a guest that does not run",
        happens="`--quiesce require` is refused at once; `try` takes a crash-consistent snapshot",
        code=4,
        then="Resume the guest, or do without: `--quiesce never`.",
        pain=9,
    )
    def test_nobody_there_to_freeze(self, make_machine: MakeMachine, stopped: str) -> None:
        with make_machine(stopped) as machine:
            machine.reach(stopped)
            rig = machine.rig
            refused = rig.cli("create", DISK, "s1", "--quiesce", "require")
            assert refused.code == 4, refused
            why = f"the guest does not run ({stopped}), so its agent cannot answer"
            assert why in refused.err
            assert not (rig.folder / f"{BASE}.s1").exists()
            assert rig.files() == [BASE]
            done = json_of(rig.cli("create", DISK, "s2", "--quiesce", "try", "-o", "json"))
            assert done["consistency"] == "crash"

    @situation(
        "The guest is still being migrated to this host, was migrated away, or has arrived and "
        "was not resumed",
        happens="refused, whatever `--allow` says: the images belong to another QEMU",
        code=4,
        then="Work on the guest on the host where it runs; after a failed migration, resume it.",
        pain=4,
    )
    @pytest.mark.parametrize(("road", "away"), on_roads(_AWAY), indirect=True)
    def test_images_that_are_away(self, away: Steered) -> None:
        rig = away.rig
        before = sorted(path.name for path in rig.folder.iterdir())
        info = {"type": "qcow2", "new_file": f"{BASE}.n", "snapshot_id": "n"}
        refused = [
            rig.cli("volume-snapshot-create", SERIAL, json.dumps(info), "--allow", "migration"),
            rig.delete(f"{BASE}.s1", BASE, "--allow", "migration"),
            rig.delete(None, None, "--allow", "migration", "--verify"),
            rig.delete(f"{BASE}.s2", f"{BASE}.s1", "--allow", "migration", "--verify"),
        ]
        for said in refused:
            assert said.code == 4, said
            assert said.status["status"] in ("error", "error_deleting")
            assert "a migration has given the images to another one" in said.err
        assert rig.cli("create", DISK, "--plan").code == 4
        assert sorted(path.name for path in rig.folder.iterdir()) == before
        layers = json_of(rig.cli("chain", "-o", "json"))["disks"][0]["layers"]  # type: ignore[index]
        assert "inactive" in layers[0]["flags"]


class TestEndings:
    """The guest stops or ends in the middle of a merge."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A QEMU that has ended does not come back, however long it is waited for."""
        monkeypatch.setattr("qmpsnap.guests.qmp.guest.RECONNECT_S", 0.1)

    @situation(
        "The guest crashes in the middle of a merge, but its QEMU goes on",
        happens="the merge goes on and ends as usual; a note tells of the crash",
        code=0,
        then="Restart the guest, or look at its memory first.",
    )
    def test_the_guest_stops_in_the_middle(self, make_machine: MakeMachine) -> None:
        with _merging(make_machine, "guest-panicked") as (machine, content):
            said = _meanwhile(machine, lambda: _crash_and_hurry(machine), "--bandwidth", "1")
            assert said.code == 0, said
            assert said.status["status"] == "deleting_compute_complete"
            assert "note: the guest has crashed" in said.err
            assert machine.rig.files() == [f"{BASE}.s2", BASE]
            assert machine.rig.guest.read_sha256(DISK) == content

    @situation(
        "The guest shuts down, or is destroyed, in the middle of a merge",
        happens="the outcome is unknown; no data is lost: the chain of the file that was active "
        "before is complete",
        code=6,
        then="Start the guest again, then give the same command again.",
        pain=7,
    )
    @pytest.mark.parametrize(
        ("kind", "how"),
        [
            ("commit", "off"),
            ("pull", "off"),
            ("active-commit", "off"),
            ("active-commit", "destroyed"),
        ],
    )
    def test_the_guest_ends_in_the_middle(
        self, make_machine: MakeMachine, kind: str, how: str
    ) -> None:
        with _merging(make_machine, "running") as (machine, content):
            end = {"off": lambda: machine.power(SWITCH_OFF), "destroyed": machine.end}[how]
            said = _meanwhile(machine, end, "--bandwidth", "1", kind=kind)
            assert said.code == 6, said
            assert said.status == {"status": "deleting", "progress": "0%"}
            active = machine.rig.folder / f"{BASE}.s2"
            until(lambda: not _is_open(active))
            assert images.sha256_of(active, "qcow2") == content

    @situation(
        "The guest is destroyed just as a snapshot is taken",
        happens="the outcome is unknown; the chain below the new file is complete",
        code=6,
        then="Start the guest from the file that the message names.",
        pain=7,
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_the_guest_ends_in_a_create(
        self, make_machine: MakeMachine, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with _merging(make_machine, "running") as (machine, content):
            ending = at(Does.SWITCH, lambda _step: machine.end())
            for kind in (QmpGuest, LibvirtGuest):
                if when == "before":
                    patch(monkeypatch, kind, before=ending)
                else:
                    patch(monkeypatch, kind, after=ending)
            info = {"type": "qcow2", "new_file": f"{BASE}.n", "snapshot_id": "n"}
            said = machine.rig.cli("volume-snapshot-create", SERIAL, json.dumps(info))
            assert said.code == 6, said
            assert said.status == {"status": "creating", "progress": "0%"}
            assert f"start it from {BASE}.n where that is there" in said.err
            for file in (f"{BASE}.n", f"{BASE}.s2"):
                until(lambda file=file: not _is_open(machine.rig.folder / file))  # type: ignore[misc]
            assert images.sha256_of(machine.rig.folder / f"{BASE}.s2", "qcow2") == content
            if (machine.rig.folder / f"{BASE}.n").exists():
                assert images.sha256_of(machine.rig.folder / f"{BASE}.n", "qcow2") == content


def _read(rig: Rig, offset: int) -> bytes:
    return rig.guest.read_all(DISK)[offset : offset + 512]


@contextmanager
def _merging(make_machine: MakeMachine, state: str) -> Iterator[tuple[Steered, str]]:
    """A running guest with data in the middle layer of three, and its content."""
    with make_machine(state) as machine:
        rig = machine.rig
        rig.create("s1")
        rig.guest.write(DISK, 0, SIZE, 5)
        rig.create("s2")
        rig.guest.write(DISK, 4096, 8192, 6)
        content = rig.guest.read_sha256(DISK)
        rig.guest.qemu_io(DISK, "flush")
        machine.go_on()
        yield machine, content


def _meanwhile(
    machine: Steered, act: Callable[[], object], *options: str, kind: str = "commit"
) -> Said:
    """Delete, and do something else as soon as the job has copied something."""
    top, target = {
        "commit": (f"{BASE}.s1", BASE),
        "active-commit": (f"{BASE}.s2", BASE),
        "pull": (None, None),
    }[kind]
    heard: list[Said] = []
    deleting = Thread(
        target=lambda: heard.append(machine.rig.delete(top, target, *options)), daemon=True
    )
    deleting.start()
    until(lambda: _has_begun(machine.rig) or not deleting.is_alive())
    assert deleting.is_alive(), heard
    act()
    deleting.join()
    return heard[0]


def _crash_and_hurry(machine: Steered) -> None:
    """Crash the guest, and let the job that is at work end soon."""
    machine.ports.write(*CRASH)
    until(lambda: state_of(machine.rig) == "guest-panicked")
    for job in _jobs(machine.rig):
        machine.rig.guest.qmp("block-job-set-speed", {"device": job["id"], "speed": 0})


def _has_begun(rig: Rig) -> bool:
    return any(job["current-progress"] > 0 for job in _jobs(rig))


def _jobs(rig: Rig) -> list[dict[str, Any]]:
    jobs = rig.guest.qmp("query-jobs")
    assert isinstance(jobs, list)
    return jobs


def _is_open(path: Path) -> bool:
    """Whether a process has the file open; its lock may outlive the connection for a moment."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return True
        except OSError:  # closed meanwhile, or another user's
            continue
    return False
