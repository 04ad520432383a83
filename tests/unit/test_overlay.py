"""An overlay that is there already: everything that is refused before it is even opened as one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.guests.files import door, qemu_img
from qmpsnap.guests.files.door import AnotherFile, FileFailed, take_file
from qmpsnap.guests.files.overlay import CannotMake, OverlayUnsuitable, look_at_overlay
from qmpsnap.guests.files.qemu_img import QemuImgFailed
from qmpsnap.guests.files.steps import discard_steps, make_steps
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does, Step
from tests.unit import samples
from tests.unit.qcow2_header import MIB, header


@pytest.fixture
def plan(tmp_path: Path) -> CreatePlan:
    """An overlay `volume-1.new` over `volume-1` of 1 MiB, in a folder of its own."""
    disk = samples.changed_layer(samples.disk(), 0, path=str(tmp_path / "volume-1"))
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
    return plan_create(samples.guest(disk), request)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"magic": b"\0\0\0\0"}, r"not qcow2 \(the magic is missing\)"),
        ({"version": 2, "size": MIB}, "names no backing file"),
        ({"size": MIB, "incompatible": 4}, "names a data file"),
        ({"size": MIB, "method": 2}, "encrypted"),
        ({"size": MIB - 512, "backing": b"volume-1"}, "1048064 bytes, the disk has 1048576"),
        ({"size": 2 * MIB, "backing": b"volume-1"}, "2097152 bytes, the disk has 1048576"),
        ({"size": MIB}, "names no backing file"),
        ({"size": MIB, "backing": b"\0"}, "names no backing file"),
        ({"size": MIB, "backing": b"volume-2"}, "backed by 'volume-2', not by 'volume-1'"),
        ({"size": MIB, "backing": b"volume-1.new"}, "backed by"),
        ({"size": MIB, "backing": b"../volume-1"}, "backed by"),
        ({"size": MIB, "backing": b"/etc/shadow"}, "backed by '/etc/shadow'"),
        ({"size": MIB, "backing": b"sub/volume-1"}, "backed by"),
        ({"size": MIB, "backing": b"sub/../volume-1"}, "backed by"),
        ({"size": MIB, "backing": b"file:volume-1"}, "backed by"),
        ({"size": MIB, "backing": b"nbd:host:1/volume-1"}, "backed by"),
        ({"size": MIB, "backing": b'json:{"filename": "volume-1"}'}, "backed by"),
    ],
)
def test_header_that_does_not_fit(plan: CreatePlan, content: dict[str, Any], reason: str) -> None:
    data = header(**content)
    Path(plan.overlay).write_bytes(data)
    with pytest.raises(OverlayUnsuitable, match=reason) as caught:
        look_at_overlay(plan)
    assert isinstance(caught.value, Refused)
    assert caught.value.way_out
    assert Path(plan.overlay).read_bytes() == data


@pytest.fixture
def encrypted(plan: CreatePlan) -> CreatePlan:
    """The same of a disk with LUKS inside."""
    secret: dict[str, Any] = {"format": "qcow2", "flags": ("encrypted",), "secret": "5e"}
    return replace(plan, active=replace(plan.active, **secret), backing_format="qcow2")


def test_no_encrypted_overlay_is_made(encrypted: CreatePlan) -> None:
    """Made as any other, it would hold in plain what the guest writes."""
    with pytest.raises(OverlayUnsuitable, match="an encrypted one is not made here") as caught:
        look_at_overlay(encrypted)
    assert "encrypt.format=luks" in caught.value.way_out


@pytest.mark.parametrize(
    ("method", "format_", "reason"),
    [
        (0, b"qcow2", "it has no LUKS inside"),
        (1, b"qcow2", "it has no LUKS inside"),
        (2, b"raw", "its header calls its backing file raw"),
    ],
)
def test_overlay_that_does_not_fit_an_encrypted_disk(
    encrypted: CreatePlan, method: int, format_: bytes, reason: str
) -> None:
    names = [(0xE2792ACA, format_)]
    data = header(size=MIB, method=method, backing=b"volume-1", extensions=names)
    Path(encrypted.overlay).write_bytes(data)
    with pytest.raises(OverlayUnsuitable, match=reason):
        look_at_overlay(encrypted)
    assert Path(encrypted.overlay).read_bytes() == data


def test_encrypted_overlay_that_is_larger_than_one_without_data(encrypted: CreatePlan) -> None:
    """It is not read into memory."""
    names = [(0xE2792ACA, b"qcow2")]
    data = header(size=MIB, method=2, backing=b"volume-1", extensions=names)
    Path(encrypted.overlay).write_bytes(data)
    os.truncate(encrypted.overlay, 8 * MIB + 1)
    with pytest.raises(OverlayUnsuitable, match="larger than 8388608 bytes"):
        look_at_overlay(encrypted)


def test_name_that_qemu_would_take_for_a_protocol(plan: CreatePlan, tmp_path: Path) -> None:
    active = replace(plan.active, path=str(tmp_path / "nbd:volume"), file="nbd:volume")
    Path(plan.overlay).write_bytes(header(size=MIB, backing=b"nbd:volume"))
    with pytest.raises(OverlayUnsuitable, match="backed by 'nbd:volume'"):
        look_at_overlay(replace(plan, active=active))


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "link to nothing"])
def test_what_is_no_regular_file(plan: CreatePlan, kind: str) -> None:
    target = Path(plan.overlay).with_name("target")
    if kind == "folder":
        os.mkdir(plan.overlay)
    elif kind == "fifo":
        os.mkfifo(plan.overlay)
    else:
        os.symlink(target, plan.overlay)
    if kind == "link":
        target.write_bytes(header(size=MIB, backing=b"volume-1"))
    with pytest.raises(OverlayUnsuitable, match="not a regular file"):
        look_at_overlay(plan)


def test_a_file_with_a_second_name(plan: CreatePlan, tmp_path: Path) -> None:
    """Somebody else's overlay, perhaps: it is not opened."""
    Path(plan.overlay).write_bytes(b"no header")
    (tmp_path / ".other.tmp").hardlink_to(plan.overlay)
    with pytest.raises(OverlayUnsuitable, match="has another name"):
        look_at_overlay(plan)
    assert Path(plan.overlay).stat().st_nlink == 2


