"""
Somebody else takes a snapshot between our last look and the switch.

QEMU refuses ours then, by its own transaction. libvirt does not: it puts our overlay on top of the
other one, and our overlay's header names the file two below.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import at, patch
from tests.rig.races import take_theirs
from tests.rig.rig import BASE, DISK, SERIAL, Rig, Said, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation

INFO = {"type": "qcow2", "new_file": f"{BASE}.ours", "snapshot_id": "ours"}


def raced(rig: Rig, monkeypatch: pytest.MonkeyPatch, *more: Callable[[Step], object]) -> Said:
    """Take a snapshot, with theirs right before the switch."""
    with monkeypatch.context() as patched:
        for kind in (QmpGuest, LibvirtGuest):
            patch(patched, kind, before=at(Does.SWITCH, lambda _step: take_theirs(rig)))
            for watcher in more:
                patch(patched, kind, before=watcher)
        return rig.cli("volume-snapshot-create", SERIAL, json.dumps(INFO))


class TestLostRace:
    """See the module."""

    @situation(
        "Somebody else takes a snapshot at the same moment",
        happens="without libvirt, QEMU refuses ours, and nothing of it is left. Under libvirt both "
        "are there, and the headers are right; the status is `creating`, never `error`, for the "
        "guest writes to the new file",
        code=1,
        then="Look at `qmpsnap chain`.",
        kind=8,
    )
    @pytest.mark.qemu
    @pytest.mark.parametrize("road", ["qmp"])
    def test_qemu_refuses(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
        with make_rig("raw") as rig:
            said = raced(rig, monkeypatch)
            assert (said.code, said.status) == (1, {"status": "error", "progress": "0%"}), said
            assert rig.files() == [f"{BASE}.theirs", BASE]
            assert not (rig.folder / f"{BASE}.ours").exists()
            assert_sound(rig.disk())

    @pytest.mark.libvirt
    @pytest.mark.parametrize("road", ["libvirt"])
    def test_header_is_mended(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
        with make_rig("raw") as rig:
            said = raced(rig, monkeypatch)
            assert (said.code, said.status) == (6, {"status": "creating", "progress": "0%"}), said
            assert "after the snapshot the chain is" in said.err
            assert "the guest writes to the new file" in said.err
            files = [f"{BASE}.ours", f"{BASE}.theirs", BASE]
            assert rig.files() == files
            rig.guest.write(DISK, 0, 65536, 1)
            content = rig.guest.read_sha256(DISK)
            rig.guest.qemu_io(DISK, "flush")
            header = read_header(str(rig.folder / files[0]))
            assert header.backing_format == "qcow2"
            assert (rig.folder / str(header.backing_file)).samefile(rig.folder / files[1])
            rig.kill()
            assert images.sha256_of(rig.folder / files[0], "qcow2") == content

    @pytest.mark.libvirt
    @pytest.mark.parametrize("road", ["libvirt"])
    def test_header_that_cannot_be_mended(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(step: Step) -> None:
            if step.does is Does.START:
                raise CommandFailed(step.what, "", "no", by="libvirt")

        with make_rig("raw") as rig:
            said = raced(rig, monkeypatch, fail)
            assert (said.code, said.status) == (6, {"status": "creating", "progress": "0%"}), said
            assert f"the header of {BASE}.ours is not" in said.err
            assert "qemu-img rebase -u -f qcow2 -b" in said.err
            rig.guest.write(DISK, 0, 65536, 1)
            content = rig.guest.read_sha256(DISK)
            rig.guest.qemu_io(DISK, "flush")
            rig.kill()
            _by_hand(said)
            assert images.sha256_of(rig.folder / f"{BASE}.ours", "qcow2") == content


def _by_hand(said: Said) -> None:
    """Run the command that the error names."""
    command = re.search(r"`(qemu-img rebase [^`]*)`", said.err)
    assert command is not None
    subprocess.run(shlex.split(command[1]), check=True)
