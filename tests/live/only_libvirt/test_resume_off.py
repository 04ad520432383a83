"""
libvirt's definition does not tell what became of an operation; the journal and its marker do.

A guest that is off stands for one whose libvirtd died, with everything else, before it had saved
the new chain.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap import by_name
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.door import take_file
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import seen_all
from qmpsnap.journal.keep import deleted
from qmpsnap.journal.markers import steps_for
from qmpsnap.journal.record import Act, Record
from qmpsnap.journal.resume import settle
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does
from qmpsnap.operations.where import Where
from tests.rig import images
from tests.rig.doors import Killed, at, die, with_door
from tests.rig.libvirt_machine import embedded_process, machine_of
from tests.rig.off import Off, sound
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, run_cli
from tests.rig.state_folder import own_state

PIVOT = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)
PULL = DeleteRequest(disk=SERIAL, file_to_merge=None, merge_target_file=None)


@pytest.fixture(autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Journal:
    own_state(tmp_path_factory, monkeypatch)
    return Journal()


def left(journal: Journal, record: Record, *acts: Does, marked: bool = True) -> None:
    """What a call leaves that dies with everything else, right after these acts were sent."""
    intents = [
        Act(number=number, at=record.begun, does=does.value, by="libvirt", what=does, arguments={})
        for number, does in enumerate(acts, start=1)
    ]
    with journal.opened() as store:
        store.begin(record, intents)
    for step in steps_for(record)[0] if marked else ():
        take_file(step)


def read_when_started(off: Off, scratch: Path) -> str:
    """What the guest reads when libvirt starts it: by the definition, before the headers."""
    off.domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)
    try:
        guest = machine_of(off.domain, embedded_process(off.domain), scratch, off.folder)
        return guest.read_sha256(DISK)
    finally:
        off.domain.destroy()


def record_of(off: Off, request: DeleteRequest | CreateRequest) -> Record:
    """An operation as it is begun while the guest runs."""
    disks = OfflineGuest(off.domain).read()
    where = Where(
        road="libvirt",
        at=off.domain.connect().getURI(),
        guest=off.domain.UUIDString(),
        process=(1, 1),
    )
    common: dict[str, Any] = {
        "id": "0123abc",
        "guest": off.domain.name(),
        "where": where,
        "disks": (DISK,),
        "files": seen_all((str(path), False) for path in sorted(off.folder.glob(f"{BASE}*"))),
        "host": os.uname().nodename,
        "begun": time.time(),
    }
    if isinstance(request, CreateRequest):
        plans = plan_creates(disks, [request])
        return Record(
            kind="create", creating=(request,), creates=plans, made_here=(True,), **common
        )
    plan = plan_delete(disks, request)
    return Record(kind=plan.kind, deleting=request, merge=plan, **common)


class TestTheSameCommandAgain:
    """It was killed when all was done, and nobody has heard so."""

    @pytest.mark.parametrize("what", ["commit", "active commit", "pull"])
    def test_merge(self, off: Off, journal: Journal, what: str) -> None:
        off.grow(3)
        content = off.content()
        file = f"{BASE}.s1" if what == "commit" else f"{BASE}.s2"
        below = {"commit": BASE, "active commit": f"{BASE}.s1"}.get(what)
        request = DeleteRequest(
            disk=SERIAL, file_to_merge=file if below else None, merge_target_file=below
        )
        with OfflineGuest(off.domain) as guest, pytest.raises(Killed):
            deleted(journal, with_door(guest, before=at(Does.RELEASE, die)), request)
        info = {
            "type": "qcow2",
            "file_to_merge": request.file_to_merge,
            "merge_target_file": below,
        }
        said = off.rig.cli("volume-snapshot-delete", SERIAL, "s", json.dumps(info))
        assert said.code == 0, said
        (status,) = said.json.values()
        assert status["status"] == "deleting_compute_complete"
        assert list(status["file_format"]) == [below or f"{BASE}.s2"]
        assert "had been interrupted; this has finished it" in said.err
        assert off.content() == content
        sound(off)

    def test_create(self, off: Off) -> None:
        with OfflineGuest(off.domain) as guest, pytest.raises(Killed):
            by_name.create(with_door(guest, after=at(Does.SWITCH, die)), DISK, "new")
        said = off.rig.cli("create", DISK, "new", "-o", "json")
        assert said.code == 0, said
        assert off.rig.files() == [f"{BASE}.new", BASE]
        sound(off)


class TestPivot:
    """The stale overlay looks valid, and is what the definition names."""

    @pytest.fixture
    def stale(self, off: Off, journal: Journal) -> str:
        """The guest had written to its base after the pivot; returns what it had then."""
        off.grow(2)
        left(journal, record_of(off, PIVOT), Does.START, Does.COMMIT)
        base = off.rig.disk().layers[1]
        images.write(Path(str(base.path)), str(base.format), 0, 4096, 99)
        return images.sha256_of(str(base.path), str(base.format))

    def test_the_same_command_commits_no_stale_overlay(self, off: Off, stale: str) -> None:
        for command in (("delete", DISK, "s1", "--method", "commit"), ("create", DISK, "s2")):
            said = off.rig.cli(*command)
            assert said.code == 4, said
            assert "qmpsnap resume 0123abc" in said.err
        base = off.rig.disk().layers[1]
        assert images.sha256_of(str(base.path), str(base.format)) == stale

    def test_the_marker_alone_forbids_it(self, off: Off, stale: str, journal: Journal) -> None:
        for path in journal.path.parent.glob(f"{journal.path.name}*"):  # with its log
            path.unlink()
        said = off.rig.cli("delete", DISK, "s1", "--method", "commit")
        assert said.code == 4, said
        assert "the marker" in said.err

    def test_nobody_can_know_and_a_person_decides(self, off: Off, stale: str) -> None:
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert said.code == 6, said
        (one,) = said.json["operations"]
        assert (one["outcome"], one["active"]) == ("unknown", None)
        assert one["candidates"] == [str(off.folder / f"{BASE}.s1"), str(off.folder / BASE)]
        assert one["status"] == {
            "os-update_snapshot_status": {"status": "deleting", "progress": "0%"}
        }
        table = off.rig.cli_without_guest("resume")
        assert "qemu-img compare" in table.out
        assert "--take base" in table.out
        said = off.rig.cli_without_guest("resume", "0123abc", "--take", "base", "-o", "json")
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert (one["outcome"], one["active"]) == ("finished", str(off.folder / BASE))
        assert off.rig.cli_without_guest("resume", "-o", "json").json["operations"] == []
        assert not list(off.folder.glob(".*"))

    def test_by_the_marker_when_the_journal_is_gone(
        self, off: Off, stale: str, journal: Journal
    ) -> None:
        for path in journal.path.parent.glob(f"{journal.path.name}*"):  # with its log
            path.unlink()
        marker = str(off.folder / ".qmpsnap-0123abc")
        said = off.rig.cli_without_guest("resume", marker, "-o", "json")
        assert said.code == 6, said
        said = off.rig.cli_without_guest("resume", marker, "--take", "active", "-o", "json")
        assert said.code == 0, said
        assert said.json["operations"][0]["outcome"] == "rolled-back"
        assert not Path(marker).exists()
        (entry,) = off.rig.cli_without_guest("log", "-o", "json").json["operations"]
        assert (entry["outcome"], entry["resumed"]) == ("rolled-back", True)

    def test_not_sent(self, off: Off, journal: Journal) -> None:
        off.grow(2)
        content = off.content()
        left(journal, record_of(off, PIVOT), Does.START, marked=False)
        assert off.rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
        assert off.content() == content
        outcomes = off.rig.cli_without_guest("log", "-o", "json").json["operations"]
        assert [one["outcome"] for one in outcomes][-2:] == ["rolled-back", "finished"]


class TestPull:
    """The header no longer names the base, and what was pulled may be on no disk."""

    def test_all_that_was_pulled_reads_as_zeros(self, off: Off, journal: Journal) -> None:
        off.grow(2)
        content = off.content()
        left(journal, record_of(off, PULL), Does.START)
        overlay = str(off.folder / f"{BASE}.s1")
        qemu_img.run("rebase", overlay, "-u", "-f", "qcow2", "-b", "", overlay)
        assert off.content() != content
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert (one["outcome"], one["active"]) == ("rolled-back", overlay)
        assert off.content() == content
        assert not list(off.folder.glob(".*"))

    @pytest.fixture(params=["the new chain", "the old one"])
    def ended(self, off: Off, journal: Journal, request: pytest.FixtureRequest) -> str:
        """
        The definition says where the chain ends, as that of a guest has it which ran.

        It names the old chain where libvirt died before it had saved the new one. Returns what the
        guest read.
        """
        off.grow(2)
        content = off.content()
        left(journal, record_of(off, PULL), Does.START)
        overlay = str(off.folder / f"{BASE}.s1")
        if request.param == "the old one":
            off.name_chain()
        qemu_img.run("rebase", overlay, "-u", "-f", "qcow2", "-b", "", overlay)
        if request.param == "the new chain":
            off.name_chain()
            assert off.named() == [f"{BASE}.s1"]
        return content

    def test_the_definition_is_kept_in_step(self, off: Off, ended: str, tmp_path: Path) -> None:
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert (said.code, said.json["operations"][0]["outcome"]) == (0, "rolled-back"), said
        assert off.named() == [f"{BASE}.s1", BASE]
        assert (off.content(), read_when_started(off, tmp_path)) == (ended, ended)
        sound(off)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("number", [1, 2])
    def test_killed_between_the_header_and_the_definition(
        self, off: Off, journal: Journal, ended: str, tmp_path: Path, number: int, when: str
    ) -> None:
        with journal.opened() as store:
            (entry,) = store.open_entries()
        dies = at(Does.REDEFINE, die, number)
        mortal = with_door(OfflineGuest(off.domain), **{when: dies})
        with suppress(Killed):  # of a definition that names the old chain there is no second act
            settle(journal, entry, mortal)
        settled = settle(journal, entry, OfflineGuest(off.domain))
        assert settled.outcome in ("rolled-back", "nothing-to-do"), settled
        assert off.named() == [f"{BASE}.s1", BASE]
        assert (off.content(), read_when_started(off, tmp_path)) == (ended, ended)

    @pytest.mark.parametrize("harm", ["gone", "another", "open"])
    def test_not_over_files_that_have_changed(self, off: Off, journal: Journal, harm: str) -> None:
        off.grow(2)
        left(journal, record_of(off, PULL), Does.START)
        overlay, base = off.folder / f"{BASE}.s1", off.folder / BASE
        qemu_img.run("rebase", str(overlay), "-u", "-f", "qcow2", "-b", "", str(overlay))
        before = overlay.read_bytes()
        if harm == "gone":
            base.unlink()
        elif harm == "another":
            base.rename(f"{base}.old")
            images.create_raw(base, SIZE)
        holder = images.held_open(base) if harm == "open" else None
        said = off.rig.cli_without_guest("resume", "-o", "json")
        if holder is not None:
            holder.kill()
            holder.wait()
        assert said.code == 6, said
        assert said.json["operations"][0]["outcome"] == "unknown"
        assert overlay.read_bytes() == before
        assert (off.folder / ".qmpsnap-0123abc").exists()


class TestSwitch:
    """The transaction was carried out, and the definition names the old file."""

    REQUEST = CreateRequest(disk=SERIAL, new_file=f"{BASE}.new", snapshot="new")

    def test_what_the_guest_wrote_is_found(self, off: Off, journal: Journal) -> None:
        off.grow(1)
        record = record_of(off, self.REQUEST)
        (plan,) = record.creates
        left(journal, record, Does.MAKE, Does.SWITCH)
        images.create_qcow2(
            Path(plan.overlay), SIZE, Path(plan.active.path).name, plan.backing_format
        )
        images.write(Path(plan.overlay), "qcow2", 0, 4096, 99)
        content = images.sha256_of(plan.overlay, "qcow2")
        assert off.content() != content
        said = off.rig.cli_without_guest("resume", "--plan", "-o", "json")
        assert said.json["operations"][0]["outcome"] == "finished"
        assert off.active()[0] == BASE
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert one["file_format"] == {f"{BASE}.new": "qcow2"}
        assert off.active() == (f"{BASE}.new", "qcow2")
        assert off.content() == content

    def test_empty_it_is_taken_back(self, off: Off, journal: Journal) -> None:
        off.grow(1)
        content = off.content()
        record = record_of(off, self.REQUEST)
        (plan,) = record.creates
        left(journal, record, Does.MAKE, Does.SWITCH)
        images.create_qcow2(
            Path(plan.overlay), SIZE, Path(plan.active.path).name, plan.backing_format
        )
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert (said.code, said.json["operations"][0]["outcome"]) == (0, "rolled-back")
        assert sorted(path.name for path in off.folder.iterdir()) == [BASE]
        assert off.content() == content

    def test_not_a_file_that_came_from_elsewhere(self, off: Off, journal: Journal) -> None:
        """The name of the overlay may be anybody's by now."""
        off.grow(1)
        record = record_of(off, self.REQUEST)
        (plan,) = record.creates
        left(journal, record, Does.MAKE, Does.SWITCH)
        images.create_qcow2(Path(plan.overlay), SIZE)
        images.write(Path(plan.overlay), "qcow2", 0, 4096, 99)
        said = off.rig.cli_without_guest("resume", "-o", "json")
        assert (said.code, said.json["operations"][0]["outcome"]) == (6, "unknown")
        assert off.active()[0] == BASE
        assert Path(plan.overlay).exists()


