"""Two nodes of one block device, as libvirt makes them in the private `/dev` of each guest."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.guests.files.neighbours import other_users
from tests.rig.beside import device_or_skip


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1024 * 1024))
    with device_or_skip(image) as name:
        yield Path(name)


def test_by_what_the_node_stands_for(tmp_path: Path, device: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
        file = node.open("rb")
    except OSError as error:
        pytest.skip(f"no device node can be made and opened: {error}")
    with file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stderr=file) as process:
        users, _ = other_users([str(device)], "")
        assert users == {str(device): (f"cat (pid {process.pid})",)}
        users, _ = other_users([str(tmp_path / "image")], "")
        assert users == {str(tmp_path / "image"): (str(device),)}