def test_the_second_name_that_a_killed_call_left(plan: CreatePlan, tmp_path: Path) -> None:
    Path(plan.overlay).write_bytes(b"no header")
    (tmp_path / ".qmpsnap-1.tmp").hardlink_to(plan.overlay)
    (tmp_path / ".qmpsnap-2.tmp").write_bytes(b"of another call")
    with pytest.raises(OverlayUnsuitable, match="not qcow2"):
        look_at_overlay(plan)
    assert len(list(tmp_path.iterdir())) == 3  # looking changes nothing


def test_empty_file(plan: CreatePlan) -> None:
    Path(plan.overlay).touch()
    with pytest.raises(OverlayUnsuitable, match="it ends after 0 bytes"):
        look_at_overlay(plan)


RAW = (0xE2792ACA, b"raw")
"""The header extension that records the backing format."""
NOT_THERE = Overlay(is_there=False)


def take(*steps: Step | None) -> None:
    for step in steps:
        assert step is not None
        take_file(step)


class TestDoor:
    """What the steps of a snapshot do to files, and how they are taken back."""

    def test_make(self, plan: CreatePlan, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, object] = {}
        monkeypatch.setattr(qemu_img, "create_overlay", lambda path, **more: given.update(more))
        Path(plan.active.path).touch(mode=0o640)
        ((step,),) = make_steps([plan], [NOT_THERE])
        assert (step.what, step.arguments) == (
            "make-overlay",
            {
                "path": plan.overlay,
                "format": "qcow2",
                "size": MIB,
                "backing": "volume-1",
                "backing-format": "raw",
                "like": plan.active.path,
            },
        )
        take(step)
        assert given == {"backing_name": "volume-1", "backing_format": "raw", "size": MIB}
        assert Path(plan.overlay).stat().st_mode & 0o777 == 0o640
        assert len(os.listdir(os.path.dirname(plan.overlay))) == 2
        with pytest.raises(OverlayUnsuitable, match="there already"):
            take(step)

    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
    def test_make_in_a_folder_that_cannot_be_synced_leaves_nothing(
        self, plan: CreatePlan, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        """`OpenNebula#4653`: a failed try left a file that stood in the way of the next one."""

        def fail(_folder: str) -> None:
            found = sorted(os.listdir(os.path.dirname(plan.overlay)))
            assert found == sorted(["volume-1", os.path.basename(plan.overlay)])
            raise error

        Path(plan.active.path).touch()
        monkeypatch.setattr(qemu_img, "create_overlay", lambda path, **_given: None)
        monkeypatch.setattr("qmpsnap.guests.files.overlay.sync_folder", fail)
        with pytest.raises((CannotMake, KeyboardInterrupt)):
            take(*make_steps([plan], [NOT_THERE])[0])
        assert os.listdir(os.path.dirname(plan.overlay)) == ["volume-1"]

    @pytest.mark.parametrize("recorded", ["raw", "qcow2", None])
    @pytest.mark.parametrize("spare", [None, "/share/.qmpsnap-1.tmp"])
    def test_what_is_corrected_of_one_that_is_there(
        self, plan: CreatePlan, recorded: str | None, spare: str | None
    ) -> None:
        """The name stays as the volume service has written it; only the format is ours to know."""
        there = Overlay(is_there=True, recorded=("/share/volume-1", recorded), spare=spare)
        (steps,) = make_steps([plan], [there])
        correct = {
            "path": plan.overlay,
            "backing": "/share/volume-1",
            "backing-format": "raw",
        }
        expected = [("unlink", {"path": spare})] if spare else []
        expected += [("record-backing", correct)] if recorded != "raw" else []
        assert [(step.what, step.arguments) for step in steps] == expected
        assert discard_steps([plan], [there]) == (None,)

    @pytest.mark.parametrize("written", [b"volume-1", b"volume-2"])
    def test_correct(
        self, plan: CreatePlan, monkeypatch: pytest.MonkeyPatch, written: bytes
    ) -> None:
        def record(path: str, *, backing_name: str, backing_format: str) -> None:
            Path(path).write_bytes(header(size=MIB, backing=written, extensions=[RAW]))

        Path(plan.overlay).write_bytes(header(size=MIB, backing=b"volume-1"))
        monkeypatch.setattr(qemu_img, "record_backing", record)
        there = Overlay(is_there=True, recorded=("volume-1", None))
        (steps,) = make_steps([plan], [there])
        if written == b"volume-1":
            take(*steps)
        else:
            with pytest.raises(QemuImgFailed, match="still wrong"):
                take(*steps)

    def test_discard_touches_the_link_and_not_its_target(
        self, plan: CreatePlan, tmp_path: Path
    ) -> None:
        target = tmp_path / "target"
        target.touch()
        os.symlink(target, plan.overlay)
        take(*discard_steps([plan], [NOT_THERE]) * 2)  # a second time there is nothing to do
        assert os.listdir(tmp_path) == ["target"]

    def test_what_the_host_does_not_allow(self, tmp_path: Path) -> None:
        path = str(tmp_path)
        with pytest.raises(FileFailed, match=f"{path}: ") as caught:
            take_file(Step(does=Does.REMOVE, by="file", what="unlink", arguments={"path": path}))
        assert caught.value.changed == "no"

    def test_only_the_file_that_was_meant_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        status = path.stat()
        meant = {"path": str(path), "identity": ["file", status.st_dev, status.st_ino]}
        unlink = Step(does=Does.REMOVE, by="file", what="unlink", arguments=meant)
        path.rename(tmp_path / "moved")
        take_file(unlink)  # gone
        path.touch()
        with pytest.raises(AnotherFile) as caught:
            take_file(unlink)
        assert caught.value.changed == "no"
        (tmp_path / "moved").rename(path)
        take_file(unlink)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("does", [Does.REMOVE, Does.DISCARD])
    def test_what_was_removed_stays_away(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: Does
    ) -> None:
        """After a power failure too, as far as the share can sync a folder."""
        synced: list[int] = []

        def sync(file: int) -> None:
            synced.append(os.fstat(file).st_ino)
            raise OSError("not here")

        monkeypatch.setattr("os.fsync", sync)
        path = tmp_path / "file"
        path.touch()
        take_file(Step(does=does, by="file", what="unlink", arguments={"path": str(path)}))
        assert synced == [tmp_path.stat().st_ino]
        assert not path.exists()

    def test_nothing_else(self) -> None:
        with pytest.raises(AssertionError):
            take_file(Step(does=Does.MAKE, by="file", what="x", arguments={"path": "/x"}))

    def test_it_is_the_file_that_was_meant_after_the_last_other_look(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.touch()
        status = path.stat()

        def replaced(_path: str) -> tuple[str, ...]:
            path.rename(tmp_path / "moved")
            path.write_text("somebody else's")
            return ()

        monkeypatch.setattr(door, "images_naming", replaced)
        meant = {"path": str(path), "identity": ["file", status.st_dev, status.st_ino]}
        with pytest.raises(AnotherFile):
            take_file(Step(does=Does.REMOVE, by="file", what="unlink", arguments=meant))
        assert path.read_text() == "somebody else's"
