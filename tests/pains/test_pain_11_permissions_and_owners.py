"""
Permissions and owners: the tool is root, and QEMU is not.

kevoreilly/CAPEv2#2431, cockpit-machines#1280, twilligon/backup-vm#17. AppArmor and SELinux are not
here to be tried; a QEMU that has given up its rights meets the same refusal from the kernel.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import direct_rig

USER = "nobody"


@pytest.fixture
def open_share() -> Iterator[Path]:
    """A folder that QEMU's user can reach."""
    with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def as_nobody(share: Path, *files: tuple[str, str]) -> Iterator[Rig]:
    """Run a QEMU that opens its files as root, and then is somebody else."""
    chain = [(share / name, format) for name, format in files]
    with direct_rig(share, qcow2_chain(chain, DISK, SERIAL), _as(USER)) as rig:
        yield rig


def _as(user: str) -> list[str]:
    """QEMU 10.0 has one way only, 9.0 and before the other."""
    said = subprocess.run(["qemu-system-x86_64", "-help"], check=True, capture_output=True)
    return ["-runas", user] if b"\n-runas" in said.stdout else ["-run-with", f"user={user}"]


class TestOverlayThatQemuMayNotOpen(Pain[Rig]):
    """It was made by root, for root."""

    guard = Guard(where="qmpsnap.guests.files.overlay._like", instead=lambda _path, _model: None)

    @pytest.fixture
    def world(self, open_share: Path) -> Iterator[Rig]:
        nobody = pwd.getpwnam(USER)
        images.create_raw(open_share / BASE, MIB)
        os.chown(open_share / BASE, nobody.pw_uid, nobody.pw_gid)
        os.chmod(open_share / BASE, 0o640)
        with as_nobody(open_share, (BASE, "raw")) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        self.said = world.cli("create", DISK, "s1")
        assert self.said.code == 0, self.said
        overlay, base = world.folder / f"{BASE}.s1", world.folder / BASE
        assert (overlay.owner(), overlay.stat().st_mode) == (USER, base.stat().st_mode)
        assert world.files() == [f"{BASE}.s1", BASE]

    def hurts(self, world: Rig) -> None:
        assert "Permission denied" in self.said.err
        assert world.files() == [BASE]


def test_a_base_that_qemu_may_not_write(open_share: Path) -> None:
    """QEMU itself refuses that; here it matters that nothing is left behind."""
    images.create_raw(open_share / BASE, MIB)  # root's
    images.create_qcow2(open_share / f"{BASE}.s1", MIB, BASE, "raw")
    with as_nobody(open_share, (f"{BASE}.s1", "qcow2"), (BASE, "raw")) as rig:
        said = rig.cli("delete", DISK, "s1", "--remove-file")
        assert said.code == 1, said
        assert "Permission denied" in said.err
        assert rig.files() == [f"{BASE}.s1", BASE]
        assert rig.guest.qmp("query-jobs") == []
        assert (open_share / f"{BASE}.s1").exists()
