"""Snapshots by the names that people give them: `create`, `delete` and `revert`."""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Sequence
from typing import overload

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.journal.file import DEFAULT, Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.loop import Tell as Notices
from qmpsnap.operations.merge import Progress
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.quiesce import Quiesce, Word, quiesce_as
from qmpsnap.operations.requests import (
    BadFileName,
    CreateRequest,
    Method,
    NamedDeleteRequest,
    checked_folder,
    checked_name,
)
from qmpsnap.operations.revert import name_after


@overload
def create(
    guest: Guest,
    disk: str,
    snapshot: str | None = ...,
    *,
    into: str | os.PathLike[str] | None = ...,
    file: str | os.PathLike[str] | None = ...,
    quiesce: Quiesce | Word = ...,
    allow: Collection[Guard] = ...,
    journal: Journal | None = ...,
) -> Result: ...


@overload
def create(
    guest: Guest,
    disk: str,
    snapshot: str | None = ...,
    *,
    also: Sequence[str],
    into: str | os.PathLike[str] | None = ...,
    file: str | os.PathLike[str] | None = ...,
    quiesce: Quiesce | Word = ...,
    allow: Collection[Guard] = ...,
    journal: Journal | None = ...,
) -> tuple[Result, ...]: ...


def create(
    guest: Guest,
    disk: str,
    snapshot: str | None = None,
    *,
    also: Sequence[str] | None = None,
    into: str | os.PathLike[str] | None = None,
    file: str | os.PathLike[str] | None = None,
    quiesce: Quiesce | Word = "never",
    allow: Collection[Guard] = (),
    journal: Journal | None = DEFAULT,
) -> Result | tuple[Result, ...]:
    """
    Take a snapshot of a disk, or of several at one moment.

    What the guest writes from now on goes to a new file, `<volume>.<snapshot>`, beside the active
    one. It is refused where a folder does not keep files (`/dev`, with a block device).

    Args:
        guest: From `connect`, `connect_qmp` or `from_domain`.
        disk: Target (`vda`), serial, device id or node name.
        snapshot: Its name; None: the time of day (`default_name`).
        also: More disks: all of them, or none.
        into: Another folder for the new files.
        file: Another path for the new file, of one disk.
        quiesce: Whether to freeze the guest's filesystems for the moment: `never`; `try`, which
            without an agent makes do with a crash-consistent snapshot and says so in `notes`;
            `require`, which then takes none. A `Quiesce` says how long that may take as well.
        allow: Guards that do not count.
        journal: Where it is written down before it is done, for `qmpsnap resume`; None: nowhere,
            and the notes say so.

    Returns:
        What was done. With `also`, one result for each disk, `disk` first.

    Raises:
        Refused: Nothing was touched. `JournalUnusable`: it could not be written down.
        Failed: It could not be done, and every chain is as it was; or the snapshot is there, and is
            not as it was asked for (`NotConsistent`, `NotThawed`).
        Unknown: The connection broke before the outcome could be seen.
    """
    requests = create_requests([disk, *(also or ())], snapshot, into=into, file=file)
    done = created(journal, guest, tuple(requests), quiesce_as(quiesce), allow=allow)
    return done[0] if also is None else done


