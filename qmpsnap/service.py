"""
Nova's two calls, for whoever has to tell the volume service: each ends in exactly one update.

    outcome                                     create          delete            progress
    done                                        creating_…      deleting_…        90%
    refused, failed, the guest not reached      error           error_deleting    0%
    not known (`Unknown`, an unforeseen error   creating        deleting          0%
    after the work had begun); a snapshot that
    is there, and not as it should be

A guest that cannot be reached is a failure, since nothing was sent to it; a connection that breaks
later is an `Unknown`. That one is never told as an error: a create may have been carried out, and a
volume service that takes it for failed would go on with the old file, while the guest writes to the
new one. It is settled by the same call, given again. The same holds of a snapshot that is there
and not as it should be (`QmpsnapError.stands`), or that is asked for again (`AlreadyActive`,
`UnderWay`); its error says what to do.

With an `Addressee` the update is a letter in the journal's database, which `delivery` sends until it
is accepted. It is due before anything is looked at, and gets its content in the transaction that
concludes the operation; while the operation is open, there is nothing to tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import msgspec

from qmpsnap import status
from qmpsnap.errors import QmpsnapError, Unknown
from qmpsnap.journal.expected import Expected, expected
from qmpsnap.journal.file import DEFAULT, Journal
from qmpsnap.journal.folder import JournalUnusable
from qmpsnap.journal.keep import UnderWay, answered, created, deleted
from qmpsnap.journal.letter import Addressee, Content, Due, Letter
from qmpsnap.journal.record import Conclusion, Request
from qmpsnap.journal.resume import Settled
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.loop import Tell as Notices
from qmpsnap.operations.merge import Progress
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import NothingToPull, NotInChain
from qmpsnap.operations.plan_snapshot import AlreadyActive
from qmpsnap.operations.quiesce import Quiesce, Word, quiesce_as
from qmpsnap.operations.requests import (
    BadRequest,
    DeleteRequest,
    create_request,
    create_token,
    delete_request,
    delete_token,
)
from qmpsnap.status import Dialect, Operation

log = logging.getLogger(__name__)

GuestOrOpener = Guest | Callable[[], AbstractContextManager[Guest]]
"""A guest; or what opens one for the length of the call, so that a guest that cannot be reached is
told of as well."""


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What the volume service is to be told of one operation."""

    body: Mapping[str, object]
    """Of the request `POST /snapshots/ID/action`: `{"os-update_snapshot_status": {…}}`."""
    result: Result | None = None
    """What was done; None where it was not, is not known to be, or was by an earlier call."""
    error: BaseException | None = None
    """Why there is no result."""
    letter: str | None = None
    """The letter in the journal that tells it; None: it has no addressee, or could not be written
    down."""
    unstored: Letter | None = None
    """The letter that could not be written down: to be sent at once, or nobody is told."""


Tell = Callable[[Update], object]


def volume_snapshot_create(
    guest: GuestOrOpener,
    volume_id: str,
    create_info: Mapping[str, object],
    *,
    quiesce: Quiesce | Word = "never",
    allow: Collection[Guard] = (),
    dialect: Dialect | str = Dialect.SPEC,
    tell: Tell | None = None,
    journal: Journal | None = DEFAULT,
    addressee: Addressee | None = None,
) -> Update:
    """
    Take a snapshot with Nova's arguments.

    Args:
        guest: The guest, or what opens it.
        volume_id: Serial of the disk, which is where Nova puts it; or another of its names.
        create_info: `{"type": "qcow2", "new_file": NAME, "snapshot_id": ID}`, with `"id"` the
            caller's token for this operation.
        quiesce: Whether to freeze the guest's filesystems for the moment; `never`, `try`, `require`, or
            a `Quiesce`.
        allow: Guards that do not count.
        dialect: `spec` or `legacy`.
        tell: Called with the update, exactly once, before this returns or raises.
        journal: Where it is written down before it is done, by the caller's token where there is
            one; None: nowhere, and the notes say so.
        addressee: Who waits for the update; it is stored until it has been accepted. Needs a journal.

    Returns:
        The update, of a failure as well: its `error` says why. Errors are not raised.

    Raises:
        BaseException: Ctrl-C, or what else is to end the thread (`SystemExit`, `GreenletExit`), as
            itself or as the `Unknown` that was made of it. `tell` has had the update.
    """

    def work(call: _Call) -> None:
        request, quiescence = create_request(volume_id, create_info), quiesce_as(quiesce)
        asked = call.request = (request,)
        with call.opened(guest, asked) as host, call.answering(journal, host, asked):
            (call.result,) = created(
                journal,
                host,
                (request,),
                quiescence,
                allow=allow,
                token=call.token,
                letter=call.letter_id,
            )

    call = _Call(Operation.CREATE, lambda: create_token(create_info), journal, addressee)
    return _told(call, dialect, work, tell)


