"""Linked clones: several guests on one template, of which each operation only reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap import by_name
from qmpsnap.findings.finding import OPERATION_OPEN
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.doors import Killed, dying_at
from tests.rig.rig import DISK, MIB, SERIAL, SIZE, Rig, run_cli
from tests.rig.roads import direct_rig
from tests.rig.state_folder import own_state


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_state(tmp_path_factory, monkeypatch)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    images.create_qcow2(folder / "template", SIZE)
    images.write(folder / "template", "qcow2", 0, MIB, 1)
    for name in ("a", "b"):
        images.create_qcow2(folder / name, SIZE, "template", "qcow2")
    return folder


@contextmanager
def clone(share: Path, name: str) -> Iterator[Rig]:
    with direct_rig(share, qcow2_chain([(share / name, "qcow2")], DISK, SERIAL)) as rig:
        yield rig


def killed_in_a_create(rig: Rig) -> None:
    """Right after the switch: an operation is open, and its marker lies on the share."""
    with rig.host() as guest, pytest.raises(Killed):
        by_name.create(dying_at(guest, Does.SWITCH, "after"), DISK, "new")


def rules(rig: Rig) -> set[str]:
    """What `verify` finds."""
    return {one["id"] for one in rig.cli("verify", "-o", "json").json["findings"]}


@pytest.mark.parametrize("is_known", ["by the journal", "by its marker"])
def test_an_open_operation_forbids_nothing_to_another_clone(
    share: Path, state: Path, is_known: str
) -> None:
    with clone(share, "a") as mine, clone(share, "b") as theirs:
        killed_in_a_create(mine)
        if is_known == "by its marker":
            shutil.rmtree(state)
            state.mkdir(mode=0o700)
        assert {OPERATION_OPEN.id} & rules(mine)
        assert not {OPERATION_OPEN.id} & rules(theirs)
        assert theirs.cli("create", DISK, "s1").code == 0
        theirs.guest.write(DISK, 0, MIB, 7)
        assert theirs.cli("create", DISK, "s2").code == 0
        content = theirs.guest.read_sha256(DISK)
        assert theirs.cli("delete", DISK, "s2", "--method", "commit").code == 0
        assert theirs.delete(None, None).code == 0
        assert theirs.guest.read_sha256(DISK) == content


@pytest.mark.parametrize("written", [False, True])
def test_another_clone_on_the_socket_is_not_the_guest(share: Path, written: bool) -> None:
    """Its chain has a file of the operation, the template, and tells nothing of it."""
    with clone(share, "a") as mine:
        socket = Path(mine.road[-1])
        killed_in_a_create(mine)
        if written:
            mine.guest.write(DISK, 0, MIB, 7)
            mine.guest.qemu_io(DISK, "flush")
        mine.kill()
        with clone(share, "b") as theirs:
            socket.parent.mkdir(exist_ok=True)
            socket.unlink(missing_ok=True)
            os.symlink(theirs.road[-1], socket)
            (one,) = run_cli(["resume", "-o", "json"]).json["operations"]
    new = next(path for path in share.iterdir() if path.name.startswith("a.")) if written else None
    right = str(new) if new is not None else str(share / "a")
    assert (one["outcome"], one["active"]) == ("finished" if written else "rolled-back", right)
