"""
A name that does not lead to the file that QEMU has open, on both roads.

It was replaced or unlinked while the guest ran: seen by `verify`, refused by every operation, and
never removed. With the name back where it was, all is well again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qmpsnap.operations import merge
from qmpsnap.operations.outcome import NamesAnother, OpenedAnother, StoppedByChange
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.unchanged import GraphChanged
from tests.rig import images
from tests.rig.copies import copied
from tests.rig.doors import at, at_the_end, with_door
from tests.rig.jobs import REQUESTS
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation

Replace = Callable[[Path], object]


def restored(path: Path) -> None:
    """As rsync and a restore from a backup do it: the same bytes in another file."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def unlinked(path: Path) -> None:
    path.unlink()


def link_elsewhere(path: Path) -> None:
    other = path.with_name("elsewhere")
    images.create_raw(other, SIZE)
    path.unlink()
    path.symlink_to(other)


def another_layer(path: Path) -> None:
    """A file that QEMU has open as well, and in the same chain."""
    path.unlink()
    path.hardlink_to(path.with_name(f"{BASE}.s1" if path.name != f"{BASE}.s1" else BASE))


def refused(rig: Rig, path: Path) -> None:
    """Refuse everything, and change nothing."""
    said = rig.cli("verify", "-o", "json")
    assert said.code == 3, said
    found = [one for one in said.json["findings"] if one["id"] == "file-replaced"]
    assert str(path) in [one["file"] for one in found]
    assert {one["severity"] for one in found} == {"error"}
    listing = sorted(rig.folder.iterdir())
    for command in (
        ["create", DISK, "s9"],
        ["create", DISK, "s9", "--plan"],
        ["delete", DISK, "s1", "--remove-file"],
        ["delete", DISK, "s2", "--remove-file", "--force"],
    ):
        tried = rig.cli(command[0], *command[1:])
        assert (tried.code, "is not the file that the guest has open" in tried.err) == (4, True), (
            tried
        )
    pulled = rig.delete(None, None)
    assert (pulled.code, pulled.status["status"]) == (4, "error_deleting"), pulled
    assert sorted(rig.folder.iterdir()) == listing


class TestReplaced:
    """See the module."""

    @situation(
        "A file of the chain was replaced (a restore, rsync, mv) or unlinked while the guest runs",
        happens="`verify` finds `file-replaced`; every operation is refused, and no file is removed",
        code=4,
        then="Keep the guest running. Give the file its name back, or copy the disk to a new file.",
        pain=4,
        kind=1,
    )
    @remedy("FileReplaced")
    @pytest.mark.parametrize("name", [BASE, f"{BASE}.s1", f"{BASE}.s2"])
    @pytest.mark.parametrize("how", [restored, unlinked])
    def test_is_refused_until_the_name_is_back(
        self, make_rig: MakeRig, name: str, how: Replace
    ) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            path, kept = rig.folder / name, rig.folder / "kept"
            kept.hardlink_to(path)
            how(path)
            refused(rig, path)
            kept.replace(path)  # what the remedy says
            assert rig.cli("verify").code == 0
            assert rig.delete(f"{BASE}.s1", BASE).code == 0
            assert_sound(rig.disk())

    @remedy("FileReplaced")
    @pytest.mark.parametrize("name", [BASE, f"{BASE}.s1", f"{BASE}.s2"])
    def test_without_a_name_is_copied(self, make_rig: MakeRig, name: str) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            unlinked(rig.folder / name)
            refused(rig, rig.folder / name)
            copied(rig.guest, rig.folder / "copied")
            assert rig.cli("create", DISK, "s9").code == 0  # all is well again
            assert rig.guest.read_sha256(DISK) == content
            rig.kill()
            assert images.sha256_of(rig.folder / "copied", "qcow2") == content

    @pytest.mark.parametrize("name", [BASE, f"{BASE}.s2"])
    @pytest.mark.parametrize("how", [link_elsewhere, another_layer])
    def test_in_other_ways(self, make_rig: MakeRig, name: str, how: Replace) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            how(rig.folder / name)
            refused(rig, rig.folder / name)

    def test_two_names_have_changed_places(self, make_rig: MakeRig) -> None:
        """QEMU has both open; which one it writes tells them apart."""
        with make_rig("qcow2") as rig:
            rig.grow(2)
            active, base, other = (rig.folder / name for name in (f"{BASE}.s1", BASE, "other"))
            active.rename(other)
            base.rename(active)
            other.rename(base)
            said = rig.cli("create", DISK, "s9")
            assert said.code == 4, said
            assert "QEMU writes to another layer" in said.err

    def test_other_names_of_the_same_file_are_right(self, make_rig: MakeRig) -> None:
        """Moved elsewhere, with a symbolic link in its place."""
        with make_rig("raw") as rig:
            rig.grow(3)
            path, moved = rig.folder / f"{BASE}.s1", rig.folder / "moved"
            path.rename(moved)
            path.symlink_to(moved)
            assert rig.cli("verify").code == 0
            assert rig.delete(f"{BASE}.s2", f"{BASE}.s1").code == 0


