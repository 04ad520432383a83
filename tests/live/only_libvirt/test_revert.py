"""A disk goes back to a snapshot, and what it held until then stays."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap import by_name
from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.offline.block_layer import opened
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.journal.file import Journal
from qmpsnap.journal.resume import resume
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.step import Does, Step
from tests.live.test_doors import assert_shown_is_sent
from tests.rig import images
from tests.rig.defined import defined
from tests.rig.doors import Killed, at, patch, with_door
from tests.rig.kills import Trace, at_points, traced
from tests.rig.off import Off, defined_off, sound
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE
from tests.rig.situations import situation
from tests.rig.state_folder import own_state

ARGUMENTS = ("revert", DISK, "s1", "--as", "again")
BACK = [f"{BASE}.again", BASE]


@pytest.fixture(autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Journal:
    own_state(tmp_path_factory, monkeypatch)
    return Journal()


def contents(off: Off) -> dict[str, str]:
    """What each file of the chain reads as, with all below it."""
    return {
        layer.file: images.sha256_of(str(layer.path), str(layer.format))
        for layer in off.rig.disk().layers
    }


def agrees(off: Off, before: dict[str, str]) -> None:
    """Definition, headers and report tell the same chain, no old file has changed, it starts."""
    sound(off)
    disk = off.rig.disk()
    assert disk.xml_differs is None
    assert off.active() == (disk.layers[0].file, disk.layers[0].format)
    for file, hash_ in before.items():
        format_ = "qcow2" if file != BASE else disk.layers[-1].format
        assert images.sha256_of(str(off.folder / file), str(format_)) == hash_
    assert not list(off.folder.glob(".*"))
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        running = off.rig.cli("chain", "-o", "json").json["disks"][0]["layers"]
        assert [one["file"] for one in running] == [layer.file for layer in disk.layers]
        assert {one["verdict"] for one in running} == {"agreed"}
    finally:
        off.domain.destroy()


@pytest.mark.parametrize("named", [False, True], ids=["by headers", "by the definition"])
@pytest.mark.parametrize("snapshot", ["s1", "s2", "s3"])
def test_revert(off: Off, snapshot: str, named: bool) -> None:
    off.grow(4)
    if named:
        off.name_chain()
    before, files = contents(off), off.rig.files()
    back = files[files.index(f"{BASE}.{snapshot}") + 1 :]
    said = off.rig.cli("revert", DISK, snapshot, "--as", "again", "-o", "json")
    assert said.code == 0, said
    assert said.json["operation"] == "revert"
    assert said.json["file_format"] == {f"{BASE}.again": "qcow2"}
    kept = [str(off.folder / file) for file in files[: -len(back)]]
    assert said.json["kept"] == said.json["volumes"][0]["kept"] == kept
    assert off.rig.files() == [f"{BASE}.again", *back]
    assert off.content() == before[back[0]]
    agrees(off, before)
    (*_, entry) = off.rig.cli_without_guest("log", "-o", "json").json["operations"]
    assert (entry["kind"], entry["outcome"], entry["kept"]) == ("revert", "finished", kept)


def test_it_is_said_what_is_kept_and_what_goes_on(
    off: Off, monkeypatch: pytest.MonkeyPatch
) -> None:
    off.grow(3)
    said = off.rig.cli("revert", DISK, "s2")
    assert said.code == 0, said
    assert f"what vda held until now is kept in {BASE}.s2 (qcow2), over {BASE}.s1" in said.err
    (name, *_) = [one["name"] for one in off.rig.cli("list", "-o", "json").json["snapshots"]]
    assert name.startswith("s2-20")
    monkeypatch.setattr(by_name, "default_name", lambda: "20990101-000000")
    said = off.rig.cli("revert", DISK, name)
    assert said.code == 0, said
    again = off.rig.cli("list", "-o", "json").json["snapshots"][0]["name"]
    assert again.count("-") == 2, "the time is not added to a time"


class TestWhatIsKeptStaysWhole:
    def test_no_merge_into_what_it_lies_over(self, off: Off) -> None:
        off.grow(3)
        before = contents(off)
        assert off.rig.cli("revert", DISK, "s2", "--as", "again").code == 0
        for arguments in (
            ("delete", DISK, "again", "--method", "commit"),
            ("delete", DISK, "again", "--method", "commit", "--plan"),
            ("delete", DISK, "s1", "--method", "commit"),
        ):
            said = off.rig.cli(*arguments)
            assert said.code == 4, said
            assert f"{BASE}.s2, which `revert` has kept" in said.err
        assert contents(off)[BASE] == before[BASE]
        (off.folder / f"{BASE}.s2").unlink()
        assert off.rig.cli("delete", DISK, "again", "--method", "commit").code == 0

    def test_none_of_it_is_removed(self, off: Off) -> None:
        off.grow(2)
        content = off.content()
        assert off.rig.cli("revert", DISK, "s1", "--as", "again").code == 0
        said = off.rig.cli("delete", DISK, "again", "--method", "pull", "--remove-file")
        assert said.code == 0, said
        assert "it is or may be in use; it was kept" in said.err
        assert images.sha256_of(str(off.folder / f"{BASE}.s1"), "qcow2") == content

    def test_another_guest_that_looks_into_it_does_not_write_to_it(self, off: Off) -> None:
        off.grow(2)
        kept, look = off.folder / f"{BASE}.s1", off.folder / "look"
        assert off.rig.cli("revert", DISK, "s1").code == 0
        content = images.sha256_of(kept, "qcow2")
        images.create_qcow2(look, SIZE, kept.name, "qcow2")
        with defined(off.domain.connect(), look, "qcow2") as other:
            said = other.cli("delete", DISK, "look", "--method", "commit")
            assert said.code == 4, said
            assert "which `revert` has kept" in said.err
            assert images.sha256_of(kept, "qcow2") == content

    def test_nor_to_what_lies_between(self, off: Off) -> None:
        off.grow(3)
        kept, look = off.folder / f"{BASE}.s2", off.folder / "look"
        assert off.rig.cli("revert", DISK, "s1").code == 0
        content = images.sha256_of(kept, "qcow2")
        images.create_qcow2(look, SIZE, f"{BASE}.s1", "qcow2")
        with defined(off.domain.connect(), look, "qcow2") as other:
            said = other.cli("delete", DISK, "look", "--method", "commit")
            assert said.code == 4, said
            assert f"{kept}, which `revert` has kept" in said.err
            assert images.sha256_of(kept, "qcow2") == content

    def test_orphans_calls_it_used(self, off: Off) -> None:
        off.grow(2)
        assert off.rig.cli("revert", DISK, "s1").code == 0
        assert off.rig.cli("orphans", DISK, "-o", "json").json["files"] == []

    def test_the_journal_never_forgets_it(self, off: Off, journal: Journal) -> None:
        off.grow(2)
        assert off.rig.cli("revert", DISK, "s1", "--as", "again").code == 0
        with journal.opened() as store:
            (revert,) = store.reverts()
            store._database.execute("UPDATE operation SET ended = 1")
        assert off.rig.cli("create", DISK, "more").code == 0
        with journal.opened() as store:
            assert [one.record.id for one in store.reverts()] == [revert.record.id]

    def test_without_a_journal_it_is_said(self, off: Off) -> None:
        off.grow(2)
        said = off.rig.cli(*ARGUMENTS, "--no-journal")
        assert said.code == 0, said
        assert "later merges will not know what it keeps" in said.err

    def test_taken_up_again_it_is_the_disk(self, off: Off) -> None:
        off.grow(2)
        content, definition = off.content(), off.definition()
        assert off.rig.cli("revert", DISK, "s1", "--as", "again").code == 0
        off.domain.connect().defineXML(definition)
        assert off.content() == content
        left = off.folder / f"{BASE}.again"
        said = off.rig.cli("delete", DISK, "s1", "--method", "commit")
        assert (said.code, f"{left}, by its header" in said.err) == (4, True), said
        left.unlink()
        assert off.rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
        assert off.content() == content


class TestHalfCommitted:
    """A commit into what a disk would go back to was begun and not done: that holds two moments."""

    COMMIT = ("delete", DISK, "s1", "--method", "commit")

    def cancelled(self, off: Off) -> str:
        """Returns what the guest reads; of s1 and of what lies over it a part may be in the base."""
        off.grow(2)
        off.write(0, SIZE // 2, 77)
        before = contents(off)
        said = off.rig.cli(*self.COMMIT, "--bandwidth", "1", "--timeout", "1")
        assert said.code == 5, said
        assert "is mixed with newer data, and cannot be gone back to" in said.err
        assert contents(off)[BASE] != before[BASE]
        return off.content()

    def refused(self, off: Off) -> None:
        files = off.rig.files()
        for options in ((), ("--plan",)):
            said = off.rig.cli("revert", DISK, "s1", *options)
            assert said.code == 4, said
            assert "does not hold any more what it did at the snapshot" in said.err
            assert "`--allow half-committed`" in said.err
        assert off.rig.files() == files

    @remedy("WouldHarm/half-committed", "TimedOut")
    @situation(
        "A disk is to go back to a snapshot, and a commit that was to delete it was cancelled or killed",
        happens="refused: what the disk held then is mixed with newer data",
        code=4,
        then="Keep the disk as it is, or give the same `delete` again.",
        pain=4,
    )
    def test_not_gone_back_to(self, off: Off) -> None:
        content = self.cancelled(off)
        self.refused(off)
        assert off.rig.cli(*self.COMMIT, "--remove-file").code == 0
        assert (off.content(), off.rig.files()) == (content, [BASE])
        off.rig.create("s1")  # of the same name, and whole
        assert off.rig.cli(*ARGUMENTS).code == 0
        assert off.content() == content

    def test_while_the_commit_is_open(self, off: Off) -> None:
        """The command itself settles that first."""
        off.grow(2)

        def die(_: Step) -> None:
            raise Killed

        with OfflineGuest(off.domain) as guest, pytest.raises(Killed):
            by_name.delete(with_door(guest, after=at(Does.START, die)), DISK, "s1", method="commit")
        said = off.rig.cli("revert", DISK, "s1", "--plan")
        assert said.code == 4, said
        self.refused(off)

    def test_allowed(self, off: Off) -> None:
        self.cancelled(off)
        for options in (("--plan",), ()):
            said = off.rig.cli(*ARGUMENTS, "--allow", "half-committed", *options)
            assert said.code == 0, said
        assert off.rig.files() == BACK

    def test_pulled_up_and_committed_it_is_whole(self, off: Off) -> None:
        """All that a part of was copied into the base is in what was committed then."""
        off.grow(3)
        assert off.rig.cli(*self.COMMIT, "--bandwidth", "1", "--timeout", "1").code == 5
        self.refused(off)
        arguments = {"type": "qcow2", "file_to_merge": BASE, "merge_target_file": None}
        said = off.rig.cli("volume-snapshot-delete", SERIAL, "s1", json.dumps(arguments))
        assert said.code == 0, said
        said = off.rig.cli("delete", DISK, "s2", "--method", "commit")
        assert said.code == 0, said
        content = off.content()
        off.rig.create("s4")
        assert off.rig.cli("revert", DISK, "s4").code == 0
        assert off.content() == content

    def test_snapshots_above_are_whole(self, off: Off) -> None:
        """Of three layers the lowest is written; what reads through it alone is mixed as well."""
        off.grow(3)
        before = contents(off)
        said = off.rig.cli(*self.COMMIT, "--bandwidth", "1", "--timeout", "1")
        assert said.code == 5, said
        self.refused(off)
        assert off.rig.cli("revert", DISK, "s2", "--as", "again").code == 0
        assert off.content() == before[f"{BASE}.s1"]

    def test_a_later_commit_takes_it_down_with_it(self, off: Off) -> None:
        off.grow(4)
        commit = ("delete", DISK, "s2", "--method", "commit")
        assert off.rig.cli(*commit, "--bandwidth", "1", "--timeout", "1").code == 5
        assert off.rig.cli(*self.COMMIT).code == 0  # what is mixed goes into the base
        said = off.rig.cli("list", DISK)
        assert f"note: {BASE} does not hold any more what it did at a snapshot" in said.err
        said = off.rig.cli("revert", DISK, "s2")
        assert said.code == 4, said
        assert f"{BASE} does not hold any more what it did at the snapshot" in said.err
        content = images.sha256_of(off.folder / f"{BASE}.s2", "qcow2")
        assert off.rig.cli(*commit).code == 0
        assert "does not hold" not in off.rig.cli("list", DISK).err
        assert off.rig.cli("revert", DISK, "s3", "--as", "again").code == 0
        assert off.content() == content

    @pytest.mark.parametrize("refused", [False, True], ids=["killed", "refused by QEMU"])
    def test_killed(self, off: Off, journal: Journal, refused: bool) -> None:
        """What QEMU has refused to begin has mixed nothing."""
        off.grow(2)

        def at_start(step: Step) -> None:
            if refused:
                raise CommandFailed(step.what, "GenericError", "no")
            raise Killed

        meddle = (
            {"before": at(Does.START, at_start)} if refused else {"after": at(Does.START, at_start)}
        )
        with OfflineGuest(off.domain) as guest, pytest.raises((Killed, CommandFailed)):
            by_name.delete(with_door(guest, **meddle), DISK, "s1", method="commit")
        said = off.rig.cli_without_guest("resume")
        assert (said.code, "is mixed with newer data" in said.out + said.err) == (0, not refused), (
            said
        )
        if refused:
            assert off.rig.cli(*ARGUMENTS).code == 0
        else:
            self.refused(off)


@remedy("GuestRuns")
@situation(
    "A disk is to go back to a snapshot, and the guest runs",
    happens="refused: what the guest has in its memory belongs to the newer state",
    code=4,
    then="Shut the guest down, then give the same command again.",
    pain=4,
)
def test_not_while_the_guest_runs(off: Off) -> None:
    off.grow(2)
    files = sorted(off.folder.iterdir())
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    for options in ((), ("--plan",)):
        said = off.rig.cli(*ARGUMENTS, *options)
        assert said.code == 4, said
        assert "in its memory" in said.err
        assert "virsh shutdown" in said.err
    assert sorted(off.folder.iterdir()) == files
    off.domain.destroy()
    assert off.rig.cli(*ARGUMENTS).code == 0
    assert off.rig.files() == BACK


def test_what_is_in_the_way(off: Off) -> None:
    off.grow(2)
    before = contents(off)
    for arguments, words in (
        (("revert", DISK, "nothing"), "has no snapshot"),
        (("revert", DISK, "s1", "--as", "s1"), "is in use in the chain"),
        (("revert", DISK, "s1", "--as", "no/name"), "cannot name a snapshot"),
        (("revert", "vdz", "s1"), "there is no disk"),
    ):
        said = off.rig.cli(*arguments)
        assert said.code in (2, 4), said
        assert words in said.err
    (off.folder / f"{BASE}.again").write_bytes(b"somebody else's")
    said = off.rig.cli(*ARGUMENTS)
    assert said.code == 4, said
    assert (off.folder / f"{BASE}.again").read_bytes() == b"somebody else's"
    (off.folder / f"{BASE}.again").unlink()
    holder = images.held_open(off.folder / f"{BASE}.s1")
    holder.kill()
    holder.wait()
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    off.domain.managedSave(0)
    try:
        said = off.rig.cli(*ARGUMENTS)
        assert said.code == 4, said
        assert "saved memory" in said.err
    finally:
        off.domain.managedSaveRemove(0)
    assert contents(off) == before


def test_not_while_somebody_has_the_chain_open(off: Off) -> None:
    """A QEMU, by its locks: it writes what would be called kept."""
    off.grow(2)
    disk = off.rig.disk()
    with opened([(str(layer.path), str(layer.format)) for layer in disk.layers]):
        said = off.rig.cli(*ARGUMENTS)
    assert said.code == 4, said
    assert "lock" in said.err
    assert off.rig.files() == [f"{BASE}.s1", BASE]
    assert not (off.folder / f"{BASE}.again").exists()


@remedy("BaseElsewhere")
def test_a_template_of_another_folder(connection: Any, tmp_path: Path) -> None:
    """No header is followed out of the folder, so the new chain could not be read."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "share").mkdir()
    template, active = tmp_path / "templates" / "debian", tmp_path / "share" / "web1"
    images.create_qcow2(template, SIZE)
    images.create_qcow2(active, SIZE, str(template), "qcow2")
    with defined(connection, active, "qcow2") as guest:
        store = f"<format type='qcow2'/><source file='{template}'/>"
        named = f"<backingStore type='file'>{store}</backingStore><target dev="
        text = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        connection.defineXML(text.replace("<target dev=", named))
        said = guest.cli("revert", DISK, "web1", "--as", "again")
        assert said.code == 4, said
        assert [path.name for path in (tmp_path / "share").iterdir()] == ["web1"]
        (way_out,) = re.findall(r"`(qemu-img create [^`]+)`", said.err)
        subprocess.run(way_out.split(), check=True, capture_output=True)
        text = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        connection.defineXML(text.replace(f"'{active}'", f"'{active}.again'"))
        guest.start()
        assert guest.active_file() == f"{active}.again"