def volume_snapshot_delete(
    guest: GuestOrOpener,
    volume_id: str,
    snapshot_id: str,
    delete_info: Mapping[str, object],
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    allow: Collection[Guard] = (),
    verify: bool = False,
    dialect: Dialect | str = Dialect.SPEC,
    tell: Tell | None = None,
    progress: Progress | None = None,
    notices: Notices | None = None,
    journal: Journal | None = DEFAULT,
    addressee: Addressee | None = None,
) -> Update:
    """
    Delete a snapshot with Nova's arguments. No file is removed: the volume service does that.

    Args:
        guest: The guest, or what opens it.
        volume_id: Serial of the disk, which is where Nova puts it; or another of its names.
        snapshot_id: Not empty; it is used for nothing else.
        delete_info: `{"type": "qcow2", "file_to_merge": NAME | None, "merge_target_file": NAME |
            None}`, with `"operation"` the caller's token.
        options: Bandwidth, time limit, and what the job does on an error.
        allow: Guards that do not count.
        verify: Whether to compare what is read before and after.
        dialect: `spec` or `legacy`.
        tell: Called with the update, exactly once, before this returns or raises.
        progress: Called at every look at the job.
        notices: Called with what is worth saying while the job runs.
        journal: As for `volume_snapshot_create`.
        addressee: As there.

    Returns:
        The update, of a failure as well: its `error` says why. Errors are not raised.

    Raises:
        BaseException: As `volume_snapshot_create`. The job goes on in QEMU.
    """

    def work(call: _Call) -> None:
        request = call.request = delete_asked(volume_id, snapshot_id, delete_info)
        with call.opened(guest, request) as host, call.answering(journal, host, request):
            call.result = deleted(
                journal,
                host,
                request,
                progress,
                options=options,
                tell=notices,
                allow=allow,
                verify=verify,
                token=call.token,
                letter=call.letter_id,
            )

    call = _Call(Operation.DELETE, lambda: delete_token(delete_info), journal, addressee)
    return _told(call, dialect, work, tell)


def resumed(settled: Settled, dialect: Dialect = Dialect.SPEC) -> Mapping[str, object]:
    """Return the body of the update for an operation that `resume` has looked at."""
    record = settled.record
    is_merge = record.kind not in ("create", "revert")
    operation = Operation.DELETE if is_merge else Operation.CREATE
    if settled.outcome == "unknown":
        return status.running(operation, dialect, record.token)
    if settled.file_format:
        return status.success(operation, settled.file_format, dialect, record.token)
    return status.failure(operation, dialect, record.token)


def refused(operation: Operation, error: BaseException) -> Update:
    """Return the update of a call that was not made, as its arguments could not be read."""
    return Update(body=status.failure(operation), error=error)


def delete_asked(
    volume_id: str, snapshot_id: str, delete_info: Mapping[str, object]
) -> DeleteRequest:
    """
    Parse the arguments of `volume_snapshot_delete`.

    Raises:
        BadRequest, BadFileName: See `delete_request`; or the snapshot's id is empty.
    """
    request = delete_request(volume_id, delete_info)
    if not snapshot_id:
        raise BadRequest("volume-snapshot-delete", "the snapshot id is empty", "an id")
    return request


