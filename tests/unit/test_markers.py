"""Markers beside the images: read as anything hostile is, and a reason to leave the files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

import qmpsnap
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files import markers as files
from qmpsnap.guests.files.door import FileFailed, take_file
from qmpsnap.journal import keep
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import seen_all
from qmpsnap.journal.markers import (
    MarkerUntrusted,
    OperationOpen,
    beside,
    check_unmarked,
    concerning,
    entry_of,
    folders,
    steps_for,
)
from qmpsnap.journal.record import Conclusion, Entry, Outcome, Record, Seen, works_on
from qmpsnap.journal.resume import Wanted, settle
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does
from tests.rig.rig import run_cli
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest
from tests.unit.journal_samples import creating, merging

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def on_share(record: Record, share: Path) -> Record:
    """The same with its files in a folder that is there."""
    disk = moved(samples.disk(2), share)
    request = CreateRequest(disk="vda", new_file=None, snapshot="new")
    return replace(record, creates=plan_creates(samples.guest(disk), [request]))


def merge_on_share(request: DeleteRequest, share: Path) -> Record:
    disk = moved(samples.disk(3), share)
    plan = plan_delete(samples.guest(disk), request)
    return merging("abc", merge=plan, kind=plan.kind, files=())


MERGES = {
    "pivot": DeleteRequest(
        disk="vda", file_to_merge="volume-1.s2", merge_target_file="volume-1.s1"
    ),
    "pull": DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None),
}


def moved(disk: Disk, share: Path) -> Disk:
    layers = tuple(replace(one, path=f"{share}/{one.file}") for one in disk.layers)
    for layer in layers:
        Path(layer.path or "").touch()
    return replace(disk, layers=layers)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return on_share(creating("abc"), tmp_path)


def write(record: Record) -> None:
    for step in steps_for(record)[0]:
        take_file(step)


def test_written_whole_and_taken_away(record: Record, tmp_path: Path) -> None:
    write(record)
    (marker,) = beside([f"{tmp_path}/any"])
    assert marker.path == f"{tmp_path}/.qmpsnap-abc"
    assert marker.written is not None
    assert (marker.written.state, marker.written.record) == ("switch", record)
    assert os.stat(marker.path).st_mode & 0o777 == 0o644
    assert "do not start" in Path(marker.path).read_text().lower()
    for _ in range(2):
        for step in steps_for(record)[1]:
            take_file(step)
    assert beside([f"{tmp_path}/any"]) == ()
    assert not list(tmp_path.glob(".*"))


def test_one_that_was_not_written_whole(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle: it says nothing, and goes with the marker, or before there is one."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *_: os._exit(9))
        child = os.fork()
        if not child:
            write(record)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.name for path in tmp_path.glob(".*")] == [".qmpsnap-abc.tmp"]
    assert beside([f"{tmp_path}/any"]) == ()
    for step in steps_for(record)[1]:
        take_file(step)
    assert not list(tmp_path.glob(".*"))
    (tmp_path / ".qmpsnap-abc.tmp").touch()
    write(record)
    assert [path.name for path in tmp_path.glob(".*")] == [".qmpsnap-abc"]
    (tmp_path / ".qmpsnap-abc.tmp").mkdir()  # as somebody else might
    for step in steps_for(record)[1]:
        take_file(step)
    assert [path.name for path in tmp_path.glob(".*")] == [".qmpsnap-abc.tmp"]


def test_one_that_was_taken_away_does_not_come_back(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a power failure either: its folder is synced."""
    write(record)
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.fstat(file).st_ino))
    for step in steps_for(record)[1]:
        take_file(step)
    assert synced == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("name", ["fsync", "replace", "fchmod"])
