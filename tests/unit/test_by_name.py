"""`create` and `delete` as a script calls them, and which files they remove."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.by_name import create, default_name, delete, remove_files
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.quiesce import CannotFreeze, Policy, Quiesce
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest


def guest(depth: int = 1) -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(depth)))


VDB = samples.disk(disk="vdb", serial="2", qdev="b", root="b-node", layers=(samples.layer("b"),))


class TestCreate:
    def test_one_disk(self) -> None:
        done = create(guest(), disk="vda", snapshot="before")
        assert done.file_format == {"volume-1.before": "qcow2"}
        assert done.consistency == "crash"

    def test_several(self) -> None:
        two = FakeGuest(samples.guest(samples.disk(), VDB))
        done = create(two, "vda", "before", also=["vdb"])
        assert [one.disk.disk for one in done] == ["vda", "vdb"]

    def test_also_none(self) -> None:
        (done,) = create(guest(), "vda", "before", also=())
        assert done.disk.disk == "vda"

    def test_named_by_the_clock(self) -> None:
        first = f"volume-1.{default_name()}"
        (file,) = create(guest(), "vda").file_format
        assert first <= file <= f"volume-1.{default_name()}"

    @pytest.mark.parametrize("quiesce", ["require", Quiesce(policy=Policy.REQUIRE)])
    def test_frozen(self, quiesce: Quiesce) -> None:
        assert create(guest(), "vda", "a", quiesce=quiesce).consistency == "filesystem"

    def test_not_frozen(self) -> None:
        fake = guest()
        fake.fails["freeze"] = CannotFreeze("no agent")
        with pytest.raises(CannotFreeze):
            create(fake, "vda", "a", quiesce="require")
        assert create(fake, "vda", "a", quiesce="try").consistency == "crash"

    def test_no_such_word(self) -> None:
        fake = guest()
        with pytest.raises(ValueError, match="perhaps"):
            create(fake, "vda", "a", quiesce="perhaps")  # type: ignore[call-overload]
        assert not fake.calls


class TestDelete:
    def test_by_name(self) -> None:
        done = delete(guest(3), disk="vda", snapshot="s1", method="commit")
        assert done.file_format == {"volume-1": "raw"}
        assert done.dropped == ("/share/volume-1.s1",)
        assert done.removed == ()

    def test_the_file_as_well(self) -> None:
        """It is not there, on this host in memory, which the notes say."""
        done = delete(guest(3), "vda", "s1", method="commit", remove_file=True)
        assert done.dropped == ("/share/volume-1.s1",)
        assert done.removed == ()
        assert "/share/volume-1.s1 was not removed: No such file or directory" in done.notes


class TestRemove:
    def result(self, folder: Path, dropped: tuple[str, ...], held: tuple[str, ...] = ()) -> Result:
        layer = samples.layer("volume-1.s2", path=f"{folder}//share/./volume-1.s2")
        disk = samples.disk(layers=(layer,))
        notes = ("chose commit",)
        return Result(disk=disk, file_format={}, dropped=dropped, held=held, notes=notes)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("share/volume-1.s1", "share/kept", "templates/base"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    def left(self, folder: Path) -> list[str]:
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())

    def test_what_nobody_has_open(self, folder: Path) -> None:
        dropped, held = f"{folder}/share/volume-1.s1", f"{folder}/share/kept"
        done = remove_files(self.result(folder, dropped=(dropped,), held=(held,)))
        assert done.removed == done.dropped == (dropped,)
        assert done.notes == ("chose commit",)
        assert self.left(folder) == ["share/kept", "templates/base"]

    def test_a_template(self, folder: Path) -> None:
        dropped = f"{folder}/share/volume-1.s1", f"{folder}/templates/base"
        done = remove_files(self.result(folder, dropped=dropped))
        assert done.removed == dropped[:1]
        assert done.notes[1:] == (f"{dropped[1]} was not removed: it is not in {folder}/share",)
        assert self.left(folder) == ["share/kept", "templates/base"]

    def test_one_that_cannot_be(self, folder: Path) -> None:
        """It says so, and goes on with the next."""
        (folder / "share/folder").mkdir()
        dropped = f"{folder}/share/folder", f"{folder}/share/volume-1.s1"
        done = remove_files(self.result(folder, dropped=dropped))
        assert done.removed == dropped[1:]
        assert done.notes[1:] == (f"{dropped[0]} was not removed: Is a directory",)
