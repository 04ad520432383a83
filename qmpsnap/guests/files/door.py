"""
The door to files: every act of an operation on a file of this host goes through here.

A file whose write-back is to be watched is opened before others write to it: what the kernel could
not write is told once to each descriptor that was open then (errseq_t), and a flush of QEMU's that
nobody listens to would leave nothing for one that is opened afterwards.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import cast

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.guests.files.header import open_to_sync
from qmpsnap.guests.files.identity import identity_of
from qmpsnap.guests.files.locks import Claim
from qmpsnap.guests.files.markers import remove_marker, write_marker
from qmpsnap.guests.files.merged import TablesUnseen, unmerged
from qmpsnap.guests.files.mounts import hides_other_hosts
from qmpsnap.guests.files.overlay import correct_overlay, make_overlay
from qmpsnap.operations.step import Does, Step


class FileFailed(Failed):
    """The host did not let a file be changed."""

    msg = "cannot {self.what} {self.path}: {self.reason}"
    remedy = "Mend the cause (permission, a share that is read-only); nothing else has happened."
    changed = "no"

    what: str
    path: str
    reason: str


class AnotherFile(Failed):
    """A file that was to be removed has been replaced by another one of the same name."""

    msg = "{self.path} is another file now"
    remedy = "It was kept. Find out who put it there."
    changed = "no"

    path: str


def _check_same(path: str, wanted: object) -> None:
    """A name may have come to another file since it was looked at; that one is not ours to remove."""
    if wanted is not None and [*identity_of(os.stat(path))] != wanted:
        raise AnotherFile(path)


def _stays_away(path: str) -> None:
    """What was removed does not come back when the power fails, as far as its share can do that."""
    with suppress(OSError):
        sync_folder(os.path.dirname(path))


class OthersUnseen(Refused):
    """A file that left a chain lies where no lock of another host is seen."""

    msg = (
        "{self.path} is on {self.system}, where locks of other hosts are not seen: see that no guest "
        "there uses it, then remove it, or give --force-remove"
    )

    path: str
    system: str


def _check_alone(path: str) -> None:
    system = hides_other_hosts(path)
    if system is not None:
        raise OthersUnseen(path, system)


class FileDoor:
    """Changes files of this host, and keeps those open that are watched."""

    def __init__(self) -> None:
        self._watched: dict[str, int] = {}

    def take(self, step: Step, claim: Claim | None = None) -> object:
        """
        Carry out one act on a file.

        Returns:
            Of `fsync` and `compare-tables`, why it was not done; else as `take_file`.

        Raises:
            QmpsnapError: See `take_file`.
        """
        path = str(step.arguments["path"])
        match step.what:
            case "open-file":
                self._watch(path)
            case "close-file":
                self.close()
            case "fsync":
                return self._sync(path)
            case "compare-tables":
                layers = cast("list[dict[str, str]]", step.arguments["with"])
                return _compare(path, layers, pulled=bool(step.arguments.get("pulled")))
            case _:
                return take_file(step, claim)
        return None

    def _watch(self, path: str) -> None:
        if path not in self._watched:
            with suppress(OSError):  # `fsync` will say so
                self._watched[path] = open_to_sync(path)

    def _sync(self, path: str) -> str | None:
        descriptor = self._watched.get(path)
        if descriptor is not None:
            _fsync(descriptor, path)
            return None
        try:
            descriptor = open_to_sync(path)
        except OSError as error:
            return f"this process cannot open {path}: {error.strerror or error}"
        try:
            _fsync(descriptor, path)
        finally:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Watch no file any more."""
        while self._watched:
            os.close(self._watched.popitem()[1])


def _fsync(descriptor: int, path: str) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise FileFailed("sync", path, error.strerror or str(error)) from error


def _compare(path: str, layers: list[dict[str, str]], *, pulled: bool) -> str | None:
    try:
        missing = unmerged([(one["path"], one["format"]) for one in layers], path, pulled=pulled)
    except TablesUnseen as error:
        return f"its tables on disk do not tell: {error}"
    if missing is not None:
        raise FileFailed("find all that was merged in", path, missing)
    return None


def take_file(step: Step, claim: Claim | None = None) -> Identity | None:
    """
    Carry out one act on a file; returns what it is, of one that was made.

    Args:
        step: The act.
        claim: The locks of its operation; None where nothing is locked.

    Raises:
        OverlayUnsuitable, CannotMake, QemuImgMissing, QemuImgFailed: See `make_overlay`.
        FileFailed: It could not be removed.
        AnotherFile: Its name leads to another one than was meant.
        NotOurs: It was to be taken back, and may be somebody else's by now.
        OthersUnseen: It was to be removed, and guests of other hosts cannot be seen.
    """
    given = step.arguments
    path = str(given["path"])
    match step.what:
        case "make-overlay":
            return make_overlay(
                path,
                size=cast(int, given["size"]),
                backing_name=str(given["backing"]),
                backing_format=str(given["backing-format"]),
                like=str(given["like"]),
                claim=claim,
            )
        case "record-backing":
            correct_overlay(
                path,
                backing_name=str(given["backing"]),
                backing_format=str(given["backing-format"]),
            )
        case "write-marker":
            try:
                write_marker(path, str(given["text"]))
            except OSError as error:
                raise FileFailed("write", path, error.strerror or str(error)) from error
        case "remove-marker":
            try:
                remove_marker(path)
            except OSError as error:
                raise FileFailed("remove", path, error.strerror or str(error)) from error
        case "unlink":
            try:
                if step.does is Does.DISCARD and claim is not None:
                    claim.take_back(path)
                    _stays_away(path)
                    return None
                with suppress(FileNotFoundError):
                    _check_same(path, given.get("identity"))
                    if step.does is Does.REMOVE and not given.get("force"):
                        _check_alone(path)
                    os.unlink(path)
                    _stays_away(path)
            except OSError as error:
                raise FileFailed("remove", path, error.strerror or str(error)) from error
        case _:
            raise AssertionError(step)
    return None