class _Call:
    """How far a call has come."""

    def __init__(
        self,
        operation: Operation,
        token: Callable[[], str | None],
        journal: Journal | None,
        addressee: Addressee | None,
    ) -> None:
        if addressee is not None and journal is None:
            raise ValueError("an update is stored in the journal, and there is none")
        self.operation = operation
        self._read_token, self._journal, self._addressee = token, journal, addressee
        self.token: str | None = None
        self.due: Due | None = None
        self.request: Request | None = None
        self.letter: Expected | None = None
        self.began = False
        """Whether anything may have been sent to the guest."""
        self.result: Result | None = None
        self.before: Conclusion | None = None
        """What an earlier call came to that had the same token and asked for the same."""

    @property
    def letter_id(self) -> str | None:
        """The letter that is due for it."""
        return None if self.letter is None else self.letter.id

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Note who waits for the update, as long as the call lasts; with the token, if it is one."""
        bad: BadRequest | None = None
        try:
            self.token = self._read_token()
        except BadRequest as error:
            bad = error
        with ExitStack() as stack:
            if self._addressee is not None and self._journal is not None:
                self.due = Due(
                    kind=self.operation.value,
                    addressee=self._addressee,
                    token=self.token,
                    since=time.time(),
                )
                self.letter = stack.enter_context(expected(self._journal, self.due))
            if bad is not None:
                raise bad
            yield

    @contextmanager
    def answering(self, journal: Journal | None, guest: Guest, request: Request) -> Iterator[None]:
        """Take a refusal of what an earlier call has done for the answer that was lost."""
        try:
            yield
        except (AlreadyActive, NotInChain, NothingToPull):
            self.before = answered(journal, guest, request, self.token)
            if self.before is None:
                raise

    @property
    def formats(self) -> Mapping[str, str] | None:
        """What is to be reported of the files; None where it is not done."""
        done = self.result or self.before
        return None if done is None else done.file_format

    @contextmanager
    def opened(self, guest: GuestOrOpener, request: Request) -> Iterator[Guest]:
        """
        Use the guest, and see to its end where it is opened here; one call of a token at a time.

        Raises:
            UnderWay: Another one is at work; what comes of it answers both.
        """
        with ExitStack() as stack:
            if self.letter is not None and self.token is not None:
                other = stack.enter_context(self.letter.alone(self.token, request))
                if other is not None:
                    self.began = True  # by that one
                    raise UnderWay("the same request", f" (operation {other})")
            opened = stack.enter_context(guest() if callable(guest) else nullcontext(guest))
            self.began = True
            yield opened


def _told(
    call: _Call, dialect: Dialect | str, work: Callable[[_Call], None], tell: Tell | None
) -> Update:
    """Do the work, and tell what came of it, whatever that is."""
    spoken = Dialect.LEGACY
    problem: BaseException | None = None
    with ExitStack() as stack:
        try:
            spoken = Dialect(dialect)
            stack.enter_context(call.expected())
            work(call)
        except BaseException as error:
            problem = error
            if not isinstance(error, (QmpsnapError, KeyboardInterrupt)):
                log.exception("unforeseen, in a %s", call.operation)
        update = _update(call, spoken, problem)
    if tell is not None:
        tell(update)
    if problem is not None and _ends_more_than_the_call(problem):
        raise problem
    return update


def _update(call: _Call, dialect: Dialect, problem: BaseException | None) -> Update:
    content: Content | None = None
    if call.formats is not None:  # what came after it changes nothing any more
        content = Content(outcome="done", file_format=dict(call.formats))
    elif problem is None or not call.began or not _leaves_it_unknown(problem):
        content = Content(outcome="failed", why=None if problem is None else str(problem))
    letter = call.letter_id
    try:
        if call.letter is not None and call.request is not None and not call.began:
            call.letter.join(call.request)
        if call.letter is not None and not _answered(call.letter, content, problem):
            if call.formats is None:
                content = None
            else:  # its conclusion could not be written: whoever is told now is told again later
                letter = None
    except JournalUnusable:
        log.exception("the update of a %s is not stored", call.operation)
        letter = None
    if content is None:
        body = status.running(call.operation, dialect, call.token)
    elif content.outcome == "done":
        body = status.success(call.operation, content.file_format, dialect, call.token)
    else:
        body = status.failure(call.operation, dialect, call.token)
    error = None if call.formats is not None else problem
    unstored: Letter | None = None
    if call.due is not None and letter is None and content is not None:
        unstored = Letter(
            number=0, id="", due=call.due, state="waiting", content=content, changed=call.due.since
        )
    return Update(body=body, result=call.result, error=error, letter=letter, unstored=unstored)


def _answered(letter: Expected, content: Content | None, problem: BaseException | None) -> bool:
    """Give a letter its content; False: it is not known yet."""
    if content is not None:
        return letter.answer(content)
    if isinstance(problem, AlreadyActive):
        letter.give_up(f"{problem}. {problem.way_out}")
    return False


def _leaves_it_unknown(error: BaseException) -> bool:
    """Ctrl-C as such comes through before anything was begun; later it is made an `Unknown`."""
    if isinstance(error, QmpsnapError):
        return isinstance(error, (Unknown, AlreadyActive, UnderWay)) or error.stands
    return not isinstance(error, KeyboardInterrupt)


def _ends_more_than_the_call(error: BaseException) -> bool:
    """Whether it is Ctrl-C or the like, or an `Unknown` that stands for one."""
    ends = (error, error.__cause__, error.__context__)
    return any(one is not None and not isinstance(one, Exception) for one in ends)