def test_the_size_is_that_of_then(off: Off) -> None:
    off.grow(1)
    off.rig.create("s1")
    active = str(off.rig.disk().layers[0].path)
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", active, "+1M"], check=True)
    said = off.rig.cli(*ARGUMENTS)
    assert said.code == 0, said
    assert f"vda has {SIZE} bytes again, and had {SIZE + MIB}" in said.err
    assert off.rig.disk().layers[0].virtual_size == SIZE


def test_several_disks(off: Off) -> None:
    second = off.folder / "data"
    images.create_raw(second, SIZE)
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{second}'/><target dev='vdb' bus='virtio'/></disk>"
    )
    off.domain.attachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    assert off.rig.cli("create", DISK, "s1", "--also", "vdb").code == 0
    said = off.rig.cli("revert", DISK, "s1", "--plan")
    assert (said.code, "on one node" in said.out) == (0, False), said
    said = off.rig.cli("revert", DISK, "s1", "--as", "one")
    assert "vdb has a snapshot s1 as well, and stays as it is" in said.err
    assert "on one node" not in said.err
    said = off.rig.cli("revert", DISK, "one", "--also", "vdb", "--as", "both")
    assert (said.code, "has no snapshot 'one'" in said.err) == (4, True), said
    said = off.rig.cli("create", DISK, "s2", "--also", "vdb")
    said = off.rig.cli("revert", DISK, "s2", "--also", "vdb", "--as", "both", "-o", "json")
    assert said.code == 0, said
    assert said.json["file_format"] == {f"{BASE}.both": "qcow2", "data.both": "qcow2"}
    assert said.json["consistency"] is None


