"""The recorder sees what programs write, sync and rename, and keeps their inodes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.power.disk import Disk
from tests.power.recording import Box, recorded


def test_what_is_left_of_a_file(tmp_path: Path) -> None:
    """Nothing before its folder is synced, whatever was synced of itself; then what was synced."""
    box = Box.made(tmp_path)
    before = box.state()
    path = box.images / "file"
    with recorded(box):
        with path.open("wb", buffering=0) as file:
            inode = os.fstat(file.fileno()).st_ino
            file.write(b"synced")
            os.fsync(file.fileno())
            named = box.now
            folder = os.open(box.images, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            file.write(b", and not")
        path.rename(path.with_name("renamed"))
        assert path.with_name("renamed").stat().st_ino == inode
        path.with_name("renamed").unlink()

        disk = Disk(before)
        for at, operation in box.operations():
            disk.take(operation)
            tree = disk.left(lambda _change: False).tree()
            assert tree.get("images/file") == (inode if at > named else None)
        state = disk.left(lambda _change: False)
        for _ in range(2):
            box.lay(state)
            assert path.read_bytes() == b"synced"
            assert path.stat().st_ino == inode
            path.unlink()
        box.lay(disk.left(lambda _change: True))
        assert not list(box.images.iterdir())
