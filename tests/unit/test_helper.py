"""What the kernel denies this process is done by its helper, if it has one; else the denial stands."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.formats.layers import NOT_SEEN, Identity
from qmpsnap.formats.qcow2 import BadHeader, differ_in_format_alone
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests.files import neighbours, opened, overlay, qemu_img
from qmpsnap.guests.files.bytes import BYTE, has_lock
from qmpsnap.guests.files.door import FileDoor, FileFailed
from qmpsnap.guests.files.header import beginning, read_header
from qmpsnap.guests.files.helper import lend
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.locks import Claim, DiskLocked
from qmpsnap.guests.files.markers import markers_in, remove_marker, write_marker
from qmpsnap.guests.files.opened import Held, Hidden, held_by
from qmpsnap.guests.files.sizes import raw_size
from qmpsnap.guests.files.steps import sync_step, watch_step
from qmpsnap.journal import since
from qmpsnap.monitor.memory import Process
from tests.unit.qcow2_header import MIB, header

FORMAT, NAMES = 0xE2792ACA, 0x6803F857
RAW = header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")])
QCOW2 = header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"qcow2")])
Lend = Callable[..., list[tuple[str, tuple[Any, ...]]]]


@pytest.fixture
def denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in a folder of its own, both of which the kernel denies."""
    path = tmp_path / "share/volume-1.s"
    path.parent.mkdir()
    path.write_bytes(QCOW2)

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def function(where: Any, *args: Any, **named: Any) -> Any:
            if isinstance(where, str | Path) and str(where).startswith(str(path.parent)):
                raise PermissionError(errno.EACCES, "Permission denied", str(where))
            return real(where, *args, **named)

        return function

    for name in ("open", "scandir", "unlink"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    return path


@pytest.fixture
def helper() -> Iterator[Lend]:
    """Lend a helper that gives these answers, or raises them; what it is asked."""

    def make(**answers: object) -> list[tuple[str, tuple[Any, ...]]]:
        asked: list[tuple[str, tuple[Any, ...]]] = []

        def function(name: str, answer: object) -> Callable[..., object]:
            def ask(*arguments: Any) -> object:
                asked.append((name, arguments))
                if isinstance(answer, OSError):
                    raise answer
                return answer

            return ask

        made: Any = SimpleNamespace(**{k: function(k, v) for k, v in answers.items()})
        lend(made)
        return asked

    yield make
    lend(None)


REFUSED = PermissionError(errno.EPERM, "the helper refuses it")


def test_a_header(denied: Path, helper: Lend) -> None:
    with pytest.raises(PermissionError, match="Permission denied"):
        read_header(str(denied))
    asked = helper(header=RAW)
    assert read_header(str(denied)).backing_format == "raw"
    assert asked == [("header", (str(denied),))]
    helper(header=b"")
    with pytest.raises(BadHeader):
        read_header(str(denied))
    with pytest.raises(OSError, match="begin as a qcow2"):  # not: that it names nothing
        beginning(str(denied))


def test_what_qemu_has_open(monkeypatch: pytest.MonkeyPatch, helper: Lend) -> None:
    unknown = Hidden(why="?", here=True)

    def kernel(_process: str) -> dict[Identity, tuple[str, ...]]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(opened, "files_of", kernel)
    monkeypatch.setattr(opened, "qemu_process", lambda pid: Process(pid, 5))
    assert held_by(7, unknown) == Hidden(why="process 7 is another user's: run as root", here=True)
    one, two = ("file", 1, 2), ("file", 1, 3)
    asked = helper(held=({one: ("9",), two: ("8",)}, frozenset({"9"}), True))
    seen = held_by(7, unknown)
    assert isinstance(seen, Held)
    assert (seen.elsewhere, seen.writes(one), seen.writes(two)) == (True, True, False)
    assert asked == [("held", (7, 5))]
    helper(held=REFUSED)
    assert held_by(7, unknown) == Hidden(
        why="process 7 is another user's, and the helper refuses it", here=True
    )


def test_what_a_name_means_to_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Lend
) -> None:
    """What cannot be seen is `not-seen`, and never `replaced`."""

    def kernel(_root: str, _name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(opened, "in_root", kernel)
    path = tmp_path / "volume-1"
    path.touch()
    here = identity(str(path))
    assert here is not None
    seen = Held(pid=7, files={here: ("9",)}, elsewhere=True, started=5)
    from tests.unit import samples

    layer = samples.changed_layer(samples.disk(), 0, path=str(path)).layers[0]
    graph = Graph(devices=(), nodes={}, edges=())
    asked = helper(in_root=here)
    assert opened._layer(layer, graph, seen).flags == layer.flags
    assert asked == [("in_root", (7, 5, str(path)))]
    helper(in_root=REFUSED)
    found = opened._layer(layer, graph, seen)
    assert found.flags == (*layer.flags, NOT_SEEN)
    assert found.sight is not None
    assert found.sight.endswith("the helper refuses it")


def test_who_has_a_file_open(monkeypatch: pytest.MonkeyPatch, helper: Lend) -> None:
    def kernel(_folder: str) -> set[Identity]:
        raise PermissionError

    monkeypatch.setattr(neighbours, "_opened", kernel)
    key: Identity = ("file", 1, 2)
    assert neighbours.processes_with([key])[2] > 0
    asked = helper(opened_by=({key: ["cat (pid 5)"]}, 40, 0))
    assert neighbours.processes_with([key], None, 77) == ({key: ["cat (pid 5)"]}, 40, 0)
    assert asked == [("opened_by", (frozenset({key}), None, [os.getpid(), 77]))]
    helper(opened_by=REFUSED)
    assert neighbours.processes_with([key])[2] > 0


def test_locks(denied: Path, helper: Lend) -> None:
    path = str(denied)
    assert not has_lock(path, BYTE, 1)
    asked = helper(is_locked=False, lock=41, release=None)
    with closing(Claim()) as claim:
        claim.take([path])
        assert claim.notes == ()
        claim.take([path])
    assert [name for name, _ in asked] == ["is_locked", "lock", "release"]
    assert asked[-1] == ("release", (41,))
    helper(is_locked=True)
    with closing(Claim()) as claim, pytest.raises(DiskLocked):
        claim.take([path])
    helper(is_locked=False, lock=BlockingIOError(errno.EAGAIN, "taken"), release=None)
    with closing(Claim()) as claim, pytest.raises(DiskLocked):
        claim.take([path])


def test_markers(denied: Path, helper: Lend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile._os.open", os.open)
    folder = str(denied.parent)
    marker = f"{folder}/.qmpsnap-1f"
    with pytest.raises(PermissionError):
        write_marker(marker, "text")
    with pytest.raises(PermissionError):
        remove_marker(marker)
    assert markers_in(folder) == ()
    asked = helper(write_marker=None, remove_marker=None, markers=[(".qmpsnap-1f", 0, "text", "")])
    write_marker(marker, "text")
    remove_marker(marker)
    (found,) = markers_in(folder)
    assert (found.path, found.owner, found.text, found.problem) == (marker, 0, "text", "")
    assert asked[:2] == [("write_marker", (marker, "text")), ("remove_marker", (marker,))]
    helper(markers=REFUSED)
    assert markers_in(folder) == ()


def test_a_file_that_is_synced(denied: Path, helper: Lend) -> None:
    path = str(denied)
    assert "cannot open" in str(FileDoor().take(sync_step(path)))
    asked = helper(watch=41, sync=None, release=None)
    door = FileDoor()
    door.take(watch_step(path))
    assert door.take(sync_step(path)) is None
    door.close()
    assert [name for name, _ in asked] == ["watch", "sync", "release"]
    helper(watch=41, sync=OSError(errno.EIO, "Input/output error"), release=None)
    with pytest.raises(FileFailed, match="Input/output error"):
        FileDoor().take(sync_step(path))


def test_the_length_of_a_raw_file_is_no_secret(denied: Path) -> None:
    assert raw_size(str(denied)) == 512


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, bytes]:
    """An overlay, and what it holds."""
    path = tmp_path / "volume-1.s"
    qemu_img.create_overlay(
        str(path), backing_name="volume-1", backing_format="qcow2", size=1 << 40
    )
    return path, path.read_bytes()


def test_a_wrong_format_is_corrected_by_the_helper(
    images: tuple[Path, bytes], helper: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qemu-img changes a copy, and the helper is given the first cluster as it was and as it is to be."""
    path, whole = images
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    asked = helper(whole=whole, mend=None)
    with pytest.raises(
        qemu_img.QemuImgFailed, match="still wrong"
    ):  # this helper has written nothing
        overlay.correct_overlay(str(path), backing_name="volume-1", backing_format="raw")
    assert path.read_bytes() == whole
    _, (of, before, after) = asked[-1]
    assert (of, before) == (str(path), whole[:65536])
    assert differ_in_format_alone(before, after)
    path.write_bytes(after + whole[65536:])
    assert read_header(str(path)).backing_format == "raw"
    assert qemu_img.is_consistent(str(path))
    helper(whole=REFUSED)
    with pytest.raises(qemu_img.QemuImgFailed, match="the helper refuses it"):
        overlay.correct_overlay(str(path), backing_name="volume-1", backing_format="raw")


def test_an_overlay_is_looked_into_by_a_copy(
    images: tuple[Path, bytes], helper: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = images
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    helper(whole=REFUSED)
    assert not since.is_empty(str(path))
    helper(whole=whole)
    assert since.is_empty(str(path))
    with overlay.readable(str(path)) as copy:
        assert copy != str(path)
        assert qemu_img.is_empty(copy)
    assert not os.path.exists(copy)
    lend(None)
    with overlay.readable(str(path)) as same:
        assert same == str(path)


@pytest.mark.parametrize(
    ("after", "is_good"),
    [
        (QCOW2, True),
        (RAW, True),
        (header(size=MIB, backing=b"volume-1"), True),
        (header(size=MIB, backing=b"volume-1", extensions=[(NAMES, b"x" * 48), (FORMAT, b"raw")]), True),
        (header(size=MIB, backing=b"volume-2", extensions=[(FORMAT, b"raw")]), False),
        (header(size=2 * MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")]), False),
        (header(size=MIB, extensions=[(FORMAT, b"raw")]), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw"), (7, b"x")]), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")], incompatible=2), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")], incompatible=1), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")], autoclear=2), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")], cluster_bits=12), False),
        (header(size=MIB, backing=b"volume-1", extensions=[(FORMAT, b"raw")], snapshots=1), False),
        (RAW[:40] + (0x90000).to_bytes(8) + RAW[48:], False),
        (RAW[:48] + (0x90000).to_bytes(8) + RAW[56:], False),
        (RAW[:96] + (5).to_bytes(4) + RAW[100:], False),
    ],
)  # fmt: skip
def test_a_header_differs_in_its_format_alone(after: bytes, is_good: bool) -> None:
    assert differ_in_format_alone(QCOW2, after) is is_good
    assert differ_in_format_alone(after, QCOW2) is is_good


@pytest.mark.parametrize("data", [b"", RAW[:60], b"\0" * 200])
def test_what_is_no_header_differs_in_more(data: bytes) -> None:
    with pytest.raises(BadHeader):
        differ_in_format_alone(QCOW2, data)
