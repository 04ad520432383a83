"""
Image files: made and hashed.

`qemu-img` gets an explicit format every time; without one it looks into the file, and there a
guest may have written whatever it liked.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qmpsnap.demo.forgery import foreign_qcow2_header as foreign_qcow2_header
from qmpsnap.guests.files import qemu_img


def create_raw(path: str | os.PathLike[str], size: int) -> None:
    """Make a sparse raw file of `size` bytes."""
    file = str(Path(path).absolute())
    qemu_img.run("create", file, "-f", "raw", file, str(size))


def create_qcow2(
    path: str | os.PathLike[str],
    size: int,
    backing: str | os.PathLike[str] | None = None,
    backing_format: str | None = None,
    *,
    subclusters: bool = False,
) -> None:
    """
    Make an empty qcow2 file.

    Args:
        path: The new file.
        size: Virtual size in bytes.
        backing: As it is to stand in the header; a relative name counts from the new file's
            folder.
        backing_format: Format of `backing`, written into the header.
        subclusters: Whether parts of its clusters may be allocated.
    """
    if (backing is None) != (backing_format is None):
        raise ValueError("a backing file and its format go together")
    below = () if backing is None else ("-b", os.fspath(backing), "-F", str(backing_format))
    file = str(Path(path).absolute())
    how = ("-o", "extended_l2=on,cluster_size=128k") if subclusters else ()
    qemu_img.run("create", file, "-f", "qcow2", *how, *below, file, str(size))


def write(path: Path, format_: str, offset: int, length: int, pattern: int) -> None:
    """Write to an image that nobody has open."""
    command = f"write -P {pattern} {offset} {length}"
    subprocess.run(
        ["qemu-io", "-f", format_, "-c", command, str(path)], check=True, capture_output=True
    )


def held_open(path: Path) -> subprocess.Popen[bytes]:
    """A process that has a file open."""
    with open(path, "rb") as file:
        return subprocess.Popen(["sleep", "600"], stdin=file)


def sha256_of(path: str | os.PathLike[str], format: str) -> str:
    """
    Hash what a file reads as, with everything below it, while no guest has it open.

    Args:
        path: The active layer.
        format: Its format. The layers below are opened as the headers say.

    Returns:
        SHA-256 of all guest-visible bytes, in hexadecimal.
    """
    with raw_copy(str(Path(path).absolute()), format, Path(tempfile.gettempdir())) as copy:
        return sha256_of_bytes(copy)


def sha256_of_bytes(path: Path) -> str:
    """Hash a file as it lies there, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def raw_copy(source: str, format: str, directory: Path) -> Iterator[Path]:
    """Copy what `source` reads as into a temporary raw file in `directory`."""
    with tempfile.TemporaryDirectory(prefix="qmpsnap-copy-", dir=directory) as folder:
        copy = Path(folder, "raw")
        qemu_img.run("convert", source, "-f", format, "-O", "raw", source, os.fspath(copy))
        yield copy


def without_counts(path: Path) -> None:
    """
    Let a qcow2 file count none of its clusters as used: a guest's first write goes into its tables.

    Source: docs/interop/qcow2.txt; the refcount table's offset is at byte 48 of the header.
    """
    with path.open("r+b") as file:
        file.seek(48)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.seek(int.from_bytes(file.read(8), "big"))
        file.write(bytes(4096))
