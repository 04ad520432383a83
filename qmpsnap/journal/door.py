"""
The door with a journal before it: what is going to be done is on disk before it is done.

Between a freeze and its thaw nothing is written: a disk that hangs would keep the guest frozen. The
intent of the switch is written with that of the freeze, and what thaws is not waited for.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.guests.files.door import FileFailed, StillNamed, take_file
from qmpsnap.journal.answers import DONE, FAILED
from qmpsnap.journal.folder import JournalUnusable
from qmpsnap.journal.identities import modified, seen_all
from qmpsnap.journal.kept import kept_by
from qmpsnap.journal.known_again import unnumbered, unnumbered_step
from qmpsnap.journal.left_over import elsewhere_in, left_by, left_over_among, needing, touched_by
from qmpsnap.journal.markers import check_unmarked, open_operation, resume_by, steps_for
from qmpsnap.journal.mixed import NOTE, may_have_begun, mixed_by
from qmpsnap.journal.record import (
    Act,
    Conclusion,
    Entry,
    Kind,
    Record,
    Request,
    Wishes,
    act_of,
    dumps,
    who,
    works_on,
)
from qmpsnap.journal.store import Store
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Composer, Files, Guest, Outline, SnapshotSteps, State
from qmpsnap.operations.job.states import Heard, JobReport, JobView
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.where import Where, where_of

BUSY_WITH: Final = frozenset(
    {
        Does.HOLD,
        Does.FORGET,
        Does.MAKE,
        Does.OPEN,
        Does.FREEZE,
        Does.SWITCH,
        Does.START,
        Does.COMMIT,
        Does.REDEFINE,
        Does.REMOVE,
    }
)
"""What leads on. Without its intent on disk it is not taken; what settles or takes back is."""
_PLAIN: Final = re.compile("[A-Za-z0-9_-]{1,64}")
"""What can be the name of a marker as well."""
_ANSWER: Final = 500
"""Characters that are kept of an answer."""


class Recorder:
    """A guest whose acts are written down. See `operations.guest.Guest`."""

    def __init__(
        self,
        guest: Guest,
        store: Store,
        request: Request,
        wishes: Wishes,
        *,
        token: str | None = None,
        letter: str | None = None,
        goes_on: Entry | None = None,
        hold: Callable[[str], object] | None = None,
        others: Collection[Entry] = (),
    ) -> None:
        """
        Write nothing yet.

        Args:
            guest: Who takes the acts.
            store: Where they are written down.
            request: What was asked for.
            wishes: How.
            token: The caller's name for the operation.
            letter: The letter that is due for it.
            goes_on: The operation that is gone on with; None: a new one.
            hold: Called with its id before it begins, to keep others off it.
            others: The open operations; on their files nothing is begun.
        """
        self._guest, self._store = guest, store
        self._asked = request, wishes, token
        self._letter = letter
        self._hold, self._others = hold, others
        self._name: str | None = None
        self.record = None if goes_on is None else goes_on.record
        """None before there is a plan."""
        self._is_written = goes_on is not None
        self._has_begun_job = goes_on is not None and may_have_begun(goes_on.acts)
        self._number = goes_on.acts[-1].number if goes_on is not None and goes_on.acts else 0
        self._steps: SnapshotSteps | None = None
        self._ahead: dict[str, int] = {}
        """Numbers of acts whose intent is written before their turn, by what they do."""
        self._waiting: list[Act] = []
        self._answers: list[tuple[int, str]] = []
        self._is_frozen = False
        self._mark_at: frozenset[Does] = frozenset()
        """Before which acts the markers have to be there."""
        self._notes: list[str] = []
        self._to_see_to: list[str] = []
        """What a person has to do about the end: the journal, or a marker, does not tell of it."""

    # --- the operation

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be written down."""
        return (*self._notes, *self._to_see_to)

    def tell(self, error: BaseException) -> None:
        """Have an error say what a person has to see to; a result has it in its notes."""
        for note in self._to_see_to:
            error.add_note(f"{note[0].upper()}{note[1:]}.")

    @property
    def has_begun(self) -> bool:
        """Whether anything of it is in the journal."""
        return self.record is not None and self._is_written

    def begins(self, ready: snapshot.Prepared | merge.Prepared) -> None:
        """Take note of the plan; it is written with the first act."""
        if isinstance(ready, snapshot.Prepared):
            self._steps = ready.steps
        if self.record is None:
            self.record = self._record_of(ready)
        self._check_free(self.record)
        if self._hold is not None:
            self._hold(self.record.id)
        if not self.record.where.is_offline:  # there nobody writes before the definition names it
            self._mark_at = _untold(ready)

    def _check_free(self, record: Record) -> None:
        for other in self._others:
            shared = other.record.paths & record.paths
            is_busy = shared & (other.record.own | record.own)
            if other.record.id != record.id and is_busy:
                reason = "it was begun, and has not been settled"
                raise open_operation(other.record, reason)
        # A marker of a new one's name is an earlier one's: a caller repeats its token, elsewhere too.
        check_unmarked(record.paths, record.own, but=record if self._is_written else None)

    def _record_of(self, ready: snapshot.Prepared | merge.Prepared) -> Record:
        request, wishes, token = self._asked
        creates: tuple[CreatePlan, ...] = ()
        plan: MergePlan | None = None
        made_here: tuple[bool, ...] = ()
        kind: Kind = "create"
        if isinstance(ready, snapshot.Prepared):
            creates = ready.plans
            kind = "revert" if any(one.kept for one in creates) else "create"
            made_here = tuple(not overlay.is_there for overlay in ready.overlays)
        else:
            plan, kind = ready.plan, ready.plan.kind
        plans = creates if plan is None else (plan,)
        layers = [layer for one in plans for layer in one.disk.layers]
        written = {one.disk.layers[0].path for one in plans}
        if plan is not None:
            written |= {one.path for one in (plan.written, plan.above, plan.base) if one}
        return Record(
            id=self._new_id(token),
            token=token,
            kind=kind,
            guest=self._name,
            where=where_of(self._guest),
            creating=request if isinstance(request, tuple) else (),
            deleting=request if isinstance(request, DeleteRequest) else None,
            deleting_named=request if isinstance(request, NamedDeleteRequest) else None,
            disks=tuple(one.disk.disk for one in plans),
            before={layer.file: layer.format for layer in layers},
            creates=unnumbered(creates),
            made_here=made_here,
            merge=unnumbered(plan),
            wishes=wishes,
            works_on=works_on(plans, remove=wishes.remove),
            files=seen_all(
                (layer.path, layer.format == "qcow2" and layer.path not in written)
                for layer in layers
            ),
            by=who(),
            host=platform.node(),
            begun=time.time(),
        )

    def _new_id(self, token: str | None) -> str:
        if token is not None and _PLAIN.fullmatch(token) and not self._store.has(token):
            return token
        return secrets.token_hex(16)

    def concludes(self, conclusion: Conclusion, *, is_undone: bool = False) -> None:
        """
        Write down what it came to; a journal that does not take it makes a note.

        Args:
            conclusion: What it came to.
            is_undone: Whether the chain certainly is the old one.
        """
        record = self.record
        if record is None or not self._is_written:
            return
        conclusion = replace(
            conclusion,
            elsewhere=elsewhere_in(record, conclusion.active),
            left=left_by(record, conclusion.outcome),
            touched=touched_by(record),
        )
        if conclusion.outcome == "finished":
            conclusion = replace(conclusion, kept=kept_by(record))
        mixed = mixed_by(record) if is_undone and self._has_begun_job else None
        if mixed is not None:
            note = NOTE.format(file=os.path.basename(mixed.into))
            conclusion = replace(conclusion, mixed=mixed, notes=(*conclusion.notes, note))
            self._notes.append(note)
        try:
            self._store.conclude(record, conclusion, self._answers, self._waiting)
        except JournalUnusable as error:
            self._to_see_to.append(
                f"what operation {record.id} came to could not be written down: {error}; "
                "`qmpsnap resume` will find it open"
            )

    def stays_open(self) -> None:
        """Write down what the last acts answered: there is no next intent to go with."""
        if self._is_written and self._answers:
            self._write(needed=False)

    # --- acts

    def take(self, step: Step) -> object:
        """
        See `Door.take`.

        Raises:
            JournalUnusable: Its intent could not be written, and it would lead on; not taken.
        """
        number = self._intend(step)
        is_start = step.does is Does.START
        try:
            answer = self._taken(step)
        except BaseException as error:
            is_start = is_start and not isinstance(error, CommandFailed | NotNow)
            self._answered(number, f"{FAILED}{type(error).__name__}: {error}")
            self._is_frozen = self._is_frozen and step.does is not Does.FREEZE
            raise
        finally:
            self._has_begun_job = self._has_begun_job or is_start
            if step.does is Does.THAW:
                self._is_frozen = False
        told = answer
        if step.does is Does.MAKE:
            told = None  # it has the number of a file system
        elif step.does is Does.CLOSE:
            told = self._last_written()
        self._answered(number, dumps(told) if told else DONE)
        return answer

    def _last_written(self) -> int | None:
        """When the uppermost file that a merge drops was: see `proven.as_it_was_closed`."""
        plan = None if self.record is None else self.record.merge
        return None if plan is None else modified(plan.top.path)

    def _taken(self, step: Step) -> object:
        try:
            return self._guest.take(step)
        except StillNamed as error:
            among = partial(left_over_among, self._store)
            if among(error.images) != error.images:
                raise
            if needing(dict.fromkeys(error.images, error.path), among):
                raise  # a clone of what an earlier merge has left
            arguments = {**step.arguments, "left-over": [*error.images]}
            return self._guest.take(replace(step, arguments=arguments))

    def _intend(self, step: Step) -> int | None:
        """Write an intent; returns the number of the act, None where no operation has begun."""
        if self.record is None:
            return None
        if step.does in self._ahead:
            return self._ahead.pop(step.does)
        acts = [self._act(step)]
        if step.does is Does.FREEZE:
            self._is_frozen = True
            if self._steps is not None:
                acts.append(self._act(self._steps.switch))
                self._ahead[Does.SWITCH] = self._number
        self._waiting += acts
        if not self._is_frozen or step.does is Does.FREEZE:
            self._write(needed=step.does in BUSY_WITH)
        if self._mark_at & {step.does}:  # after the intent, so that the journal knows of them
            self._mark()
        if step.does is Does.REMOVE:  # after the proof; a marker alone would find a file gone
            self.unmark()
        return acts[0].number

    def _mark(self) -> None:
        """Write the markers; where the share does not take them, the journal has to do."""
        assert self.record is not None
        self._mark_at = frozenset()
        for step in steps_for(self.record)[0]:
            try:
                take_file(step)
            except FileFailed as error:
                self._notes.append(f"no marker lies beside the images: {error}")

    def unmark(self) -> None:
        """Take the markers away: it is proven what the operation came to."""
        if self.record is None:
            return
        self._to_see_to.clear()  # it may go at the second time
        for step in steps_for(self.record)[1]:
            try:
                take_file(step)
            except FileFailed as error:
                self._to_see_to.append(
                    f"the marker stays, and forbids work on these files ({error}): "
                    f"`{resume_by(error.path)}` takes it away"
                )

    def _act(self, step: Step) -> Act:
        self._number += 1
        return act_of(self._number, time.time(), unnumbered_step(step))

    def _write(self, *, needed: bool) -> None:
        assert self.record is not None
        acts, self._waiting = self._waiting, []
        answers, self._answers = self._answers, []
        try:
            if self._is_written:
                self._store.go_on(self.record.id, answers, acts)
            else:
                self._store.begin(self.record, acts, self._letter)
                self._is_written = True
        except JournalUnusable as error:
            self._answers = answers
            if needed:
                raise
            self._notes.append(f"the journal was not written before an act: {error}")

    def _answered(self, number: int | None, answer: str) -> None:
        if number is not None:
            self._answers.append((number, answer[:_ANSWER]))

    # --- looks

    @property
    def where(self) -> Where:
        """The way to the guest."""
        return where_of(self._guest)

    @property
    def compose(self) -> Composer:
        """See `Jobs.compose`."""
        return self._guest.compose

    @property
    def files(self) -> Files:
        """See `Guest.files`."""
        return self._guest.files

    def read(self) -> Disks:
        """See `Guest.read`."""
        found = self._guest.read()
        self._name = found.guest
        return found

    def state(self) -> State:
        """See `Guest.state`."""
        return self._guest.state()

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """See `Guest.outlines`."""
        return self._guest.outlines(disks)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`."""
        return self._guest.neighbours(disk, left)

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Jobs.jobs`."""
        return self._guest.jobs()

    def follow(self, job: str) -> None:
        """See `Jobs.follow`."""
        self._guest.follow(job)

    def view(self, job: str) -> JobView:
        """See `Jobs.view`."""
        return self._guest.view(job)

    def wait(self, job: str, timeout: float) -> Heard:
        """See `Jobs.wait`."""
        return self._guest.wait(job, timeout)

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Jobs.reconnect`."""
        return self._guest.reconnect(error)


def _untold(ready: snapshot.Prepared | merge.Prepared) -> frozenset[Does]:
    """Before which acts a state begins that no file tells; see `markers`."""
    if isinstance(ready, snapshot.Prepared):
        return frozenset({Does.FREEZE, Does.SWITCH})
    if ready.plan.kind == "commit":
        return frozenset()
    # Where nobody commits the job, it ends by itself some time after its start.
    return frozenset({Does.START if ready.steps.commit is None else Does.COMMIT})