def test_what_is_shown_is_what_is_sent(off: Off) -> None:
    off.grow(3)
    assert_shown_is_sent(off.rig, ARGUMENTS)


def test_a_plan_is_applied(off: Off, tmp_path: Path) -> None:
    off.grow(3)
    before = contents(off)
    plan = tmp_path / "plan.json"
    plan.write_text(off.rig.cli(*ARGUMENTS, "--plan", "-o", "json").out)
    said = off.rig.cli_without_guest("apply", str(plan))
    assert said.code == 0, said
    assert off.rig.files() == BACK
    agrees(off, before)
    said = off.rig.cli_without_guest("apply", str(plan))
    assert said.code == 4, said


def test_the_guest_cannot_be_started_in_the_middle(
    off: Off, monkeypatch: pytest.MonkeyPatch
) -> None:
    off.grow(2)
    before, started = contents(off), []

    def start(_step: Step) -> None:
        with pytest.raises(libvirt.libvirtError) as caught:
            off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        started.append(str(caught.value))

    patch(monkeypatch, OfflineGuest, after=at(Does.MAKE, start))
    assert off.rig.cli(*ARGUMENTS).code == 0
    assert "lock" in started[0]
    agrees(off, before)


def test_an_edit_of_the_definition_in_the_middle_is_kept(
    off: Off, monkeypatch: pytest.MonkeyPatch
) -> None:
    off.grow(2)

    def edit(_step: Step) -> None:
        off.domain.connect().defineXML(
            off.definition().replace(">32768</memory>", ">65536</memory>")
        )

    patch(monkeypatch, OfflineGuest, after=at(Does.MAKE, edit))
    assert off.rig.cli(*ARGUMENTS).code == 0
    assert ">65536</memory>" in off.definition()
    assert off.rig.files() == BACK


