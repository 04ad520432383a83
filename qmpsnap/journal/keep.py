"""
An operation with a journal: written down before it is done, and concluded once.

    open the journal ─► plan ─► (intent ─► act)* ─► conclusion

One that breaks off in a state that is not known, or not safe, stays open.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from msgspec.structs import replace

from qmpsnap.errors import Failed, QmpsnapError, Refused
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.journal.door import Recorder
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import held
from qmpsnap.journal.knowing import knowing
from qmpsnap.journal.known_again import in_its_names
from qmpsnap.journal.left_over import left_over_among
from qmpsnap.journal.markers import check_unmarked, open_operation
from qmpsnap.journal.outlook import Way, outlook
from qmpsnap.journal.plugged import whose
from qmpsnap.journal.record import (
    Conclusion,
    Entry,
    Outcome,
    Request,
    Wishes,
    conclusion_of,
    works_on,
)
from qmpsnap.journal.resume import Settled, settle
from qmpsnap.journal.store import Store
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.clear import cleared_alone
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import Guest, NotFlushed
from qmpsnap.operations.job.loop import Tell
from qmpsnap.operations.merge import Progress
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import ChainUnexpected, HeaderWrong, Result, XmlBehind
from qmpsnap.operations.plan_snapshot import AlreadyActive
from qmpsnap.operations.quiesce import NEVER, Quiesce
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.where import Where, where_of

WITHOUT: Final = (
    "no journal was kept: after a crash, `qmpsnap resume` would not have known of this operation"
)
_FORGOTTEN: Final = "no journal was kept: later merges will not know what it keeps, and may write what that lies over"
_STAYS_OPEN: Final = (NotFlushed, XmlBehind, HeaderWrong, ChainUnexpected)
"""What has to be settled before anything else is done."""


class UnderWay(DiskLocked):
    """Another process is at work on the very same request."""

    remedy = "Wait for that one: it tells what comes of it."


Prepared = snapshot.Prepared | merge.Prepared
Begins = Callable[[Prepared], object]
Work = Callable[[Guest, Begins | None], Sequence[Result]]


def answered(
    journal: Journal | None, guest: Guest, request: Request, token: str | None
) -> Conclusion | None:
    """
    What a caller's operation came to that is finished: whoever asks again has lost the answer.

    A caller's token may have been used for another guest, so the chain is looked at first: this is
    for a request that it refuses as done.

    Raises:
        JournalUnusable: The journal cannot be read.
    """
    store = None if journal is None or token is None else journal.looked_into()
    if store is None or token is None:
        return None
    where = where_of(guest)
    with store:
        ends = [
            one.conclusion
            for one in store.by_token(token)
            if one.record.request == request and _is_same_guest(one.record.where, where)
        ]
    return next((end for end in ends if end is not None and end.outcome == "finished"), None)


def created(
    journal: Journal | None,
    guest: Guest,
    requests: tuple[CreateRequest, ...],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
    token: str | None = None,
    letter: str | None = None,
    check: Begins | None = None,
) -> tuple[Result, ...]:
    """
    Take a snapshot, and write it down; see `snapshot.create_all`.

    `check` is called with the plan before its first act, and may refuse it.

    Raises:
        JournalUnusable: It could not be written down; nothing was touched.
        QmpsnapError: As `create_all`.
    """

    def work(host: Guest, begins: Begins | None) -> Sequence[Result]:
        begins = _checked(check, begins)
        return snapshot.create_all(host, requests, quiesce, allow=allow, begins=begins)

    return _kept(journal, guest, requests, Wishes(allow=tuple(allow)), token, letter, work)


def deleted(
    journal: Journal | None,
    guest: Guest,
    request: DeleteRequest | NamedDeleteRequest,
    progress: Progress | None = None,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    tell: Tell | None = None,
    allow: Collection[Guard] = (),
    verify: bool = False,
    remove: bool = False,
    token: str | None = None,
    letter: str | None = None,
    check: Begins | None = None,
) -> Result:
    """
    Delete a snapshot, and write it down; see `merge.delete`.

    `check` is called with the plan before its first act, and may refuse it.

    Raises:
        JournalUnusable: It could not be written down; nothing was touched.
        QmpsnapError: As `merge.delete`.
    """

    def work(host: Guest, begins: Begins | None) -> Sequence[Result]:
        done = merge.delete(
            host,
            request,
            progress,
            options=options,
            tell=tell,
            allow=allow,
            verify=verify,
            remove=remove,
            begins=_checked(check, begins),
        )
        return (done,)

    wishes = Wishes(options=options, allow=tuple(allow), remove=remove)
    (done,) = _kept(journal, guest, request, wishes, token, letter, work)
    return done


def _checked(check: Begins | None, begins: Begins | None) -> Begins | None:
    """Check a plan, then go on."""
    if check is None or begins is None:
        return check or begins

    def both(ready: Prepared) -> None:
        check(ready)
        begins(ready)

    return both


def _kept(
    journal: Journal | None,
    guest: Guest,
    request: Request,
    wishes: Wishes,
    token: str | None,
    letter: str | None,
    work: Work,
) -> tuple[Result, ...]:
    if journal is None:
        return tuple(
            replace(one, notes=(*one.notes, WITHOUT, *([_FORGOTTEN] if one.kept else [])))
            for one in work(guest, partial(_check_unmarked, remove=wishes.remove))
        )
    with journal.opened() as store:
        try:
            return _written_down(journal, store, guest, request, wishes, token, letter, work)
        except DiskLocked as error:
            raise _told_apart(store, guest, request, letter, error) from error


def _written_down(
    journal: Journal,
    store: Store,
    guest: Guest,
    request: Request,
    wishes: Wishes,
    token: str | None,
    letter: str | None,
    work: Work,
) -> tuple[Result, ...]:
    goes_on, finished = _settled_before(journal, store, guest, request)
    if finished:
        return finished
    guest = knowing(guest, store)  # what that has kept, left and mixed too
    if goes_on is not None and letter is not None:
        store.letters.join(letter, goes_on.record.id, time.time())
    with ExitStack() as stack:
        recorder = Recorder(
            guest,
            store,
            request,
            wishes,
            token=token,
            letter=letter,
            goes_on=goes_on,
            hold=lambda id_: stack.enter_context(held(journal.opened_folder, id_)),
            others=store.open_entries(),
        )
        try:
            done = work(recorder, recorder.begins)
        except BaseException as error:
            outcome = outcome_of(error)
            if letter is not None and _may_be_done(error):
                outcome = None  # it must not be told as a failure: `resume` tells
            if outcome is not None and recorder.has_begun:
                recorder.unmark()
                is_undone = isinstance(error, QmpsnapError) and error.changed == "no"
                end = conclusion_of(outcome, time.time(), error=error)
                recorder.concludes(end, is_undone=is_undone)
                recorder.tell(error)
            else:
                recorder.stays_open()
            raise
        recorder.unmark()
        recorder.concludes(conclusion_of("finished", time.time(), done))
    id_ = recorder.record.id if recorder.record is not None and recorder.has_begun else None
    return tuple(
        replace(one, operation=id_, notes=(*one.notes, *dict.fromkeys(recorder.notes)))
        for one in done
    )


def _told_apart(
    store: Store, guest: Guest, request: Request, letter: str | None, error: DiskLocked
) -> DiskLocked:
    """Whether it is this very request that somebody is at work on; what comes of it answers both."""
    where = where_of(guest)
    for one in store.open_entries():
        # Of one QEMU with two sockets the file tells that it is the same guest.
        is_same = error.path in one.record.paths or _is_same_guest(one.record.where, where)
        if one.record.request == request and is_same:
            if letter is not None:
                store.letters.join(letter, one.record.id, time.time())
            return UnderWay(error.path, error.who)
    return error


def _check_unmarked(ready: snapshot.Prepared | merge.Prepared, *, remove: bool) -> None:
    """What is asked without a journal too."""
    plans = ready.plans if isinstance(ready, snapshot.Prepared) else (ready.plan,)
    paths = (path for plan in plans for path in plan.disk.paths if path is not None)
    check_unmarked(paths, works_on(plans, remove=remove))


def _settled_before(
    journal: Journal, store: Store, guest: Guest, request: Request
) -> tuple[Entry | None, tuple[Result, ...]]:
    """
    Settle what is open on the disks of a request, as far as that needs no waiting.

    Returns:
        The operation that the request takes up again, whose job still runs; or the results of one
        that was asked for in the same words, and is finished by now.

    Raises:
        OperationOpen: One is open, and cannot be settled now.
    """
    where = where_of(guest)
    mine = [one for one in store.open_entries() if _is_same_guest(one.record.where, where)]
    if not mine:
        return None, ()
    asked = request if isinstance(request, tuple) else (request,)
    disks = cleared_alone(guest, [one.disk for one in asked]).disks
    for entry in mine:
        record = entry.record
        called = in_its_names(record, disks)
        if not record.own & {path for one in asked for path in called.disk(one.disk).paths}:
            continue
        same = record.request == request
        found = outlook(entry, guest, partial(left_over_among, store))
        if found.way is Way.ADOPT and same:
            return entry, ()
        if found.way in (Way.ADOPT, Way.UNKNOWN):
            raise open_operation(record, found.why)
        settled = settle(journal, entry, guest)
        if settled.outcome == "unknown":
            raise open_operation(record, "; ".join(settled.notes))
        if same and settled.outcome == "finished":
            return None, _done_by(settled, guest)
    return None, ()


def _done_by(settled: Settled, guest: Guest) -> tuple[Result, ...]:
    """What the request came to that had been interrupted; nobody has acted on a guest that is off."""
    record = settled.record
    results = settled.results
    if not results:
        disks = guest.read()
        left = record.merge.dropped if record.merge is not None and record.wishes.remove else ()
        kept = (f"{one.path} was not removed" for one in left if os.path.lexists(one.path))
        notes = (*settled.notes, *kept)
        theirs = [disk for disk in whose(record, disks) if disk is not None]
        results = tuple(_result(disk, settled, notes) for disk in theirs)
    note = f"operation {record.id} had been interrupted; this has finished it"
    return tuple(replace(one, notes=(*one.notes, note)) for one in results)


def _result(disk: Disk, settled: Settled, notes: tuple[str, ...]) -> Result:
    here = {layer.file for layer in disk.layers}
    formats = {name: one for name, one in settled.file_format.items() if name in here}
    return Result(disk=disk, file_format=formats, notes=notes, operation=settled.record.id)


def _is_same_guest(one: Where, other: Where) -> bool:
    """Whether two ways may lead to one guest; one may have been off."""
    return one.guest == other.guest and (one.at == other.at or one.guest is not None)


def _may_be_done(error: BaseException) -> bool:
    """Whether what was asked for may be there all the same; see `QmpsnapError.stands`."""
    return isinstance(error, AlreadyActive) or (isinstance(error, QmpsnapError) and error.stands)


def outcome_of(error: BaseException) -> Outcome | None:
    """What an operation came to that broke off; None: it stays open."""
    if isinstance(error, Refused):
        return "rolled-back"  # what was done before was taken back
    if isinstance(error, Failed) and not isinstance(error, _STAYS_OPEN):
        return "failed"
    return None
