"""Headers of layers, read and spoiled behind QEMU's back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations import merge
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.requests import DeleteRequest
from tests.rig import images
from tests.rig.doors import at_the_end
from tests.rig.rig import BASE, SERIAL, SIZE, Rig

_BACKING_FORMAT = bytes.fromhex("E2792ACA")
_NONE = bytes.fromhex("71717171")
"""A header extension that nobody knows."""

Spoil = Callable[[Path], None]


def recorded(path: Path) -> tuple[str | None, str | None]:
    """Name and format of the backing file, as they stand in a header."""
    header = read_header(str(path))
    return header.backing_file, header.backing_format


def masks(rig: Rig, command: str) -> bool:
    """Whether QEMU can record `raw` over a protocol node; asked about a node that is not there."""
    asked = {"device": "nobody", "job-id": "nobody", "backing-mask-protocol": True}
    with pytest.raises(CommandFailed) as refused:
        rig.guest.qmp(command, asked)
    return "backing-mask-protocol" not in refused.value.description


def without_format(path: Path) -> None:
    """Take the backing format out of a header."""
    _replace(path, _BACKING_FORMAT, _NONE)


def with_format(format_: str) -> Spoil:
    """Put another backing format into a header; at most eight letters."""

    def spoil(path: Path) -> None:
        start = path.read_bytes()[:4096]
        where = start.index(_BACKING_FORMAT) + 4
        word = struct.pack(">I", len(format_)) + format_.encode().ljust(8, b"\0")
        _write(path, where, word)

    return spoil


def with_name(name: str) -> Spoil:
    """Put another backing file into a header, with a name that is no longer than the right one."""

    def spoil(path: Path) -> None:
        offset, size = struct.unpack(">QI", path.read_bytes()[8:20])
        assert len(name) <= size
        _write(path, offset, name.encode())
        _write(path, 16, struct.pack(">I", len(name)))

    return spoil


def _replace(path: Path, old: bytes, new: bytes) -> None:
    _write(path, path.read_bytes()[:4096].index(old), new)


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def hand_over(new: Path, backing: str, recorded: str | None, size: int = SIZE) -> None:
    """Make an overlay whose header records a format that may be wrong, or none."""
    # qemu-img would open the backing file with the format given, so that comes afterwards.
    images.create_qcow2(new, size, backing, "raw")
    if recorded is None:
        without_format(new)
    else:
        with_format(recorded)(new)


COMMIT = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)
PULL = DeleteRequest(disk=SERIAL, file_to_merge=BASE, merge_target_file=None)
ACTIVE_COMMIT = DeleteRequest(
    disk=SERIAL, file_to_merge=f"{BASE}.s2", merge_target_file=f"{BASE}.s1"
)
FAULTS = {
    "file for raw": with_format("file"),
    "another name": with_name("elsewher"),
}


def deleted(rig: Rig, request: DeleteRequest, path: Path, spoil: Spoil) -> Result:
    """Delete, with a header spoiled between the merge and the last look."""
    with rig.host() as host:
        return merge.delete(at_the_end(host, lambda: spoil(path)), request)
