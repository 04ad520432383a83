"""The part of a driver that proves what compute says, and does what follows from it."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import Any

from cinder import exception

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.ledger.chain import ChainUnknown, holder
from qmpsnap.ledger.judge import Accepted
from qmpsnap.ledger.machine import State
from qmpsnap.ledger.named import words
from qmpsnap.ledger.snapshots import are_headers_enough
from qmpsnap.ledger.values import File, Kind, Operation, Place, Update
from qmpsnap.openstack.cinder import info
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import UNFINISHED, ledger_id

log = logging.getLogger(__name__)


def _by_the_headers(operation: Operation) -> Update:
    """What the headers say in compute's place, of this very operation."""
    return Update(
        volume=operation.volume,
        snapshot=operation.snapshot,
        status="deleting",
        progress="90%",
        operation=operation.token,
        is_service=True,
        by="the headers",
    )


class NotProven(exception.RemoteFSException):  # type: ignore[misc]
    """Compute says that it is done, and the files say that it is not."""


class Concluding(Family):  # type: ignore[misc]
    """Records, proves, writes `.info` and rows, removes, settles."""

    _books: Books | None
    _shown: dict[str, float]
    """When the headers were first seen to show an operation as done, by its token."""

    def _conclude(self: Any, snapshot: Any, operation: Operation) -> None:
        """
        Do all that follows from an operation that has succeeded. May be called again.

        Record, then `.info` and Cinder's rows, then the file that has gone, then settle: killed in
        between, the start of the service does the rest.
        """
        volume = snapshot.volume
        for one in self._books.run(lambda ledger: ledger.record(operation.token)):
            level = logging.CRITICAL if one.is_alarm else logging.WARNING
            log.log(
                level,
                "compute says that %s is %s, it must be %s: not believed (qmpsnap ledger show %s%s)",
                one.said.file, one.said.format, one.known.format, operation.volume,
                words(),
            )  # fmt: skip
        if operation.kind is not Kind.NOTHING:
            path = self._local_path_volume_info(volume)
            before = self._read_info_file(path, empty_if_missing=True)
            if operation.kind is Kind.CREATE or before:
                self._write_info_file(path, info.after(before, operation))
            self._follow_metadata(volume)
            self._follow_attachments(volume)
        self._books.run(lambda ledger: ledger.finish(operation.token))
        if operation.kind in (Kind.COMMIT, Kind.PULL):
            self._remove(volume, str(operation.file))

    def _take(self: Any, snapshot: Any, operation: Operation) -> None:
        """
        Conclude what is done, once it is proven.

        Raises:
            NotProven: Compute says that it is done, and it is not.
        """
        if operation.kind in (Kind.COMMIT, Kind.PULL):
            self._prove(snapshot.volume, operation)
        self._conclude(snapshot, operation)

    def _remove(self: Any, volume: Any, file: str) -> None:
        """
        Remove a file that has left the chain.

        The ledger is told after it: killed in between, the start of the service removes it again.
        """
        key = ledger_id(volume)

        def held(ledger: Any) -> tuple[File | None, str | None]:
            known = ledger.file(key, file)
            if known is None or known.place is not Place.LEFT:
                return None, None
            try:
                chain = ledger.chain(key)
            except ChainUnknown:  # `holder` says so
                chain = None
            return known, holder(known, chain, ledger.open_operations(volume=key))

        known, reason = self._books.look(held)
        if known is not None and reason is None:
            reason = self._holder_on_share(volume, file)
        if known is None or reason is not None:
            log.info("%s of volume %s is not removed: %s", file, key, reason or "it may be in use")
            return
        folder = self._local_volume_dir(volume)
        self._delete(os.path.join(folder, file))
        self._remove_unfinished(os.path.join(folder, file))
        with suppress(OSError):
            sync_folder(folder)
        self._books.run(lambda ledger: ledger.removed(key, file))

    def _remove_unfinished(self: Any, path: str) -> None:
        """Remove what was to take the place of a file, by a write or a revert that was killed."""
        if os.path.exists(path + UNFINISHED):
            self._delete(path + UNFINISHED)

    def _follow_attachments(self: Any, volume: Any) -> None:
        """What Nova starts the guest by the next time."""
        active: File = self._books.chain(ledger_id(volume)).active
        for one in volume.volume_attachment or ():
            told = dict(one.connection_info or {})
            wanted = {"name": active.file, "format": str(active.format)}
            if told and any(told.get(key) != value for key, value in wanted.items()):
                one.connection_info = told | wanted
                one.save()

    def _was_done_before(self: Any, volume: Any, operation: Operation) -> bool:
        """
        Whether the headers show that an earlier operation, which counts as failed, was done.

        Stock Nova asked again for what it has done already fails; its first answer may have been
        lost with the process that it was for.
        """
        standing = self._books.standing(operation.snapshot)
        if standing is None or standing.state is not State.DELETING:
            return False  # compute has been asked already, and is asked again
        above, named = self._named_above(volume, operation)
        if above is None or named == operation.file:
            return False
        log.warning("%s is backed by %s already: compute is not asked", above, named)

        def work(ledger: Any) -> None:
            ledger.hand_over(operation.token)
            ledger.accept(_by_the_headers(operation))

        self._books.run(work)
        return True

    def _is_shown_done(self: Any, volume: Any, operation: Operation) -> bool:
        """
        Whether the headers show an operation as done of which several calls may be at work.

        While nobody has answered, ours is given the time to; see `are_headers_enough`.
        """
        try:
            above, named = self._named_above(volume, operation)
        except (BadHeader, OSError):
            return False  # not to be read now
        if above is None or named == operation.file:
            return False
        standing = self._books.standing(operation.snapshot)
        since = self._shown.setdefault(operation.token, time.monotonic())
        if not are_headers_enough(standing.why, time.monotonic() - since):
            return False
        del self._shown[operation.token]
        log.info("%s is backed by %s: snapshot %s is done", above, named, operation.snapshot)
        verdict = self._books.run(lambda ledger: ledger.accept(_by_the_headers(operation)))
        return isinstance(verdict, Accepted)

    def _named_above(self: Any, volume: Any, operation: Operation) -> tuple[str | None, str | None]:
        """The file above the one that is to go, and the backing file that its header names."""
        chain = self._books.look(lambda ledger: ledger.chain(operation.volume))
        above = chain.above(str(operation.file))
        if above is None:
            return None, None
        backing = self._header(
            os.path.join(self._local_volume_dir(volume), above.file)
        ).backing_file
        return above.file, None if backing is None else os.path.basename(backing)

    def _prove(self: Any, volume: Any, operation: Operation) -> None:
        """
        See that the file that is to go is named by no header any more.

        QEMU writes the header of the file above when its job has ended well. Stock Nova reports
        success of a job that failed or was aborted (it only sees that there is no job), and what
        is removed then was the guest's only copy.

        Raises:
            NotProven: A header names it still. Nothing is removed.
        """
        try:
            above, named = self._named_above(volume, operation)
        except (BadHeader, OSError) as error:
            self._give_back(operation, str(error))
            raise NotProven(f"snapshot {operation.snapshot}: {error}") from error
        if named is not None and named == operation.file:
            why = (
                f"compute reports success, and {above} is still backed by {named}: its job did "
                "not do what it was for"
            )
            self._give_back(operation, why)
            raise NotProven(f"snapshot {operation.snapshot}: {why}. Nothing was removed.")

    def _give_back(self: Any, operation: Operation, why: str) -> None:
        log.error("snapshot %s: %s", operation.snapshot, why)
        with suppress(QmpsnapError):
            self._books.run(lambda ledger: ledger.disprove(operation.token, why))
