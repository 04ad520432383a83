"""What errors advise that come after the first change, run in the state in which they are printed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from qmpsnap.monitor.base import LostInMidCommand
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.machine import Limits
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import OutcomeUnknown, StillRunning
from qmpsnap.operations.proof import ContentDiffers
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot_outcome import SizeChanged
from qmpsnap.operations.step import Does, NotNow, Step
from tests.rig import images
from tests.rig.doors import at, at_the_end, with_door
from tests.rig.guards import resize
from tests.rig.headers import recorded
from tests.rig.jobs import ACTIVE, AFTERWARDS, HELD, REQUESTS, TOP
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE, Rig
from tests.rig.roads import MakeRig, Road

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")
FORMATS = {BASE: "raw"}


def grown(rig: Rig) -> str:
    """Three layers, on the disk; returns what the guest reads."""
    rig.grow(3)
    content = rig.guest.read_sha256(DISK)
    rig.guest.qemu_io(DISK, "flush")
    return content


def content_of(path: Path) -> str:
    """What a guest would read that is started from a file."""
    return images.sha256_of(path, FORMATS.get(path.name, "qcow2"))


@remedy("SizeChanged")
def test_disk_that_was_resized_while_its_snapshot_was_taken(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        meddle = at(Does.SWITCH, lambda _step: resize(rig, 2 * SIZE))
        rig.guest.write(DISK, 0, SIZE, 1)
        with rig.host() as host, pytest.raises(SizeChanged, match=f"to {2 * SIZE} bytes") as said:
            snapshot.create(with_door(host, before=meddle), NEW)
        assert rig.guest.virtual_size(DISK) == SIZE
        assert said.value.wanted == 2 * SIZE
        resize(rig, 2 * SIZE)
        assert rig.guest.read_all(DISK) == bytes([1]) * SIZE + bytes(SIZE)
        content = rig.guest.read_sha256(DISK)
        rig.guest.qemu_io(DISK, "flush")
        rig.kill()
        assert content_of(rig.folder / f"{BASE}.new") == content


@remedy("ContentDiffers")
def test_files_that_left_the_chain_are_compared(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.guest.write(DISK, 0, SIZE, 1)
        for name in ("s1", "s2"):
            rig.create(name)
        rig.guest.write(DISK, 0, 65536, 2)
        # A guest that is paused does not write; somebody else does so here in its place.
        with rig.host() as host:
            meddling = at_the_end(host, lambda: rig.guest.write(DISK, 4096, 4096, 3))
            with pytest.raises(ContentDiffers) as said:
                merge.delete(meddling, REQUESTS["active-commit"], verify=True, remove=True)
        assert "`qemu-img compare -f FORMAT -F FORMAT`" in said.value.way_out
        assert (rig.folder / ACTIVE).exists()
        rig.guest.qemu_io(DISK, "flush")
        rig.kill()
        files = [str(rig.folder / name) for name in (ACTIVE, BASE)]
        compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", *files]
        compared = subprocess.run(compare, capture_output=True, text=True, check=False)
        assert compared.returncode == 1
        assert "offset 4096" in compared.stdout


@remedy("StillRunning")
def test_job_that_does_not_end(make_rig: MakeRig) -> None:
    def cannot(_step: Step) -> None:
        raise NotNow("cancel", "it is ending")

    with make_rig("raw") as rig:
        content = grown(rig)
        with rig.host() as host, pytest.raises(StillRunning) as said:
            merge.delete(
                with_door(host, before=at(Does.CANCEL, cannot)),
                REQUESTS["commit"],
                options=MergeOptions(bandwidth=HELD.bandwidth, timeout_s=0.01),
                limits=Limits(grace_s=0.01),
            )
        assert "Give the same command again" in said.value.way_out
        done = rig.delete(TOP, BASE, "--bandwidth", "1G")
        assert done.code == 0, done
        assert rig.files() == AFTERWARDS["commit"]
        assert rig.guest.read_sha256(DISK) == content


@remedy("LostInMidCommand")
@pytest.mark.parametrize("kind", REQUESTS)
def test_start_that_was_lost(road: Road, make_rig: MakeRig, kind: str) -> None:
    def lose(_step: Step) -> None:
        raise LostInMidCommand("a command", "it broke")

    with make_rig("raw") as rig:
        content, request = grown(rig), REQUESTS[kind]
        with rig.host() as host, pytest.raises(LostInMidCommand):
            merge.delete(with_door(host, after=at(Does.START, lose)), request)
        assert rig.cli("chain").code == 0
        said = rig.delete(request.file_to_merge, request.merge_target_file)
        # libvirt's job may have ended by itself meanwhile.
        assert said.code == 0 or road == "libvirt", said
        assert rig.files() == AFTERWARDS[kind]
        assert rig.guest.read_sha256(DISK) == content


def lost(
    rig: Rig, kind: str, does: Does | None, *, before: bool = False, dies: bool = False
) -> str:
    """
    Lose the connection, and QEMU with it; returns what the error advises.

    At an act; None: at the first look at the job.
    """

    def lose(*_: object) -> None:
        if dies:
            rig.kill()
        raise LostInMidCommand("a command", "it broke")

    with rig.host() as host:
        if does is not None:
            act = at(does, lose)
            host = with_door(host, before=act) if before else with_door(host, after=act)
        with pytest.raises(OutcomeUnknown) as said:
            operate(host, kind, lose if does is None else None)
    return said.value.way_out


def operate(guest: Guest, kind: str, progress: merge.Progress | None) -> None:
    if kind == "snapshot":
        snapshot.create(guest, NEW)
    else:
        merge.delete(guest, REQUESTS[kind], progress)


@remedy("OutcomeUnknown")
@pytest.mark.parametrize("kind", REQUESTS)
def test_the_same_command_where_the_guest_still_runs(
    road: Road, make_rig: MakeRig, kind: str
) -> None:
    with make_rig("raw") as rig:
        content = grown(rig)
        assert "give the same command again" in lost(rig, kind, None)
        assert rig.cli("chain").code == 0
        request = REQUESTS[kind]
        said = rig.delete(request.file_to_merge, request.merge_target_file)
        # libvirt's job may have ended by itself meanwhile.
        assert said.code == 0 or road == "libvirt", said
        assert rig.files() == AFTERWARDS[kind]
        assert rig.guest.read_sha256(DISK) == content


@remedy("OutcomeUnknown")
@pytest.mark.parametrize("before", [True, False])
def test_start_after_a_snapshot_of_unknown_outcome(make_rig: MakeRig, before: bool) -> None:
    with make_rig("raw") as rig:
        content = grown(rig)
        way_out = lost(rig, "snapshot", Does.SWITCH, before=before, dies=True)
        assert f"start it from {NEW.new_file} where that is there" in way_out
        new = rig.folder / f"{BASE}.new"
        assert content_of(new if new.exists() else rig.folder / ACTIVE) == content


@remedy("OutcomeUnknown")
@pytest.mark.parametrize(
    ("does", "before"), [(None, False), (Does.COMMIT, True), (Does.COMMIT, False)]
)
@pytest.mark.parametrize("kind", ["commit", "active-commit", "pull"])
def test_start_after_a_merge_of_unknown_outcome(
    road: Road, make_rig: MakeRig, kind: str, does: Does | None, before: bool
) -> None:
    if road == "libvirt" and does is Does.COMMIT and kind != "active-commit":
        pytest.skip("libvirt's job does it by itself")
    with make_rig("raw") as rig:
        content = grown(rig)
        way_out = lost(rig, kind, does, before=before, dies=True)
        active = rig.folder / ACTIVE
        if kind == "pull":
            (command,) = re.findall(r"`(qemu-img rebase [^`]+)`", way_out)
            words = {"BACKING": TOP, "FORMAT": "qcow2", ACTIVE: str(active)}
            subprocess.run([words.get(one, one) for one in shlex.split(command)], check=True)
            assert recorded(active) == (TOP, "qcow2")
        if kind == "active-commit":
            active = after_a_comparison(
                rig, way_out, switched=(does, before) == (Does.COMMIT, False)
            )
        assert content_of(active) == content


def after_a_comparison(rig: Rig, way_out: str, *, switched: bool) -> Path:
    """Which file is right."""
    assert "`qemu-img compare -f qcow2 -F FORMAT`" in way_out
    upper, lower = rig.folder / ACTIVE, rig.folder / BASE
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(upper), str(lower)]
    if subprocess.run(compare, check=False, capture_output=True).returncode == 0:
        return lower  # either
    return lower if switched else upper
