"""
The door to files: every act of an operation on a file of this host goes through here.

A file whose write-back is to be watched is opened before others write to it: what the kernel could
not write is told once to each descriptor that was open then (errseq_t), and a flush of QEMU's that
nobody listens to would leave nothing for one that is opened afterwards.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple, cast

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.census import images_naming
from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.guests.files.header import open_to_sync
from qmpsnap.guests.files.helper import Helper, instead_of
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


class NamedByLink(Refused):
    """A file that left a chain is named by a symbolic link, without which it would still be there."""

    msg = "{self.path} is a symbolic link to {self.target}"
    remedy = "Remove both, the link and the file, when nobody needs it any more."

    path: str
    target: str


def _check_no_link(path: str) -> None:
    if os.path.islink(path):
        raise NamedByLink(path, os.path.realpath(path))


class StillNamed(Refused):
    """
    A file that left a chain is named in the header of an image beside it.

    That may be the clone of a guest that is off and that no libvirt knows of, or what `revert` has
    kept: neither has a process, nor a definition.
    """

    msg = "{self.path} is the backing file of {self.by}, by its header"
    remedy = "Remove it when nobody needs {self.by} any more."

    path: str
    images: tuple[str, ...]

    @property
    def by(self) -> str:
        """The images, for people."""
        return ", ".join(self.images)


def _check_unnamed(path: str, left_over: object) -> None:
    """What earlier merges have left beside the chain still names files that it needs no more."""
    known = left_over if isinstance(left_over, list) else []
    by = tuple(one for one in images_naming(path) if one not in known)
    if by:
        raise StillNamed(path, by)


def _check_alone(path: str) -> None:
    system = hides_other_hosts(path)
    if system is not None:
        raise OthersUnseen(path, system)


class FileDoor:
    """Changes files of this host, and keeps those open that are watched."""

    def __init__(self) -> None:
        self._watched: dict[str, int | _ByHelper] = {}

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
                self._watched[path] = _opened_to_sync(path)

    def _sync(self, path: str) -> str | None:
        watched = self._watched.get(path)
        if watched is not None:
            _fsync(watched, path)
            return None
        try:
            watched = _opened_to_sync(path)
        except OSError as error:
            return f"this process cannot open {path}: {error.strerror or error}"
        try:
            _fsync(watched, path)
        finally:
            _close(watched)
        return None

    def close(self) -> None:
        """Watch no file any more."""
        while self._watched:
            _close(self._watched.popitem()[1])


class _ByHelper(NamedTuple):
    """A file that the helper has open for this process."""

    helper: Helper
    number: int


def _opened_to_sync(path: str) -> int | _ByHelper:
    try:
        return open_to_sync(path)
    except PermissionError as error:
        helper = instead_of(error)
        return _ByHelper(helper, helper.watch(path))


def _close(watched: int | _ByHelper) -> None:
    if isinstance(watched, int):
        os.close(watched)
    else:
        watched.helper.release(watched.number)


def _fsync(watched: int | _ByHelper, path: str) -> None:
    try:
        if isinstance(watched, int):
            os.fsync(watched)
        else:
            watched.helper.sync(watched.number)
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
        StillNamed: It was to be removed, and an image beside it rests on it.
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
                    if step.does is Does.REMOVE:
                        _check_no_link(path)
                        if not given.get("force"):
                            _check_alone(path)
                        _check_unnamed(path, given.get("left-over"))
                    # Right before, as far as it can be: the headers beside it take a while.
                    _check_same(path, given.get("identity"))
                    os.unlink(path)
                    _stays_away(path)
            except OSError as error:
                raise FileFailed("remove", path, error.strerror or str(error)) from error
        case _:
            raise AssertionError(step)
    return None