def test_a_share_that_does_not_take_it(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(f"qmpsnap.guests.files.markers.os.{name}", refuse)
    with pytest.raises(FileFailed, match="Permission denied"):
        write(record)
    assert not list(tmp_path.glob(".*"))


def test_beside_every_file_that_a_guest_may_be_started_from() -> None:
    elsewhere = creating()
    plan = replace(elsewhere.creates[0], overlay="/other/volume-1.new")
    assert folders(replace(elsewhere, creates=(plan,))) == ("/other", "/share")
    assert folders(merging()) == ("/share",)


class TestForbids:
    def test_its_files_and_no_others(self, record: Record, tmp_path: Path) -> None:
        write(record)
        with pytest.raises(OperationOpen) as caught:
            check_unmarked([f"{tmp_path}/volume-1"], [f"{tmp_path}/volume-1"])
        assert caught.value.operation == "abc"
        assert f"`qmpsnap resume {tmp_path}/.qmpsnap-abc`" in caught.value.way_out
        check_unmarked([f"{tmp_path}/volume-2"], [f"{tmp_path}/volume-2"])
        check_unmarked([f"{tmp_path}/volume-1"], [f"{tmp_path}/volume-1"], but=record)

    def test_the_same_file_by_another_name(self, record: Record, tmp_path: Path) -> None:
        from qmpsnap.journal.identities import seen_all

        seen = seen_all([(f"{tmp_path}/volume-1", False)])
        write(replace(record, files=seen))
        os.link(tmp_path / "volume-1", tmp_path / "volume-2")
        assert concerning([f"{tmp_path}/volume-2"], [f"{tmp_path}/volume-2"])

    @pytest.mark.parametrize("content", ["", "{}", '{"qmpsnap": 1}', "\xff", "[" * 100_000])
    def test_one_that_cannot_be_read(self, tmp_path: Path, content: str) -> None:
        (tmp_path / ".qmpsnap-x").write_bytes(content.encode("latin-1"))
        with pytest.raises(OperationOpen, match="cannot be read"):
            check_unmarked([f"{tmp_path}/anything"], [f"{tmp_path}/anything"])

    @pytest.mark.parametrize("when", ["before it is opened", "when it is open"])
    @pytest.mark.parametrize("then", ["gone", "replaced", "replaced again and again"])
    def test_one_that_is_removed_in_between(
        self,
        record: Record,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        when: str,
        then: str,
    ) -> None:
        """The operation of another volume of the folder ends; one of this volume goes on."""
        write(record)
        path = tmp_path / ".qmpsnap-abc"
        text, real, times = (
            path.read_text(),
            os.open,
            [1 if then != "replaced again and again" else 99],
        )

        def opens(name: str, *arguments: Any, **more: Any) -> int:
            descriptor = None if when == "before it is opened" else real(name, *arguments, **more)
            if times[0] > 0 and name == str(path):
                times[0] -= 1
                path.unlink()
                if then != "gone":
                    path.write_text(text)
            return real(name, *arguments, **more) if descriptor is None else descriptor

        monkeypatch.setattr(os, "open", opens)
        is_open = then != "gone" and (when, then) != ("when it is open", "replaced again and again")
        (found,) = beside([f"{tmp_path}/x"]) or (None,)
        assert (found is None) == (then == "gone")
        assert found is None or (found.problem == "") == is_open
        times[0] = 99 if then == "replaced again and again" else 1
        if then == "gone":
            path.write_text(text)
            check_unmarked([f"{tmp_path}/volume-1"], [f"{tmp_path}/volume-1"])
        else:
            with pytest.raises(OperationOpen):
                check_unmarked([f"{tmp_path}/volume-1"], [f"{tmp_path}/volume-1"])

    def test_one_of_another_name(self, record: Record, tmp_path: Path) -> None:
        write(record)
        (tmp_path / ".qmpsnap-abc").rename(tmp_path / ".qmpsnap-other")
        (marker,) = beside([f"{tmp_path}/x"])
        assert marker.problem == "it is the marker of abc"

    def test_temporary_files_are_none(self, tmp_path: Path) -> None:
        (tmp_path / ".qmpsnap-x.tmp").write_text("")
        check_unmarked([f"{tmp_path}/anything"], [f"{tmp_path}/anything"])

    def test_the_same_call_with_the_same_token(self, record: Record, tmp_path: Path) -> None:
        """Of another host, or with a new journal: it does not know what became of the first one."""
        write(record)
        (tmp_path / "state").mkdir(mode=0o700)
        guest = FakeGuest(samples.guest(moved(samples.disk(2), tmp_path)))
        asked = CreateRequest(disk="vda", snapshot="other", new_file=None)
        with pytest.raises(OperationOpen):
            keep.created(Journal(tmp_path / "state"), guest, (asked,), token="abc")
        assert not {"make", "switch"} & set(guest.calls)

    def test_of_another_operation_of_its_id(self, record: Record, tmp_path: Path) -> None:
        """Two hosts have begun one each with one token."""
        write(record)
        own = replace(record, begun=record.begun + 1)
        with pytest.raises(OperationOpen):
            check_unmarked([f"{tmp_path}/volume-1"], [f"{tmp_path}/volume-1"], but=own)

    @pytest.mark.parametrize("journal", [True, False])
    def test_an_operation(self, record: Record, tmp_path: Path, journal: bool) -> None:
        """With a journal or without, on every road: it is asked in one place."""
        write(record)
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        guest = FakeGuest(samples.guest(moved(samples.disk(2), tmp_path)))
        keeper = Journal(state) if journal else None
        with pytest.raises(OperationOpen):
            qmpsnap.create(guest, "vda", "other", journal=keeper)
        assert not {"make", "switch"} & set(guest.calls)


def test_an_operation_with_an_id_of_its_own_keeps_its_markers(record: Record) -> None:
    apart = record.named_apart("other")
    assert steps_for(apart) == steps_for(record)
    assert apart.is_same_as(record)
    assert apart.named_apart("third").marker_name == record.id


class TestOfOneThatHasEnded:
    """It could not be removed then, or came back when the power failed."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        return Journal(state)

    def ended(self, journal: Journal, record: Record, outcome: Outcome, *active: str) -> None:
        with journal.opened() as store:
            store.begin(record, [])
            end = Conclusion(outcome=outcome, ended=1.0, active=active)
            store.conclude(record, end)

    @pytest.mark.parametrize("outcome", ["failed", "finished"])
    def test_in_each_of_its_folders(
        self, journal: Journal, tmp_path: Path, outcome: Outcome
    ) -> None:
        """An error knows no active file; a base may lie in another folder than that."""
        (tmp_path / "else").mkdir()
        top, base, lowest = moved(samples.disk(3), tmp_path).layers
        base = replace(base, path=f"{tmp_path}/else/volume-1.s1")
        disk = replace(samples.disk(3), layers=(top, base, lowest))
        plan = plan_delete(samples.guest(disk), MERGES["pivot"], foreign=True)
        works = works_on([plan], remove=False)
        record = merging("abc", merge=plan, kind=plan.kind, files=(), works_on=works)
        write(record)
        places = [tmp_path / ".qmpsnap-abc", tmp_path / "else" / ".qmpsnap-abc"]
        assert all(map(Path.exists, places))
        self.ended(journal, record, outcome, *([plan.top.path] if outcome == "finished" else []))
        settled = settle(journal, Entry(record=record), None)
        assert settled.outcome == "nothing-to-do"
        assert not any(map(Path.exists, places))
        assert len(settled.notes) == 3

    def test_where_it_was_named(self, journal: Journal, record: Record, tmp_path: Path) -> None:
        """The share is mounted elsewhere by now."""
        write(record)
        self.ended(journal, record, "failed")
        (tmp_path / "now").mkdir()
        place = tmp_path / "now" / ".qmpsnap-abc"
        (tmp_path / ".qmpsnap-abc").rename(place)
        settle(journal, Entry(record=record), None)
        assert place.exists()
        settle(journal, Entry(record=record, marker=str(place)), None, Wanted(only_plan=True))
        assert place.exists()
        settle(journal, Entry(record=record, marker=str(place)), None)
        assert not place.exists()

    @pytest.mark.parametrize("of", ["another host", "another time", "nobody knows whom"])
    def test_one_of_the_same_id(
        self, journal: Journal, record: Record, tmp_path: Path, of: str
    ) -> None:
        """A caller's token is the id on every host; the other one may be open."""
        place = tmp_path / ".qmpsnap-abc"
        changed = {"host": "other"} if of == "another host" else {"begun": record.begun + 1}
        write(replace(record, **changed))
        if of == "nobody knows whom":
            place.write_text("{}")
        self.ended(journal, replace(record, works_on=(f"{tmp_path}/volume-1",)), "finished")
        for named in (None, str(place)):
            settled = settle(journal, Entry(record=record, marker=named), None)
            assert settled.outcome == "unknown"
            assert str(place) in settled.notes[0]
            assert place.exists()


class TestHostile:
    """Whoever can write into the folder can put anything there."""

    def test_one_that_says_which_file_is_its_marker(self, record: Record, tmp_path: Path) -> None:
        """That file would be removed."""
        write(record)
        path = tmp_path / ".qmpsnap-abc"
        path.write_text(path.read_text().replace('"marked":""', '"marked":"x/../../etc/passwd"'))
        (marker,) = beside([f"{tmp_path}/x"])
        with pytest.raises(MarkerUntrusted):
            entry_of(marker)

    def test_links_and_fifos(self, record: Record, tmp_path: Path) -> None:
        write(record)
        place = tmp_path / ".qmpsnap-abc"
        aside = tmp_path / "aside"
        place.rename(aside)
        kinds: list[Callable[[], object]] = [
            lambda: place.symlink_to(aside),
            lambda: os.link(aside, place),
            lambda: os.mkfifo(place),
            lambda: place.mkdir(),
        ]
        for make in kinds:
            make()
            (marker,) = beside([f"{tmp_path}/x"])
            assert marker.written is None
            assert marker.problem
            with pytest.raises(MarkerUntrusted):
                entry_of(marker)
            place.rmdir() if place.is_dir() else place.unlink()

    def test_what_is_no_image_is_not_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer of a FIFO would be let go, and a watchdog would be started."""
        fifo, image = tmp_path / "fifo", tmp_path / "image"
        os.mkfifo(fifo)
        image.write_text("x")
        monkeypatch.setattr("qmpsnap.journal.identities._hash", lambda path: f"opened {path}")
        found = seen_all([(str(one), True) for one in (fifo, image)])
        assert [one.header for one in found] == [None, f"opened {image}"]

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "_LIMIT", 10)
        (tmp_path / ".qmpsnap-x").write_text("x" * 11)
        (marker,) = beside([f"{tmp_path}/x"])
        assert marker.problem == "it is too large"

    def test_of_somebody_else(self, record: Record, tmp_path: Path) -> None:
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        assert entry_of(marker).record == record
        with pytest.raises(MarkerUntrusted, match="belongs to user 4242"):
            entry_of(replace(marker, owner=4242))

    @AS_ROOT
    def test_of_the_owner_of_one_file(self, record: Record, tmp_path: Path) -> None:
        """In a folder where everybody may make files, a file of one's own gives no other away."""
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        forged = replace(marker, owner=4242)
        os.chown(tmp_path / "volume-1", 4242, -1)
        with pytest.raises(MarkerUntrusted, match="does not own all"):
            entry_of(forged)
        os.chown(tmp_path / "volume-1.s1", 4242, -1)
        assert entry_of(forged).record == replace(record, where=replace(record.where, at=""))

    @AS_ROOT
    def test_of_the_owner_of_a_link(self, record: Record, tmp_path: Path) -> None:
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        for name in ("volume-1", "volume-1.s1"):
            os.chown(tmp_path / name, 4242, -1)
        (tmp_path / "volume-1").rename(tmp_path / "aside")
        (tmp_path / "roots").touch()
        (tmp_path / "volume-1").symlink_to("roots")
        os.chown(tmp_path / "volume-1", 4242, -1, follow_symlinks=False)
        with pytest.raises(MarkerUntrusted, match="does not own all"):
            entry_of(replace(marker, owner=4242))

    def test_of_files_that_are_not_there(self, record: Record, tmp_path: Path) -> None:
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        for name in ("volume-1", "volume-1.s1"):
            (tmp_path / name).unlink()
        with pytest.raises(MarkerUntrusted, match="does not own all"):
            entry_of(replace(marker, owner=4242))

    def test_whose_parts_do_not_agree(self, record: Record, tmp_path: Path) -> None:
        """What is changed is not only what its disk has."""
        (plan,) = record.creates
        elsewhere = replace(plan, active=replace(plan.active, path="/other/volume-1.s1"))
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        assert marker.written is not None
        forged = replace(marker.written, record=replace(record, creates=(elsewhere,)))
        with pytest.raises(MarkerUntrusted, match="another folder"):
            entry_of(replace(marker, written=forged))

    def test_of_a_chain_in_two_folders(self, record: Record, tmp_path: Path) -> None:
        """It lies in both; a template that is only read may lie anywhere."""
        (plan,) = record.creates
        new, old = tmp_path / "new", tmp_path / "old"
        for folder in (new, old):
            folder.mkdir()
        below = replace(plan.disk.layers[1], path="/templates/volume-1")
        active = replace(plan.active, path=f"{old}/volume-1.s1")
        disk = replace(plan.disk, layers=(active, below))
        moved_on = replace(plan, disk=disk, active=active, overlay=f"{new}/volume-1.new")
        own = works_on([moved_on], remove=False)
        write(replace(record, creates=(moved_on,), works_on=own))
        for folder in (new, old):
            (marker,) = beside([f"{folder}/x"])
            assert entry_of(marker).marker == marker.path
        (old / ".qmpsnap-abc").unlink()
        (marker,) = beside([f"{new}/x"])
        with pytest.raises(MarkerUntrusted, match="another folder"):
            entry_of(marker)

    def test_of_a_merge_in_three_folders(self, tmp_path: Path) -> None:
        """In the middle one lies what is dropped, from which no guest is started."""
        layers = []
        for layer in samples.disk(3).layers:
            (tmp_path / layer.file).mkdir()
            layers.append(replace(layer, path=f"{tmp_path}/{layer.file}/{layer.file}"))
        disk = replace(samples.disk(3), layers=tuple(layers))
        whole = DeleteRequest(disk="vda", file_to_merge="volume-1.s2", merge_target_file="volume-1")
        plan = plan_delete(samples.guest(disk), whole, foreign=True)
        record = merging("abc", merge=plan, kind=plan.kind, files=())
        write(replace(record, works_on=works_on([plan], remove=False)))
        markers = beside([layer.path or "" for layer in layers])
        assert [entry_of(one).record.id for one in markers] == ["abc"] * 3
        os.unlink(markers[1].path)
        with pytest.raises(MarkerUntrusted, match=f"does not lie: {tmp_path}/volume-1.s1$"):
            entry_of(markers[0])

    def test_that_names_files_of_another_folder(self, tmp_path: Path) -> None:
        record = creating("abc")  # its files are in /share
        (step, *_) = steps_for(record)[0]
        arguments: dict[str, Any] = {**step.arguments, "path": f"{tmp_path}/.qmpsnap-abc"}
        take_file(replace(step, arguments=arguments))
        (marker,) = beside([f"{tmp_path}/x"])
        with pytest.raises(MarkerUntrusted, match="another folder"):
            entry_of(marker)

    @pytest.mark.parametrize(("kind", "does"), [("pivot", Does.COMMIT), ("pull", Does.START)])
    def test_the_act_it_was_written_for_may_be_done(
        self, tmp_path: Path, kind: str, does: Does
    ) -> None:
        write(merge_on_share(MERGES[kind], tmp_path))
        (marker,) = beside([f"{tmp_path}/x"])
        assert [act.does for act in entry_of(marker).acts] == [does]

    def test_the_switch_may_be_done(self, record: Record, tmp_path: Path) -> None:
        write(record)
        (marker,) = beside([f"{tmp_path}/x"])
        assert [act.does for act in entry_of(marker).acts] == [Does.SWITCH]

    def test_files_of_no_disk(self, record: Record, tmp_path: Path) -> None:
        """They would be looked at as root, and what is found would be kept."""
        files = seen_all([(f"{tmp_path}/volume-1", False)])
        write(replace(record, files=files))
        (marker,) = beside([f"{tmp_path}/x"])
        assert marker.written is not None
        write(replace(record, files=(*files, replace(files[0], path="/dev/watchdog"))))
        (marker,) = beside([f"{tmp_path}/x"])
        assert marker.problem == "it has looked at files of no disk"

    @pytest.mark.parametrize("number", [-1, 10**400, 1e30, -1e300, float("inf"), float("nan")])
    @pytest.mark.parametrize(
        "place",
        [
            ("begun",),
            ("files", 0, "inode"),
            ("files", 0, "written"),
            ("where", "process", 0),
            ("wishes", "options", "bandwidth"),
            ("wishes", "options", "timeout_s"),
            ("merge", "disk", "layers", 0, "virtual_size"),
        ],
        ids=lambda place: place[-1] if isinstance(place[-1], str) else place[-2],
    )
    def test_numbers(self, tmp_path: Path, place: tuple[str | int, ...], number: float) -> None:
        """A host cannot count so far, or so; what says so counts as one that cannot be read."""
        seen = Seen(path=f"{tmp_path}/volume-1", inode=1, born=1, size=1, written=1)
        record = merge_on_share(MERGES["pull"], tmp_path)
        write(replace(record, files=(seen,)))
        path = tmp_path / ".qmpsnap-abc"
        value = json.loads(path.read_text())
        inner = value["record"]
        for one in place[:-1]:
            inner = inner[one]
        inner[place[-1]] = number
        path.write_text(json.dumps(value))
        (marker,) = beside([f"{tmp_path}/x"])
        is_possible = number == -1 and place[0] in ("files", "where", "merge")
        assert (marker.written is None, bool(marker.problem)) == (not is_possible, not is_possible)

    @pytest.mark.parametrize("kind", ["create", *MERGES])
    def test_of_which_anything_is_wrong(
        self, record: Record, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever it says, it is taken for a marker that is none, or something is found out by it."""
        whole = record if kind == "create" else merge_on_share(MERGES[kind], tmp_path)
        write(whole)
        path, random = tmp_path / ".qmpsnap-abc", Random(kind)
        text = path.read_text()
        acted_on = 0
        for number in range(200):
            path.write_text(json.dumps(mutated(json.loads(text), random)))
            (marker,) = beside([f"{tmp_path}/x"])
            try:
                entry = entry_of(marker)
            except MarkerUntrusted:
                continue
            acted_on += 1
            state = tmp_path / f"state-{number}"
            settle(Journal(state), entry, None)
            monkeypatch.setenv("QMPSNAP_STATE", str(state))
            for format_ in ("table", "json", "svg"):
                assert run_cli(["log", "-o", format_]).code == 0
            moved(samples.disk(3), tmp_path)
        assert 20 < acted_on < 180


def mutated(value: Any, random: Random) -> Any:
    """One place of a JSON document is another one, or is gone."""
    holder, key = random.choice([*places(value)])
    odd: tuple[Any, ...] = (
        None,
        0,
        -1,
        2**70,
        10**400,
        1e30,
        float("inf"),
        float("nan"),
        "",
        "x",
        "/",
        "/x\0",
        "\ud800",
        "../x",
        [],
        {},
        True,
    )
    if isinstance(holder, dict) and random.random() < 0.2:
        del holder[key]
    else:
        holder[key] = random.choice([*odd, random.choice([*places(value)])[0]])
        with suppress(ValueError):  # a document within itself
            json.dumps(value)
            return value
        holder[key] = None
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where anything stands in a JSON document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs) if isinstance(value, dict | list) else ():
        yield value, key
        yield from places(inner) if isinstance(inner, dict | list) else ()
