"""Somebody puts another file in the overlay's place between the look at it and the switch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.looks import LocalFiles
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import at, patch
from tests.rig.headers import hand_over
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, Said
from tests.rig.roads import MakeRig, Road
from tests.rig.situations import situation

NEW = f"{BASE}.new"
INFO = {"type": "qcow2", "new_file": NEW, "snapshot_id": "new"}
Make = Callable[[Path], None]


def _with_data(path: Path) -> None:
    """Its header is as it should be."""
    images.create_qcow2(path, SIZE, BASE, "raw")
    source = path.with_name("data")
    source.write_bytes(b"x" * SIZE)
    qemu_img.run("convert", str(path), "-n", "-f", "raw", "-O", "qcow2", str(source), str(path))
    source.unlink()


def _with_a_data_file(path: Path) -> None:
    options = f"data_file={path}.secret,backing_file={BASE},backing_fmt=raw"
    qemu_img.run(
        "create", str(path), "-q", "-u", "-f", "qcow2", "-o", options, str(path), str(SIZE)
    )


def _over_another_file(path: Path) -> None:
    images.create_qcow2(path, SIZE, "other", "raw")


def _shorter(path: Path) -> None:
    images.create_qcow2(path, SIZE // 2, BASE, "raw")


def swaps(rig: Rig, make: Make) -> Callable[[object], None]:
    """Put another file there."""

    def swap(_step: object) -> None:
        other = rig.folder / "evil"
        if make is _over_another_file:
            images.create_raw(rig.folder / "other", SIZE)
        make(other)
        os.replace(other, rig.folder / NEW)

    return swap


def created(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, **watchers: Callable[[Step], object]
) -> Said:
    """Take a snapshot while somebody watches the acts."""
    with monkeypatch.context() as patched:
        for kind in (QmpGuest, LibvirtGuest):
            patch(patched, kind, **watchers)
        return rig.cli("volume-snapshot-create", SERIAL, json.dumps(INFO))


def assert_refused(rig: Rig, said: Said, *words: str) -> None:
    """Nothing of the other file was used, and it is still there."""
    assert (said.code, said.status) == (4, {"status": "error", "progress": "0%"}), said
    assert "is not the file that was " in said.err
    assert all(word in said.err for word in words), said.err
    assert rig.files() == [BASE]
    assert (rig.folder / NEW).exists()
    nodes = rig.guest.qmp("query-named-block-nodes", {"flat": True})
    assert isinstance(nodes, list)
    assert not any(NEW in one["file"] for one in nodes)


class TestSwapped:
    """See the module."""

    @situation(
        "Somebody replaces the new overlay before the guest is switched to it",
        happens="refused; what is there is kept, and not used",
        code=4,
        then="Find out who has put it there.",
        kind=8,
    )
    def test_after_it_was_made(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
        with make_rig("raw") as rig:
            said = created(rig, monkeypatch, after=at(Does.MAKE, swaps(rig, _with_data)))
            assert_refused(rig, said, "made: it is another file now")

    def test_after_it_was_looked_at(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that the volume service has made."""
        look = LocalFiles.overlay
        with make_rig("raw") as rig:
            hand_over(rig.folder / NEW, BASE, "raw")

            def looked(self: LocalFiles, plan: Any) -> Overlay:
                found = look(self, plan)
                swaps(rig, _with_data)(None)
                return found

            monkeypatch.setattr(LocalFiles, "overlay", looked)
            said = created(rig, monkeypatch)
            assert_refused(rig, said, "looked at: it is another file now")

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (_with_a_data_file, "one with a data file"),
            (_over_another_file, "one that is backed by 'other' (raw)"),
            (_shorter, f"one of {SIZE // 2} bytes"),
        ],
    )
    @pytest.mark.qemu
    @pytest.mark.parametrize("road", ["qmp"])
    def test_for_the_moment_in_which_it_is_opened(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, make: Make, words: str
    ) -> None:
        with make_rig("raw") as rig:
            kept = rig.folder / "kept"

            def away(step: Step) -> None:
                os.rename(rig.folder / NEW, kept)
                swaps(rig, make)(step)

            def back(_step: Step) -> None:
                os.replace(kept, rig.folder / NEW)

            said = created(rig, monkeypatch, before=at(Does.OPEN, away), after=at(Does.OPEN, back))
            assert (said.code, said.status["status"]) == (4, "error"), said
            assert f"QEMU has opened {words}" in said.err
            assert rig.files() == [BASE]
            assert rig.cli("create", DISK, "new").code == 0

    def test_right_before_the_switch(
        self, road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody can keep that away under libvirt, which opens it by itself: so it is told."""
        told = {
            "qmp": f"{NEW} is not the file that the guest had open",
            "libvirt": f"{NEW} again by its name, which led to another file",
        }
        with make_rig("raw") as rig:
            said = created(rig, monkeypatch, before=at(Does.SWITCH, swaps(rig, _with_data)))
            assert (said.code, said.status) == (6, {"status": "creating", "progress": "0%"}), said
            assert told[road] in said.err
            assert rig.files() == [NEW, BASE]
