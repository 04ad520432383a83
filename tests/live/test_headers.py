"""
Headers that are wrong after an operation, or were before it: mended on both roads.

The header is spoiled behind QEMU's back, at the moment between the operation and the last look.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files import qemu_img
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.outcome import HeaderWrong, Result
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import at, at_the_end, with_door
from tests.rig.headers import (
    COMMIT,
    FAULTS,
    PULL,
    deleted,
    recorded,
    with_format,
    without_format,
)
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


class TestHeaders:
    """The same on both roads."""

    @situation(
        "The header of the layer above is wrong after a merge",
        happens="QEMU rewrites it, and the repair is reported",
        code=0,
        then="Nothing.",
        pain=2,
    )
    @pytest.mark.parametrize("fault", FAULTS)
    def test_after_a_commit(
        self, make_rig: MakeRig, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delete = merge.delete

        def spoiled(host: Guest, *arguments: Any, **others: Any) -> Result:
            active = rig.folder / f"{BASE}.s2"
            return delete(at_the_end(host, lambda: FAULTS[fault](active)), *arguments, **others)

        with make_rig("raw") as rig:
            rig.grow(3)
            monkeypatch.setattr(merge, "delete", spoiled)
            with rig.writer(1) as writer:
                said = rig.delete(f"{BASE}.s1", BASE)
                writer.wait_for(5)
            assert said.code == 0, said
            assert said.err.count("repaired: ") == 1
            self._holds(rig, [f"{BASE}.s2", BASE], writer.sha256())

    @pytest.mark.parametrize("base_is", ["raw", "qcow2"])
    def test_after_a_pull_to_a_base(self, make_rig: MakeRig, base_is: str) -> None:
        with make_rig(base_is) as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            wrong = "qcow2" if base_is == "raw" else "raw"
            done = deleted(rig, PULL, rig.folder / f"{BASE}.s2", with_format(wrong))
            assert len(done.repaired) == 1
            self._holds(rig, [f"{BASE}.s2", BASE], content)

    def test_after_a_create(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            content = rig.guest.read_sha256(DISK)
            new = rig.folder / f"{BASE}.new"
            with rig.host() as host:
                request = CreateRequest(disk=SERIAL, new_file=new.name, snapshot="new")
                spoil = at(Does.SWITCH, lambda _step: with_format("raw")(new))
                done = snapshot.create(with_door(host, after=spoil), request)
            (repaired,) = done.repaired
            assert "records the format 'raw', not 'qcow2'" in repaired
            self._holds(rig, [new.name, f"{BASE}.s1", BASE], content)

    def test_an_absolute_name_stays_absolute(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            path = rig.folder / BASE
            new = rig.folder / f"{BASE}.new"
            images.create_qcow2(new, rig.guest.virtual_size(DISK), str(path), "raw")
            rig.create("new")
            assert recorded(new) == (str(path), "raw")

    @situation(
        "The active file's header records no backing format",
        happens="the next snapshot adds it; so does the active commit that makes this file the active one",
        code=0,
        then="Nothing.",
        pain=4,
    )
    def test_that_was_wrong_before_a_create(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            without_format(rig.folder / f"{BASE}.s1")
            content = rig.guest.read_sha256(DISK)
            steps = rig.cli("create", DISK, "new", "--plan", "-o", "json").json["disks"][0]["steps"]
            assert [
                one["what"]
                for one in steps
                if one["what"] in ("block-stream", "virDomainBlockRebase")
            ]
            assert recorded(rig.folder / f"{BASE}.s1") == (BASE, None)
            said = rig.cli("create", DISK, "new", "-o", "json")
            (repaired,) = said.json["repaired"]
            assert repaired.endswith(f"it records no backing format; now it names {BASE} (raw)")
            assert f"repaired: {repaired}" in said.err
            self._holds(rig, [f"{BASE}.new", f"{BASE}.s1", BASE], content)

    def test_that_was_wrong_below_an_active_commit(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            without_format(rig.folder / f"{BASE}.s1")
            content = rig.guest.read_sha256(DISK)
            said = rig.delete(f"{BASE}.s2", f"{BASE}.s1")
            assert said.code == 0, said
            assert f"repaired: the header of {BASE}.s1" in said.err
            assert said.status["file_format"] == {f"{BASE}.s1": "qcow2"}
            self._holds(rig, [f"{BASE}.s1", BASE], content)

    @remedy("HeaderWrong")
    def test_that_cannot_be_mended_says_what_to_run(self, make_rig: MakeRig) -> None:
        """Another job holds the layer, as a backup would; the command then does what it says."""
        with make_rig("raw") as rig:
            rig.grow(3)
            content = rig.guest.read_sha256(DISK)
            active = rig.folder / f"{BASE}.s2"
            with rig.host() as host, pytest.raises(HeaderWrong) as caught:
                merge.delete(stubborn(host, active), COMMIT)
            assert caught.value.exit_code == 1
            assert rig.files() == [f"{BASE}.s2", BASE]
            rig.guest.qemu_io(DISK, "flush")
            rig.kill()
            command, *arguments = shlex.split(caught.value.command)
            assert command == "qemu-img"
            qemu_img.run(arguments[0], str(active), *arguments[1:])
            assert recorded(active) == (BASE, "raw")
            assert images.sha256_of(active, "qcow2") == content

    def _holds(self, rig: Rig, files: list[str], content: str) -> None:
        """Chain, headers, formats and content are right while it runs, and after a SIGKILL."""
        assert rig.files() == files
        disk = rig.disk()
        assert_sound(disk)
        assert rig.guest.read_sha256(DISK) == content
        rig.guest.qemu_io(DISK, "flush")
        rig.kill()
        assert images.sha256_of(disk.layers[0].path or "", disk.layers[0].format or "") == content


class Refuses(QmpsnapError):
    """What a host says that cannot start a job."""


def stubborn(guest: Guest, path: Path) -> Guest:
    """A guest whose header is spoiled by a merge, and that starts no second job."""
    spoiled = at_the_end(guest, lambda: without_format(path))

    def refuse(_step: Step) -> None:
        raise Refuses

    return with_door(spoiled, before=at(Does.START, refuse, number=2))