@pytest.fixture
def guests(connection: Any, tmp_path: Path) -> Any:
    folder = tmp_path / "share"
    folder.mkdir()

    @contextmanager
    def make(*, named: bool) -> Iterator[Off]:
        for path in folder.glob("*"):
            path.unlink()
        with defined_off(connection, folder, "raw") as off:
            off.grow(3)
            if named:
                off.name_chain()
            yield off

    return make


@pytest.mark.parametrize("named", [False, True], ids=["active file named", "chain named"])
@pytest.mark.parametrize("settled", ["by resume", "by the same command", "after a start"])
def test_killed(guests: Any, journal: Journal, settled: str, named: bool) -> None:
    """Whatever is settled, it is the old disk or the one that was gone back to, whole; both are there."""

    def operate(trace: Trace) -> None:
        with guests(named=named) as off:
            before, old = contents(off), off.rig.files()
            died = _dies(off, trace)
            with journal.opened() as store:
                entries = store.open_entries()
            assert off.rig.files() in (old, BACK)
            assert died or not entries
            if settled == "after a start":
                off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            if settled == "by the same command":
                said = off.rig.cli(*ARGUMENTS)
                assert said.code in (0, 4), said
                assert off.rig.files() == BACK, said
            for entry in entries if settled != "by the same command" else ():
                end = resume(journal, entry)
                assert end.outcome in ("finished", "rolled-back"), end
                done = end.outcome == "finished"
                assert end.active == (str(off.folder / (BACK if done else old)[0]),)
                assert off.named()[0] == (BACK if done else old)[0]
                assert resume(journal, entry).outcome == "nothing-to-do"
            if settled == "after a start":
                off.domain.destroy()
            with journal.opened() as store:
                assert not store.open_entries()
                kept = [one for one in store.reverts() if one.conclusion and one.conclusion.kept]
            assert off.rig.files() in (old, BACK)
            made = off.folder / f"{BASE}.again"
            assert made.exists() == (off.rig.files() == BACK)
            assert bool(kept) == (off.rig.files() == BACK)
            agrees(off, before)
            with journal.opened() as store:
                store._database.execute("DELETE FROM operation")

    name = f"revert, {settled}, {named}"
    found = at_points(name, operate)
    print(f"{name}: {found}")
    assert found.count


def _dies(off: Off, trace: Trace) -> bool:
    with OfflineGuest(off.domain) as guest, traced(guest, trace) as mortal:
        try:
            by_name.revert(mortal, DISK, "s1", name="again")
        except Killed:
            return True
        except QmpsnapError as error:
            raise AssertionError(error) from error
    return False