def test_a_guest_that_libvirt_has_forgotten(off: Off, journal: Journal) -> None:
    """By the files alone."""
    off.grow(3)
    request = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)
    record = record_of(off, request)
    where = replace(record.where, guest="00000000-0000-0000-0000-000000000000")
    left(journal, replace(record, where=where), Does.START, marked=False)
    said = off.rig.cli_without_guest("resume", "-o", "json")
    assert (said.code, said.json["operations"][0]["outcome"]) == (0, "rolled-back")


@remedy("NoWay")
def test_the_way_of_a_marker_that_is_somebody_elses(off: Off, tmp_path: Path) -> None:
    """The owner of the images could otherwise make whoever resumes it run any program."""
    off.grow(3)
    record, ran = record_of(off, PULL), tmp_path / "ran"
    uri = f"qemu+ext:///system?command=/usr/bin/touch&netcat={ran}"
    forged = replace(record, where=replace(record.where, at=uri))
    for step in steps_for(forged)[0]:
        take_file(step)
    for path in (off.folder, *off.folder.iterdir()):
        os.chown(path, 4242, -1)
    try:
        (marker,) = off.folder.glob(".qmpsnap-*")
        said = off.rig.cli_without_guest("resume", str(marker), "-o", "json")
        (one,) = said.json["operations"]
        assert (said.code, one["outcome"]) == (6, "unknown"), said
        assert f"`qmpsnap --connect URI resume {marker}`" in one["notes"][0]
        assert not ran.exists()
        said = run_cli(["--connect", record.where.at, "resume", str(marker), "-o", "json"])
        assert (said.code, said.json["operations"][0]["outcome"]) == (0, "rolled-back"), said
        assert not marker.exists()
    finally:
        os.chown(off.folder, os.geteuid(), -1)
