"""
What a disk may hold when the power fails: a pure function of what was written and synced.

What was synced before is there. Of what was not, any part may be: each page of a write, each
change of a length and each change of a name by itself. A sync of a file keeps its content, not its
name: that is kept by a sync of its folder (fsync(2)). Real file systems keep more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

PAGE: Final = 4096
"""Bytes that reach the disk together: what the kernel writes back as one."""
ROOT: Final = ""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes of a file, from an offset."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Length:
    """A file is cut off, or filled up with zeros."""

    inode: int
    size: int


@dataclass(frozen=True, slots=True)
class Names:
    """Names in one folder lead to other files from now on, all at once; None: to nothing."""

    folder: str
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """An inode that is a folder, and not a file."""

    inode: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file's content is on the disk (fsync, fdatasync)."""

    inode: int


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """A folder's names are on the disk."""

    folder: str


Operation = Write | Length | Names | Folder | Sync | SyncFolder
Change = Write | Length | Names


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that is on a disk."""

    files: Mapping[int, bytes]
    """By inode."""
    folders: frozenset[int]
    names: Mapping[tuple[str, str], int]
    """Inode by folder and name. A folder is told by its path, from the mount on."""

    def without(self, gone: Collection[tuple[str, str]]) -> State:
        """The same, with some names gone."""
        names = {name: inode for name, inode in self.names.items() if name not in gone}
        return State(files=self.files, folders=self.folders, names=names)

    def tree(self) -> dict[str, int]:
        """Inode by path, folders before what is in them; a file whose folder is lost is lost."""
        found: dict[str, int] = {}
        left = [ROOT]
        while left:
            folder = left.pop()
            for (above, name), inode in self.names.items():
                if above == folder:
                    path = f"{folder}/{name}" if folder else name
                    found[path] = inode
                    if inode in self.folders:
                        left.append(path)
        return found


Chooses = Callable[[Change], bool]
"""Whether a change that was not synced is on the disk."""


@dataclass
class Disk:
    """A disk on which operations are carried out, and its memory."""

    synced: State
    _waiting: list[Change] = field(default_factory=list)

    def take(self, operation: Operation) -> None:
        """One operation."""
        match operation:
            case Write(inode, offset, data):
                self._waiting += (
                    Write(inode, offset + at, data[at:end]) for at, end in _pages(offset, len(data))
                )
            case Length() | Names():
                self._waiting.append(operation)
            case Folder(inode):
                self.synced = State(
                    files=self.synced.files,
                    folders=self.synced.folders | {inode},
                    names=self.synced.names,
                )
            case Sync(inode):
                self._settle(lambda one: not isinstance(one, Names) and one.inode == inode)
            case SyncFolder(folder):
                self._settle(lambda one: isinstance(one, Names) and one.folder == folder)

    def _settle(self, is_synced: Chooses) -> None:
        self.synced = self.left(is_synced)
        self._waiting = [one for one in self._waiting if not is_synced(one)]

    def left(self, chooses: Chooses) -> State:
        """What is there when the power fails now."""
        return changed(self.synced, (one for one in self._waiting if chooses(one)))


def _pages(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut a write where pages end; both counted from its own beginning."""
    at = 0
    while at < length:
        end = min(length, (offset + at) // PAGE * PAGE + PAGE - offset)
        yield at, end
        at = end


def changed(state: State, changes: Iterable[Change]) -> State:
    """A state after some changes, in their order."""
    files: dict[int, bytes | bytearray] = dict(state.files)
    names = dict(state.names)
    for change in changes:
        match change:
            case Write(inode, offset, data):
                file = _writable(files, inode)
                file.extend(bytes(max(0, offset - len(file))))
                file[offset : offset + len(data)] = data
            case Length(inode, size):
                file = _writable(files, inode)
                file[size:] = bytes(max(0, size - len(file)))
            case Names(folder, those):
                for name, new in those:
                    if new is None:
                        names.pop((folder, name), None)
                    else:
                        names[folder, name] = new
    return State(
        files={inode: bytes(data) for inode, data in files.items()},
        folders=state.folders,
        names=names,
    )


def _writable(files: dict[int, bytes | bytearray], inode: int) -> bytearray:
    file = files.get(inode, b"")
    if not isinstance(file, bytearray):
        file = files[inode] = bytearray(file)
    return file
