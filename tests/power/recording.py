"""A folder whose changes are recorded, and in which states of it are laid down again."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.power.disk import Operation, State
from tests.rig.waiting import until


@dataclass(frozen=True)
class Box:
    """
    A folder as programs see it, and what is behind it.

    The journal knows files by name, inode and birth time. So a state is laid down under the same
    names out of the same inodes, which are never given back: what loses its name, also by a
    `resume`, goes to the attic. What holds what it held before has the time of its last write.
    """

    folder: Path
    """The mount; `images`, and `lib`, in which the product makes its state folder."""
    behind: Path
    attic: Path
    log: Path
    times: dict[tuple[int, bytes], int] = field(default_factory=dict, init=False)
    """When a file with some content was last written, by inode and hash of the content."""

    @classmethod
    def made(cls, at: Path) -> Box:
        """An empty one; nothing is mounted."""
        box = cls(*(at / name for name in ("disk", "behind", "attic", "log")))
        for folder in (box.folder, box.behind, box.attic):
            folder.mkdir()
        (box.behind / "images").mkdir()
        (box.behind / "lib").mkdir()
        box.log.touch()
        return box

    @property
    def images(self) -> Path:
        """Images and markers."""
        return self.folder / "images"

    @property
    def state_folder(self) -> Path:
        """The journal's, made by the product."""
        return self.folder.joinpath(*self.state_name)

    @property
    def state_name(self) -> tuple[str, str]:
        """The folder and the name of that, as the record has them."""
        return "lib", "qmpsnap"

    @property
    def now(self) -> int:
        """Where the record has come to: whatever anybody has had an answer to is before that."""
        return self.log.stat().st_size

    def operations(self) -> Iterator[tuple[int, Operation]]:
        """All that was recorded, each with where the record had come to by then."""
        size = self.now
        with self.log.open("rb") as log:
            while log.tell() < size:
                operation = pickle.load(log)
                yield log.tell(), operation

    def state(self) -> State:
        """What is there now."""
        files: dict[int, bytes] = {}
        folders: set[int] = set()
        names: dict[tuple[str, str], int] = {}
        for path in self.behind.rglob("*"):
            inode = path.stat().st_ino
            above = path.parent.relative_to(self.behind).as_posix()
            names["" if above == "." else above, path.name] = inode
            if path.is_dir():
                folders.add(inode)
            else:
                files[inode] = path.read_bytes()
                self.times[_written(inode, files[inode])] = path.stat().st_mtime_ns
        return State(files=files, folders=frozenset(folders), names=names)

    def lay(self, state: State) -> None:
        """Let exactly that be there."""
        for path in sorted(self.behind.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path.stat().st_nlink > 1:
                path.unlink()
            else:
                path.rename(self.attic / str(path.stat().st_ino))
        laid: dict[int, Path] = {}
        for name, inode in state.tree().items():
            path = self.behind / name
            if inode in state.folders:
                path.mkdir(mode=0o700)
            elif inode in laid:
                os.link(laid[inode], path)
            else:
                (self.attic / str(inode)).rename(path)
                content = state.files.get(inode, b"")
                path.write_bytes(content)
                if (at := self.times.get(_written(inode, content))) is not None:
                    os.utime(path, ns=(at, at))
                laid[inode] = path


def _written(inode: int, content: bytes) -> tuple[int, bytes]:
    return inode, hashlib.sha256(content).digest()


def can_record() -> bool:
    """Whether this machine has what the recorder needs."""
    programs = shutil.which("fusermount3") and shutil.which("setpriv")
    return bool(os.access("/dev/fuse", os.R_OK | os.W_OK) and programs and find_spec("mfusepy"))


@contextmanager
def recorded(box: Box) -> Iterator[None]:
    """Record what happens in the folder of a box for the length of a block."""
    process = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "tests.power.mount"),
            *map(str, (box.folder, box.behind, box.attic, box.log)),
        ],
        env={**os.environ, "FUSE_LIBRARY_NAME": "fuse3"},
        start_new_session=True,
    )
    try:
        until(lambda: os.path.ismount(box.folder) or process.poll() is not None)
        assert process.poll() is None, "the recorder could not mount"
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(box.folder)], check=True)
        process.kill()  # it would wait for whoever still has a file open
        process.wait()
