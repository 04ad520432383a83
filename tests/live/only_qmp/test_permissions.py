"""What docs/howto/permissions.md says is needed, tried as somebody who is not root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import unprivileged
from tests.rig.rig import BASE, DISK, Rig
from tests.rig.roads import direct_rigs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A guest of root's; others may go into its folders, and no further."""
    # Not in pytest's folder, which is root's alone.
    with (
        tempfile.TemporaryDirectory(prefix="qi-", dir="/var/tmp") as name,
        direct_rigs(Path(name))("raw") as rig,
    ):
        for folder in (Path(name), socket_of(rig).parent):
            folder.chmod(0o755)
        socket_of(rig).chmod(0o600)
        yield rig


def socket_of(rig: Rig) -> Path:
    return Path(rig.road[1])


def give_to_group(path: Path, mode: int) -> None:
    shutil.chown(path, group=unprivileged.GROUP)
    path.chmod(mode)


def left_in(rig: Rig) -> list[str]:
    """What lies in the guest's folder, but for QEMU's log."""
    return [path.name for path in rig.folder.iterdir() if not path.name.startswith("qemu-")]


def test_a_socket_of_somebody_else(rig: Rig) -> None:
    said = unprivileged.run(*rig.road, "chain")
    assert said.code == 7, said
    assert "permission denied" in said.err
    assert "user that owns the socket" in said.err
    give_to_group(socket_of(rig), 0o640)
    assert unprivileged.run(*rig.road, "chain").code == 7, "connecting takes the right to write"


def test_a_socket_of_ones_group(rig: Rig) -> None:
    give_to_group(socket_of(rig), 0o660)
    said = unprivileged.run(*rig.road, "chain", "-o", "json")
    assert said.code == 0, said
    assert [one["file"] for one in said.json["disks"][0]["layers"]] == [BASE]


def test_a_folder_that_one_may_not_write(rig: Rig) -> None:
    give_to_group(socket_of(rig), 0o660)
    said = unprivileged.run(*rig.road, "create", "--no-journal", DISK, "s1")
    assert said.code in (1, 4), said
    assert "Permission denied" in said.err
    assert left_in(rig) == [BASE]
    assert rig.files() == [BASE]


@pytest.mark.parametrize("owner", ["root", unprivileged.USER])
def test_a_folder_of_ones_group(rig: Rig, owner: str) -> None:
    """The new file is to have owner and mode of the active one, or QEMU could not open it."""
    give_to_group(socket_of(rig), 0o660)
    give_to_group(rig.folder, 0o770)
    give_to_group(rig.folder / BASE, 0o660)
    shutil.chown(rig.folder / BASE, user=owner)
    said = unprivileged.run(*rig.road, "create", "--no-journal", DISK, "s1")
    if owner == "root":
        assert said.code == 1, said
        assert "only root can give it the owner" in said.err
        assert left_in(rig) == [BASE]
        return
    assert said.code == 0, said
    made = (rig.folder / f"{BASE}.s1").stat()
    assert (made.st_mode & 0o777, made.st_gid) == (0o660, (rig.folder / BASE).stat().st_gid)
    assert rig.files() == [f"{BASE}.s1", BASE]


def test_a_state_folder_that_one_may_not_write(rig: Rig) -> None:
    """A user has a journal in the own home, and says so where that cannot be."""
    give_to_group(socket_of(rig), 0o660)
    said = unprivileged.run(*rig.road, "create", DISK, "s1")
    assert said.code == 4, said
    assert "QMPSNAP_STATE" in said.err or "journal" in said.err
    assert rig.files() == [BASE]
