"""`create` and `delete` as a script calls them, and which files they remove."""

from __future__ import annotations

import pytest

from qmpsnap.by_name import create, default_name, delete
from qmpsnap.operations.names import BadSnapshotName
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

    def test_an_empty_name_is_no_wish_for_the_clock(self) -> None:
        """A shell makes it of a variable that is not set."""
        fake = guest()
        with pytest.raises(BadSnapshotName):
            create(fake, "vda", "")
        assert set(fake.calls) <= {"read"}

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
        done = delete(guest(3), "vda", "s1", method="commit", remove_file=True)
        assert done.dropped == done.removed == ("/share/volume-1.s1",)
