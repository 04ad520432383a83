"""The door to files: every act of an operation on a file of this host goes through here."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import cast

from qmpsnap.errors import Failed
from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.header import sync_file
from qmpsnap.guests.files.identity import identity_of
from qmpsnap.guests.files.locks import Claim
from qmpsnap.guests.files.markers import remove_marker, write_marker
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


def take_file(step: Step, claim: Claim | None = None) -> Identity | None:
    """
    Carry out one act on a file; returns what it is, of one that was made.

    Args:
        step: The act.
        claim: The locks of its operation; None where nothing is locked.

    Raises:
        OverlayUnsuitable, CannotMake, QemuImgMissing, QemuImgFailed: See `make_overlay`.
        FileFailed: It could not be removed or synced.
        AnotherFile: Its name leads to another one than was meant.
        NotOurs: It was to be taken back, and may be somebody else's by now.
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
                    return None
                with suppress(FileNotFoundError):
                    _check_same(path, given.get("identity"))
                    os.unlink(path)
            except OSError as error:
                raise FileFailed("remove", path, error.strerror or str(error)) from error
        case "fsync":
            try:
                sync_file(path)
            except OSError as error:
                raise FileFailed("sync", path, error.strerror or str(error)) from error
        case _:
            raise AssertionError(step)
    return None
