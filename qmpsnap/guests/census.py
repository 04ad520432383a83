"""
Whether somebody uses a file: the one question behind `orphans` and `explain`.

A file is `used` when anybody who was asked names it or has it open. It is `unused` only when
everybody could be asked: every header beside it, every guest of libvirt with its chain and its
records, every process. Else it is `unknown`, and the gaps say why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks, Identity
from qmpsnap.guests.files import census
from qmpsnap.guests.files.census import Census, Use, together
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.lease import is_open_nowhere

Files = dict[str, os.stat_result]


class CannotList(Refused):
    """The folder of a file cannot be listed, so nobody knows what lies beside it."""

    msg = "the folder {self.folder} cannot be listed: {self.reason}"
    remedy = "Check the name and its permissions; run as root on the host that has the files."

    folder: str
    reason: str


class Answer(StrEnum):
    """Whether a file is used."""

    USED = "used"
    UNUSED = "unused"
    UNKNOWN = "unknown"


class FileUse(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and who uses it."""

    path: str
    uses: tuple[Use, ...]
    gaps: tuple[str, ...]
    """Why nothing certain can be said, where nobody was found."""

    @property
    def answer(self) -> Answer:
        """Whether it is used."""
        if self.uses:
            return Answer.USED
        return Answer.UNKNOWN if self.gaps else Answer.UNUSED


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one folder, and who was asked about them."""

    folder: str
    files: tuple[FileUse, ...]
    asked: Mapping[str, int]
    gaps: tuple[str, ...]
    """Who could not be asked, about any of them."""


def who_uses(
    folder: str,
    ask_guests: Callable[[str], Census],
    *,
    only: str | None = None,
) -> Asked:
    """
    Find out who uses the files of a folder.

    Args:
        folder: A folder of this host.
        ask_guests: Asks all guests that can be asked; takes the folder without symbolic links.
        only: One file of it (also a block device) that the answer is wanted for; None: all
            regular files.

    Raises:
        CannotList: The folder cannot be listed.
    """
    folder = os.path.realpath(folder)
    files, links = _listed(folder)
    named = {**files, **links}
    answers = [census.ask_headers(folder, named), census.ask_file_system(folder)]
    answers.append(ask_guests(folder))
    answers.append(census.ask_markers(folder, files))
    now, now_links = _listed(folder)
    again = _changed(named, {**now, **now_links})
    answers.append(census.ask_headers(folder, {**named, **again}, again=again))
    wanted = [*files] if only is None else [only]
    # Last, because processes come and go fastest.
    all_ = together((*answers, census.ask_processes(wanted)))
    return Asked(
        folder=folder,
        files=tuple(_judged(path, all_) for path in wanted),
        asked=all_.asked,
        gaps=all_.gaps,
    )


def _listed(folder: str) -> tuple[Files, Files]:
    """Its regular files, and its links to files: those are read, and never called unused."""
    try:
        return census.beside(folder), census.links_beside(folder)
    except OSError as error:
        raise CannotList(folder, error.strerror or str(error)) from error


def _changed(before: Files, now: Files) -> Files:
    """What has come or was written while guests were asked: it may name other files by now."""
    return {
        path: status
        for path, status in now.items()
        if (was := before.get(path)) is None
        or (was.st_ino, was.st_mtime_ns, was.st_ctime_ns)
        != (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    }


def _judged(path: str, all_: Census) -> FileUse:
    uses = all_.of(path)
    gaps = all_.gaps
    if not uses and not gaps and not is_open_nowhere(path):
        gaps = ("somebody may have it open who cannot be seen: another container, or the kernel",)
    return FileUse(path=path, uses=uses, gaps=gaps)


def layers_of(report: Disks, who: str) -> Census:
    """What one guest that was read has open."""
    uses: dict[Identity, tuple[Use, ...]] = {}
    paths: Collection[str] = {
        *report.open_files,
        *(path for disk in report.disks for path in disk.paths if path is not None),
        *(file.path for disk in report.disks for file in disk.files if file.path is not None),
    }
    for path in paths:
        if (key := identity(path)) is not None:
            uses[key] = (Use(by="guest", who=who),)
    return Census(uses=uses)