def create_requests(
    disks: Sequence[str],
    snapshot: str | None,
    *,
    into: str | os.PathLike[str] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> list[CreateRequest]:
    """
    What `create` asks for; a relative `into` or `file` counts from the current folder.

    Raises:
        BadFileName: `into` or `file` cannot be what it should be, or both are given.
    """
    name = snapshot if snapshot is not None else default_name()
    folder, new_file = None if into is None else os.fspath(into), None
    if file is not None:
        path = os.fspath(file)
        if folder is not None:
            raise BadFileName("file", path, "the folder is given as well")
        folder, bare = os.path.split(path)
        folder, new_file = folder or ".", checked_name("file", bare)
    if folder is not None:
        folder = os.path.join(os.getcwd(), checked_folder("folder", folder))
    return [
        CreateRequest(disk=disk, new_file=new_file, snapshot=name, into=folder) for disk in disks
    ]


def delete(
    guest: Guest,
    disk: str,
    snapshot: str,
    *,
    method: Method = "auto",
    remove_file: bool = False,
    options: MergeOptions = DEFAULT_OPTIONS,
    allow: Collection[Guard] = (),
    verify: bool = False,
    progress: Progress | None = None,
    notices: Notices | None = None,
    journal: Journal | None = DEFAULT,
) -> Result:
    """
    Delete a snapshot of a disk. The guest keeps what it sees.

    Args:
        guest: From `connect`, `connect_qmp` or `from_domain`.
        disk: Target (`vda`), serial, device id or node name.
        snapshot: Its name, or that of its overlay.
        method: `commit`: the newer data goes down into the older file. `pull` (newest snapshot
            only): the older data comes up into the active file. `auto`: commit, unless a pull
            moves much less.
        remove_file: Whether to remove the files that left the chain, as far as they lie in the
            active file's folder and nobody uses them.
        options: Bandwidth, time limit, and what the job does on an error.
        allow: Guards that do not count.
        verify: Whether to compare what is read before and after.
        progress: Called at every look at the job.
        notices: Called with what is worth saying while the job runs.
        journal: As for `create`.

    Raises:
        Refused: Nothing was touched. `JournalUnusable`: it could not be written down.
        Failed: The job failed, and the chain is as it was; or the chain is not as it should be.
        Unknown: Ctrl-C (`Interrupted`) or a lost connection: a job that goes on is taken up by the
            same call.
    """
    return deleted(
        journal,
        guest,
        NamedDeleteRequest(disk=disk, snapshot=snapshot, method=method),
        progress,
        options=options,
        tell=notices,
        allow=allow,
        verify=verify,
        remove=remove_file,
    )


def revert(
    guest: Guest,
    disk: str,
    snapshot: str,
    *,
    also: Sequence[str] = (),
    name: str | None = None,
    allow: Collection[Guard] = (),
    journal: Journal | None = DEFAULT,
) -> tuple[Result, ...]:
    """
    Let a disk of a guest that is off go back to a snapshot, or several to the snapshots of one name.

    The disk gets a new, empty file over what it held at the snapshot. Nothing else is written: what
    it has held until now stays in its files (`Result.kept`), and counts as a reader of what lies
    below as long as these are there.

    Args:
        guest: From `connect` or `from_domain`.
        disk: Target (`vda`) or serial.
        snapshot: Its name, or that of its overlay.
        also: More disks: all of them, or none.
        name: Name of the new snapshot, which the disk is at then; None: `snapshot`, and the time.
        allow: Guards that do not count.
        journal: As for `create`.

    Returns:
        What was done: one result for each disk, `disk` first.

    Raises:
        Refused: Nothing was touched. `GuestRuns`: the guest is not off.
        Failed: It could not be done, and every chain is as it was.
    """
    requests = tuple(revert_requests([disk, *also], snapshot, name))
    return created(journal, guest, requests, allow=allow)


def revert_requests(
    disks: Sequence[str], snapshot: str, name: str | None = None
) -> list[CreateRequest]:
    """What `revert` asks for."""
    new = name if name is not None else name_after(snapshot, default_name())
    return [CreateRequest(disk=disk, new_file=None, snapshot=new, over=snapshot) for disk in disks]


class NothingToSnapshot(Refused):
    """The guest has no disk that it can write."""

    msg = "{self.guest} has no disk that it can write"
    remedy = "See `qmpsnap disks`: an empty drive, and what is read-only, gets no snapshot."

    guest: str


def writable(guest: Disks) -> tuple[str, ...]:
    """
    The disks of a guest that it can write, by name: what a snapshot of all disks is of.

    No drives for media, no devices of the host that are passed through (`lun`), and no flash memory:
    its settings are not part of a snapshot.

    Raises:
        NothingToSnapshot: There is none.
    """
    found = tuple(
        one.disk for one in guest.disks if one.kind == "disk" and one.layers and not one.read_only
    )
    if not found:
        raise NothingToSnapshot(guest.guest or "the guest")
    return found


def default_name() -> str:
    """A name from the clock (UTC), sortable: `20261122-231500`."""
    return datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%d-%H%M%S")