class TestReplacedMeanwhile:
    """Between the plan and the act that it would matter for."""

    @remedy("GraphChanged")
    def test_a_create_stops(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            path, kept = rig.folder / BASE, rig.folder / "kept"
            kept.hardlink_to(path)
            overlay = CreateRequest(disk=SERIAL, new_file=f"{BASE}.ours", snapshot="ours")
            meddle = at(Does.MAKE, lambda _step: restored(path))
            with rig.host() as host, pytest.raises(GraphChanged, match="another file now"):
                create(with_door(host, after=meddle), overlay)
            assert rig.files() == [f"{BASE}.s1", BASE]
            assert not (rig.folder / f"{BASE}.ours").exists()
            kept.replace(path)  # that is over
            rig.create("ours")

    @remedy("StoppedByChange")
    def test_an_active_commit_is_cancelled(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            path, kept = rig.folder / f"{BASE}.s1", rig.folder / "kept"
            kept.hardlink_to(path)
            meddle = at(Does.START, lambda _step: restored(path))
            with rig.host() as host, pytest.raises(StoppedByChange, match="another file now"):
                merge.delete(with_door(host, after=meddle), REQUESTS["active-commit"], remove=True)
            assert rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
            assert (rig.folder / f"{BASE}.s1").exists()
            assert rig.guest.read_sha256(DISK) == content
            kept.replace(path)
            assert rig.delete(f"{BASE}.s2", BASE).code == 0
            assert rig.guest.read_sha256(DISK) == content

    def test_a_cancel_opens_the_base_again(self, make_rig: MakeRig) -> None:
        """
        By its name, for reading only: QEMU has the new file then, and that is said.

        It keeps the old one, as it was open for the job, where libvirt gives a raw file one node
        (11.3): nothing has changed.
        """
        with make_rig("raw") as rig:
            rig.grow(3)
            base = rig.disk().layers[-1]
            is_kept = base.node == base.protocol_node and bool(rig.names)  # under libvirt
            meddle = at(Does.START, lambda _step: restored(rig.folder / BASE))
            said = StoppedByChange if is_kept else OpenedAnother
            with rig.host() as host, pytest.raises(said):
                merge.delete(with_door(host, after=meddle), REQUESTS["active-commit"], remove=True)
            assert rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
            assert (rig.folder / f"{BASE}.s1").exists()

    @remedy("NamesAnother")
    @pytest.mark.parametrize("way", ["name", "copy"])
    def test_after_the_merge_it_is_said_and_nothing_removed(
        self, make_rig: MakeRig, way: str
    ) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            path, kept = rig.folder / BASE, rig.folder / "kept"
            kept.hardlink_to(path)
            with rig.host() as host:
                meddling = at_the_end(host, lambda: restored(path))
                with pytest.raises(NamesAnother) as caught:
                    merge.delete(meddling, REQUESTS["active-commit"], remove=True)
            assert caught.value.exit_code == 1
            assert rig.files() == [BASE]
            assert (rig.folder / f"{BASE}.s2").exists()
            active, format_ = path, "raw"
            if way == "name":
                kept.replace(path)
            else:
                active, format_ = rig.folder / "copied", "qcow2"
                copied(rig.guest, active)
            assert rig.cli("verify").code == 0
            rig.guest.qemu_io(DISK, "flush")
            rig.kill()
            assert images.sha256_of(active, format_) == content

    def test_a_file_that_took_the_name_of_a_dropped_one_is_kept(self, make_rig: MakeRig) -> None:
        """It is somebody else's: the one that was merged has no name any more."""
        with make_rig("raw") as rig:
            rig.grow(3)
            path = rig.folder / f"{BASE}.s1"

            def put_another_there(step: Step) -> None:
                path.unlink()  # nobody has it open any more but this operation
                path.write_bytes(b"precious")

            request = DeleteRequest(disk=SERIAL, file_to_merge=path.name, merge_target_file=BASE)
            with rig.host() as host:
                meddling = with_door(host, before=at(Does.REMOVE, put_another_there))
                done = merge.delete(meddling, request, remove=True)
            assert done.removed == ()
            assert any("is another file now" in note for note in done.notes)
            assert path.read_bytes() == b"precious"
