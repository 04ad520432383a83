"""An overlay that is there already: everything that is refused before it is even opened as one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.errors import Refused
from qmpsnap.guests.files.overlay import (
    CannotMake,
    OverlayUnsuitable,
    discard_overlay,
    prepare_overlay,
)
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
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
        prepare_overlay(plan)
    assert isinstance(caught.value, Refused)
    assert caught.value.way_out
    assert Path(plan.overlay).read_bytes() == data


def test_name_that_qemu_would_take_for_a_protocol(plan: CreatePlan, tmp_path: Path) -> None:
    active = replace(plan.active, path=str(tmp_path / "nbd:volume"), file="nbd:volume")
    Path(plan.overlay).write_bytes(header(size=MIB, backing=b"nbd:volume"))
    with pytest.raises(OverlayUnsuitable, match="backed by 'nbd:volume'"):
        prepare_overlay(replace(plan, active=active))


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
        prepare_overlay(plan)


def test_a_file_with_a_second_name(plan: CreatePlan, tmp_path: Path) -> None:
    """Somebody else's overlay, perhaps: it is not opened."""
    Path(plan.overlay).write_bytes(b"no header")
    (tmp_path / ".other.tmp").hardlink_to(plan.overlay)
    with pytest.raises(OverlayUnsuitable, match="has another name"):
        prepare_overlay(plan)
    assert Path(plan.overlay).stat().st_nlink == 2


def test_the_second_name_that_a_killed_call_left(plan: CreatePlan, tmp_path: Path) -> None:
    Path(plan.overlay).write_bytes(b"no header")
    (tmp_path / ".qmpsnap-1.tmp").hardlink_to(plan.overlay)
    (tmp_path / ".qmpsnap-2.tmp").write_bytes(b"of another call")
    with pytest.raises(OverlayUnsuitable, match="not qcow2"):
        prepare_overlay(plan)
    assert {path.name for path in tmp_path.iterdir()} == {"volume-1.new", ".qmpsnap-2.tmp"}


def test_empty_file(plan: CreatePlan) -> None:
    Path(plan.overlay).touch()
    with pytest.raises(OverlayUnsuitable, match="it ends after 0 bytes"):
        prepare_overlay(plan)


def test_discard(plan: CreatePlan) -> None:
    Path(plan.overlay).touch()
    discard_overlay(plan)
    assert not os.path.exists(plan.overlay)
    discard_overlay(plan)


def test_discard_touches_the_link_and_not_its_target(plan: CreatePlan, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    os.symlink(target, plan.overlay)
    discard_overlay(plan)
    assert target.exists()


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_overlay_whose_folder_cannot_be_synced_does_not_stay(
    plan: CreatePlan, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """`OpenNebula#4653`: a failed try left a file that stood in the way of the next one."""

    def make(path: str, **_given: object) -> None:
        Path(path).write_bytes(b"")

    def fail(_folder: str) -> None:
        assert os.path.exists(plan.overlay)
        raise error

    Path(plan.active.path or "").touch()
    monkeypatch.setattr("qmpsnap.guests.files.qemu_img.create_overlay", make)
    monkeypatch.setattr("qmpsnap.guests.files.overlay._sync_folder", fail)
    with pytest.raises((CannotMake, KeyboardInterrupt)):
        prepare_overlay(plan)
    assert [path.name for path in Path(plan.overlay).parent.iterdir()] == ["volume-1"]
