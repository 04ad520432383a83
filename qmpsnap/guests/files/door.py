"""The door to files: every act of an operation on a file of this host goes through here."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import cast

from qmpsnap.errors import Failed
from qmpsnap.guests.files.header import sync_file
from qmpsnap.guests.files.overlay import correct_overlay, make_overlay
from qmpsnap.operations.step import Step


class FileFailed(Failed):
    """The host did not let a file be changed."""

    msg = "cannot {self.what} {self.path}: {self.reason}"
    remedy = "Mend the cause (permission, a share that is read-only); nothing else has happened."
    changed = "no"

    what: str
    path: str
    reason: str


def take_file(step: Step) -> None:
    """
    Carry out one act on a file.

    Raises:
        OverlayUnsuitable, CannotMake, QemuImgMissing, QemuImgFailed: See `make_overlay`.
        FileFailed: It could not be removed or synced.
    """
    given = step.arguments
    path = str(given["path"])
    match step.what:
        case "make-overlay":
            make_overlay(
                path,
                size=cast(int, given["size"]),
                backing_name=str(given["backing"]),
                backing_format=str(given["backing-format"]),
                like=str(given["like"]),
            )
        case "record-backing":
            correct_overlay(
                path,
                backing_name=str(given["backing"]),
                backing_format=str(given["backing-format"]),
            )
        case "unlink":
            try:
                with suppress(FileNotFoundError):
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
