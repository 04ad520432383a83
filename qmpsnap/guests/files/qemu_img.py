"""
qemu-img, for what needs no running guest: making, rebasing and looking into overlays.

It is never run without an explicit format, and never opens a backing file: what a guest wrote
into a raw file must not decide anything.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

import msgspec

from qmpsnap.errors import Failed, Refused

TIMEOUT_S: Final = 60


class QemuImgMissing(Refused):
    """qemu-img is needed to make overlays, and is not installed."""

    msg = "qemu-img is not installed"
    remedy = "Install it: Debian's qemu-utils, Fedora's qemu-img."


class QemuImgFailed(Failed):
    """qemu-img ended with an error; the guest was not touched."""

    msg = "qemu-img {self.command} {self.path}: {self.reason}"
    remedy = "Mend the cause, then give the same command again; the guest was not touched."
    changed = "no"

    command: str
    path: str
    reason: str


def create_overlay(path: str, *, backing_name: str, backing_format: str, size: int) -> None:
    """
    Write an empty qcow2 overlay of `size` bytes, over whatever is at `path`.

    Raises:
        QemuImgMissing, QemuImgFailed: It was not made.
    """
    # -u: the backing file is not opened; its format and size are known from the guest.
    run(
        "create",
        path,
        "-q",
        "-u",
        "-f",
        "qcow2",
        *_backing(backing_name, backing_format),
        path,
        str(size),
    )


def record_backing(path: str, *, backing_name: str, backing_format: str) -> None:
    """
    Rewrite name and format of the backing file in a qcow2 header. Nothing else is touched.

    Raises:
        QemuImgMissing, QemuImgFailed: It was not done.
    """
    run("rebase", path, "-q", "-u", "-f", "qcow2", *_backing(backing_name, backing_format), path)


def _backing(name: str, format_: str) -> tuple[str, ...]:
    return ("-b", name, "-F", format_)


class Extent(msgspec.Struct, frozen=True):
    """A part of what a file holds, as its own tables tell."""

    start: int
    length: int
    data: bool
    zero: bool = False
    present: bool | None = None
    """None before QEMU 6.1; there an allocated zero cluster cannot be told from no cluster."""
    offset: int | None = None
    """Where it lies in the file; None of what is compressed, too."""

    @property
    def is_own(self) -> bool:
        """Whether the file itself has it, and not the one below."""
        return self.data if self.present is None else self.present


def alone(path: str, format_: str = "qcow2") -> str:
    """A raw or qcow2 file without its backing file; some subcommands would open that otherwise."""
    node: dict[str, object] = {"driver": format_, "file": {"driver": "file", "filename": path}}
    if format_ != "raw":
        node["backing"] = None
    return "json:" + json.dumps(node)


def extents_of(path: str, format_: str = "qcow2", *, shared: bool = False) -> list[Extent]:
    """
    What a raw or qcow2 file itself holds, in order. Its backing file is not opened.

    Args:
        path: The file.
        format_: Its format.
        shared: Whether somebody may have it open, and write to it.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be told.
    """
    text = run("map", path, *(("-U",) if shared else ()), "--output=json", alone(path, format_))
    try:
        return msgspec.json.decode(text, type=list[Extent])
    except msgspec.DecodeError as error:
        raise QemuImgFailed("map", path, f"its output is not understood: {error}") from error


def is_empty(path: str) -> bool:
    """
    Whether a qcow2 file has no cluster of its own. Its backing file is not opened.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be told, for example because a guest has it open.
    """
    return not any(one.is_own for one in extents_of(path))


_CORRUPT: Final = 2
_LEAKS: Final = 3
"""Exit codes of `qemu-img check`: source qemu-img.c, img_check()."""


def is_consistent(path: str) -> bool:
    """
    Whether the tables of a qcow2 file without a data file are right; lost clusters do no harm.

    Raises:
        QemuImgMissing, QemuImgFailed: It cannot be told.
    """
    done = _done("check", path, "-q", alone(path))
    if done.returncode not in (0, _CORRUPT, _LEAKS):
        raise _failed("check", path, done)
    return done.returncode != _CORRUPT


def run(command: str, path: str, *arguments: str) -> str:
    """
    Run `qemu-img COMMAND ARGUMENTS` and return what it printed.

    Args:
        command: The subcommand.
        path: The file it is about, for the error.
        arguments: With an explicit format, always.

    Raises:
        QemuImgMissing: It is not installed.
        QemuImgFailed: It ended with an error, or not within `TIMEOUT_S`.
    """
    done = _done(command, path, *arguments)
    if done.returncode != 0:
        raise _failed(command, path, done)
    return done.stdout


def _done(command: str, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["qemu-img", command, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise QemuImgMissing from error
    except subprocess.TimeoutExpired as error:
        raise QemuImgFailed(command, path, f"no end within {TIMEOUT_S} s") from error


def _failed(command: str, path: str, done: subprocess.CompletedProcess[str]) -> QemuImgFailed:
    reason = done.stderr.strip() or f"exit code {done.returncode}"
    return QemuImgFailed(command, path, reason)
