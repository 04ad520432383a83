"""
An operation with a journal: written down before it is done, and concluded once.

    open the journal ─► plan ─► (intent ─► act)* ─► conclusion

One that breaks off in a state that is not known, or not safe, stays open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from qmpsnap.errors import Failed, Refused
from qmpsnap.journal.door import Recorder
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Outcome, Request, Wishes, conclusion_of
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import Guest, NotFlushed
from qmpsnap.operations.job.loop import Tell
from qmpsnap.operations.merge import Progress
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import ChainUnexpected, HeaderWrong, Result, XmlBehind
from qmpsnap.operations.quiesce import NEVER, Quiesce
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest

WITHOUT: Final = (
    "no journal was kept: after a crash, `qmpsnap resume` would not have known of this operation"
)
_STAYS_OPEN: Final = (NotFlushed, XmlBehind, HeaderWrong, ChainUnexpected)
"""What has to be settled before anything else is done."""

Begins = Callable[[snapshot.Prepared | merge.Prepared], object]
Work = Callable[[Guest, Begins | None], Sequence[Result]]


def created(
    journal: Journal | None,
    guest: Guest,
    requests: tuple[CreateRequest, ...],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
    token: str | None = None,
) -> tuple[Result, ...]:
    """
    Take a snapshot, and write it down; see `snapshot.create_all`.

    Raises:
        JournalUnusable: It could not be written down; nothing was touched.
        QmpsnapError: As `create_all`.
    """

    def work(host: Guest, begins: Begins | None) -> Sequence[Result]:
        return snapshot.create_all(host, requests, quiesce, allow=allow, begins=begins)

    return _kept(journal, guest, requests, Wishes(allow=tuple(allow)), token, work)


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
) -> Result:
    """
    Delete a snapshot, and write it down; see `merge.delete`.

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
            begins=begins,
        )
        return (done,)

    wishes = Wishes(options=options, allow=tuple(allow), remove=remove)
    (done,) = _kept(journal, guest, request, wishes, token, work)
    return done


def _kept(
    journal: Journal | None,
    guest: Guest,
    request: Request,
    wishes: Wishes,
    token: str | None,
    work: Work,
) -> tuple[Result, ...]:
    if journal is None:
        return tuple(replace(one, notes=(*one.notes, WITHOUT)) for one in work(guest, None))
    with journal.opened() as store:
        recorder = Recorder(guest, store, request, wishes, token=token)
        try:
            done = work(recorder, recorder.begins)
        except BaseException as error:
            outcome = outcome_of(error)
            if outcome is not None:
                recorder.concludes(conclusion_of(outcome, time.time(), error=error))
            raise
        recorder.concludes(conclusion_of("finished", time.time(), done))
    id_ = recorder.record.id if recorder.record is not None and recorder.has_begun else None
    return tuple(
        replace(one, operation=id_, notes=(*one.notes, *dict.fromkeys(recorder.notes)))
        for one in done
    )


def outcome_of(error: BaseException) -> Outcome | None:
    """What an operation came to that broke off; None: it stays open."""
    if isinstance(error, Refused):
        return "rolled-back"  # what was done before was taken back
    if isinstance(error, Failed) and not isinstance(error, _STAYS_OPEN):
        return "failed"
    return None
