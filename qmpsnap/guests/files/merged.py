"""
Whether all that layers hold has come to the file that they were merged into, by its own tables.

A table that QEMU could not write is not on disk, so the clusters that it has are missing there. This
is the proof where QEMU itself cannot be asked: under libvirt without passthrough, and in
qemu-storage-daemon. Of data that was written where some lay before, a table tells nothing; the `fsync`
before has seen to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, Final, NamedTuple

from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.qemu_img import Extent, QemuImgFailed, QemuImgMissing, extents_of


class TablesUnseen(Exception):
    """The tables of a file on disk do not tell whether all that was merged is in it. Why."""


class _Own(NamedTuple):
    """What a file has of its own."""

    extent: Extent
    path: str
    format: str


_Part = tuple[int, int, _Own | None]
"""From, to, and what is there; None: nothing of this file's own."""
_PIECE: Final = 1 << 20


def unmerged(dropped: Sequence[tuple[str, str]], base: str, *, pulled: bool = False) -> str | None:
    """
    Compare the tables of layers with those of the file that they were merged into.

    Args:
        dropped: (host file, format) of the layers, upper ones first.
        base: The file that was written, a qcow2.
        pulled: Whether it lay above the layers. A pull writes nothing over what it had itself.

    Returns:
        What is missing; None: all of it is there.

    Raises:
        TablesUnseen: It cannot be told.
    """
    if any(format_ not in ("qcow2", "raw") for _, format_ in dropped):
        raise TablesUnseen("a layer is neither qcow2 nor raw")
    try:
        header = read_header(base)
        if header.snapshots:
            # A cluster that a snapshot has as well is written elsewhere, and the old table would
            # name the old data.
            raise TablesUnseen("it has internal snapshots")
        has = _parts(base, "qcow2")
        held: list[_Part] = []
        for path, format_ in reversed(dropped):
            held = _over(_parts(path, format_), held)
        with open(base, "rb") as file:
            for start, end, wanted, own in _pairs(held, has):
                if wanted is None or (pulled and own is not None):
                    continue
                found = own and own.extent
                if wanted.extent.data and found is not None and found.data:
                    # What is compressed is never written in place: it is older than the merge.
                    there = found.offset is not None
                else:
                    # `detect-zeroes` makes clusters of zeros of data that are all zeros.
                    there = _reads_zeros(
                        file, start, end, found, bool(header.backing_file)
                    ) and _are_zeros(start, end, wanted)
                if not there:
                    return f"{end - start} bytes at {start} are not in its tables on disk"
    except (OSError, BadHeader, QemuImgMissing, QemuImgFailed) as error:
        raise TablesUnseen(str(error)) from error
    return None


def _reads_zeros(
    file: BinaryIO, start: int, end: int, found: Extent | None, has_backing: bool
) -> bool:
    """Whether a part reads as zeros: by its table, or by the data that the table names."""
    if found is None:
        return not has_backing
    if not found.data:
        return True
    if found.offset is None:
        return False
    file.seek(found.offset + start - found.start)
    while start < end:
        piece = file.read(min(end - start, _PIECE))
        if not piece or any(piece):
            return False
        start += len(piece)
    return True


def _are_zeros(start: int, end: int, wanted: _Own) -> bool:
    """
    Whether a part of a layer reads as zeros.

    Raises:
        OSError, BadHeader: The layer cannot be read.
    """
    if not wanted.extent.data:
        return True
    if wanted.format != "raw":
        header = read_header(wanted.path)
        if header.data_file is not None or header.encryption is not None:
            return False
    with open(wanted.path, "rb") as file:
        return _reads_zeros(file, start, end, wanted.extent, has_backing=True)


def _parts(path: str, format_: str) -> list[_Part]:
    """
    What a file has of its own.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be told. Before QEMU 6.1 a cluster of zeros cannot
            be told from none.
    """
    extents = extents_of(path, format_, shared=True)
    if any(one.present is None for one in extents):
        raise QemuImgFailed("map", path, "it does not tell which clusters are there")
    return [
        (one.start, one.start + one.length, _Own(one, path, format_) if one.present else None)
        for one in extents
    ]


def _over(upper: list[_Part], lower: list[_Part]) -> list[_Part]:
    """What a reader of two layers gets from either."""
    return [(start, end, above or below) for start, end, above, below in _pairs(upper, lower)]


def _pairs(
    first: list[_Part], second: list[_Part]
) -> Iterator[tuple[int, int, _Own | None, _Own | None]]:
    """Both lists side by side, cut where either of them is; each may end before the other."""
    cuts = sorted({edge for start, end, _ in (*first, *second) for edge in (start, end)})
    left, right = iter(first), iter(second)
    one, two = next(left, None), next(right, None)
    for start, end in pairwise(cuts):
        while one is not None and one[1] <= start:
            one = next(left, None)
        while two is not None and two[1] <= start:
            two = next(right, None)
        above = one[2] if one is not None and one[0] <= start else None
        below = two[2] if two is not None and two[0] <= start else None
        yield start, end, above, below
