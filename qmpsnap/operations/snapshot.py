"""
Take a snapshot: overlays on one or several disks, all of them or none.

    clear away ─► plan ─► (mend the active header) ─► make the files ─► open them ─►
    (freeze) switch all (thaw) ─► read again

Before the switch there are at most unused, empty overlays, which are taken back on an error. A
process that is killed leaves them, and the next try takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity
from qmpsnap.operations.clear import Found, cleared, notes_of
from qmpsnap.operations.fresh import fresh_all
from qmpsnap.operations.guards import Guard, check_create, check_idle, check_revert
from qmpsnap.operations.guest import Claim, Guest, Overlay, SnapshotSteps, State
from qmpsnap.operations.headers import Mended, ensured, mended_active
from qmpsnap.operations.hold import held
from qmpsnap.operations.judge import format_of
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    OpenedAnother,
    OutcomeUnknown,
    Result,
    changing,
    check_names,
)
from qmpsnap.operations.patience import Patience
from qmpsnap.operations.plan_header import name_kept, wrong_active
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.quiesce import NEVER, Moment, Quiesce, frozen
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.revert import check_off, remarks_of
from qmpsnap.operations.run_state import remarks
from qmpsnap.operations.shape import check_shape
from qmpsnap.operations.snapshot_outcome import (
    SizeChanged as SizeChanged,
)
from qmpsnap.operations.snapshot_outcome import (
    check_consistent,
    check_size,
    corrected,
    forgotten,
    is_in,
    left_out,
    mend_headers,
)
from qmpsnap.operations.step import Step
from qmpsnap.operations.swapped import (
    OverlaySwapped,
    check_all_opened,
    check_same,
    made_identity,
)
from qmpsnap.operations.taken import check_free
from qmpsnap.operations.unchanged import GraphChanged, check_unchanged
from qmpsnap.operations.volume import on_the_same_node, unseen
from qmpsnap.operations.where import where_of


@dataclass(slots=True)
class _Course:
    """How far a snapshot has come."""

    made: tuple[Identity | None, ...] = ()
    """What each overlay was when it was made, or looked at."""
    sent: bool = False
    """The guest may write to the new files."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot before its first act: what will be done, and all that was looked at."""

    plans: tuple[CreatePlan, ...]
    overlays: tuple[Overlay, ...]
    steps: SnapshotSteps
    state: State
    notes: tuple[str, ...] = ()
    """What could not be looked at, or is not certain, of who uses an overlay that is there."""

    @property
    def disks(self) -> tuple[Disk, ...]:
        """The disks as they were."""
        return tuple(plan.disk for plan in self.plans)

    @property
    def files(self) -> str:
        """The new files, for messages."""
        return ", ".join(plan.file for plan in self.plans)


Begins = Callable[[Prepared], object]


def prepared(
    guest: Guest, found: Found, requests: Iterable[CreateRequest], *, allow: Collection[Guard]
) -> Prepared:
    """
    Plan a snapshot, and look at all that may be in its way.

    Raises:
        Refused: It is not to be done. Nothing was touched.
    """
    plans = plan_creates(found.disks, requests)
    state = guest.state()
    check_off(plans, found.disks, state.run, where_of(guest).road)
    check_create(state.migration, allow)
    for plan in plans:
        if plan.kept:
            check_revert(plan, guest.neighbours(plan.disk), allow)
    check_idle([plan.disk for plan in plans], found.jobs)
    for plan in plans:
        check_shape(plan.disk, found.disks)
    overlays = tuple(guest.files.overlay(plan) for plan in plans)
    notes = check_free(guest, plans, overlays)
    steps = guest.compose.snapshot(found.disks, plans, overlays, state)
    return Prepared(plans=plans, overlays=overlays, steps=steps, state=state, notes=notes)


def create(
    guest: Guest,
    request: CreateRequest,
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
) -> Result:
    """
    Take a snapshot of one disk.

    Raises:
        QmpsnapError: See `create_all`.
    """
    (result,) = create_all(guest, (request,), quiesce, allow=allow)
    return result


def create_all(
    guest: Guest,
    requests: Iterable[CreateRequest],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
    begins: Begins | None = None,
) -> tuple[Result, ...]:
    """
    Take a snapshot of several disks at one moment; returns one result for each, in order.

    Args:
        guest: The guest.
        requests: One for each disk.
        quiesce: Whether to freeze the guest.
        allow: Guards that do not count.
        begins: Called with the plan before its first act.

    Raises:
        Refused: Nothing was touched.
        GraphChanged: Somebody else changed a chain in between; nothing is left behind.
        CannotFreeze: A freeze was required and could not be had; nothing is left behind.
        Failed: The overlays could not be made or put on; every chain is as it was.
        NotConsistent, NotThawed: The snapshot is there; the freeze was not what it should be.
        SizeChanged: It is there, and the disk was resized in between.
        NamesAnother, OpenedAnother: It is there, and a file was replaced in between.
        ChainUnexpected: It is there, and so is one that somebody else took meanwhile.
        HeaderWrong: It is there; a header is wrong, and could not be mended.
        OutcomeUnknown: The connection broke before the outcome could be seen.

    Every error `stands` from the switch on, unless it was proven not to have happened.
    """
    course = _Course()
    try:
        with guest.files.claim() as claim:
            return _created(guest, claim, tuple(requests), quiesce, allow, begins, course)
    except QmpsnapError as error:
        if course.sent:
            error.standing()
        raise


def _created(
    guest: Guest,
    claim: Claim,
    requests: Sequence[CreateRequest],
    quiesce: Quiesce,
    allow: Collection[Guard],
    begins: Begins | None,
    course: _Course,
) -> tuple[Result, ...]:
    found = cleared(guest, claim, (request.disk for request in requests))
    ready = prepared(guest, found, requests, allow=allow)
    claim.take([plan.overlay for plan in ready.plans])
    if begins is not None:
        begins(ready)
    if any(wrong_active(disk.layers, disk) for disk in ready.disks):
        check_unchanged(guest, ready.disks)
    # While it is the active one: under libvirt only then.
    mended = [mended_active(guest, disk) for disk in ready.disks]
    moment = Moment()
    with held(guest, ready.steps.hold, ready.steps.release):
        if ready.steps.hold:
            check_unchanged(guest, ready.disks)
        course.made = _make(guest, ready)
        problem = _switch(guest, ready, quiesce, moment, course)
        if isinstance(problem, (GraphChanged, OverlaySwapped)):
            with suppress(QmpsnapError):
                _discard(guest, ready, course, guest.read())
            raise moment.not_thawed or problem
        patience = Patience()
        patience.came = isinstance(problem, KeyboardInterrupt)
        now, afters = _seen(guest, ready, patience)
    course.sent = any(is_in(plan, after) for plan, after in zip(ready.plans, afters, strict=True))
    if all(_is_new(plan, after) for plan, after in zip(ready.plans, afters, strict=True)):
        for plan, after, made in zip(ready.plans, afters, course.made, strict=True):
            check_names("snapshot", plan.disk, after)
            if None not in (made, now_is := after.layers[0].identity) and now_is != made:
                raise OpenedAnother("snapshot", plan.overlay, after.chain_text)
        notes = (*notes_of(found.jobs, but=""), *patience.notes, *claim.notes, *ready.notes)
        notes += remarks_of(ready.plans, requests, found.disks)
        notes += left_out(found.disks)
        shared = [on_the_same_node(disk, found.disks.disks) for disk in ready.disks]
        results = tuple(
            _result(guest, ready, number, after, moment, mended[number], (*shared[number], *notes))
            for number, after in enumerate(afters)
        )
        check_consistent(quiesce, moment, ready.files)
        for result in results:
            check_size(result.disk)
        return results
    saw = "; ".join(after.chain_text for after in afters)
    if any(after.paths != disk.paths for disk, after in zip(ready.disks, afters, strict=True)):
        wanted = "; ".join(f"{plan.file} over {plan.below_text}" for plan in ready.plans)
        mend_headers(guest, ready.plans, afters)
        if problem is not None and not course.sent:
            _discard(guest, ready, course, now)
        raise ChainUnexpected("snapshot", saw, wanted) from problem
    _discard(guest, ready, course, now)
    if moment.not_thawed is not None:
        raise moment.not_thawed from problem
    raise problem or ChainUnexpected("snapshot", saw, f"{ready.files} on top")


def finish(guest: Guest, plans: Sequence[CreatePlan]) -> tuple[Result, ...]:
    """
    See to a snapshot whose call has died after the switch: its headers, and what is to be told.

    Raises:
        OutcomeUnknown, XmlBehind, HeaderWrong: As `create_all`.
    """
    overlays = tuple(Overlay(is_there=False) for _ in plans)
    state = guest.state()
    steps = guest.compose.snapshot(guest.read(), plans, overlays, state)
    ready = Prepared(plans=tuple(plans), overlays=overlays, steps=steps, state=state)
    _, afters = _seen(guest, ready, Patience())
    moment, mended = Moment(), Mended()
    return tuple(
        _result(guest, ready, number, after, moment, mended, ())
        for number, after in enumerate(afters)
    )


def take_back(guest: Guest, plans: Sequence[CreatePlan], made_here: Sequence[bool]) -> None:
    """
    Take back a snapshot whose call has died before the switch.

    An overlay goes that the call had made, and that is empty and open nowhere.
    """
    overlays = tuple(Overlay(is_there=not made) for made in made_here)
    now = guest.read()
    steps = guest.compose.snapshot(now, plans, overlays, guest.state())
    for step in steps.close:
        with suppress(QmpsnapError):  # there is no such node, or QEMU does not let it go
            guest.take(step)
    now = guest.read()
    discard = zip(plans, steps.discard, strict=True)
    _take_back(guest, [step for plan, step in discard if _is_unused(guest, plan, now)])


def _is_unused(guest: Guest, plan: CreatePlan, now: Disks) -> bool:
    try:
        return plan.overlay not in now.open_files and guest.files.overlay(plan).is_there
    except QmpsnapError:
        return False  # it holds data, or is another file by now


def _make(guest: Guest, ready: Prepared) -> tuple[Identity | None, ...]:
    """
    Make all overlay files; if one cannot be made, those that were made go again.

    Returns:
        What they are, for each disk; None where that is not known.
    """
    made: list[Identity | None] = []
    try:
        for overlay, steps in zip(ready.overlays, ready.steps.make, strict=True):
            answers = [guest.take(step) for step in steps]
            made.append(overlay.identity if overlay.is_there else made_identity(answers[-1]))
    except BaseException:
        _take_back(guest, ready.steps.discard[: len(made)])
        raise
    return tuple(made)


def _switch(
    guest: Guest, ready: Prepared, quiesce: Quiesce, moment: Moment, course: _Course
) -> BaseException | None:
    """
    Open the overlays and switch to them, frozen as asked for; returns what went wrong.

    Whatever was said, the graph decides: a reply that was lost may have been a yes.
    """
    steps = ready.steps
    try:
        for step in steps.open:
            guest.take(step)
        if steps.open and any(disk.nodes for disk in ready.disks):
            check_all_opened(ready.plans, ready.overlays, steps, guest.read().graph)
        with frozen(guest, quiesce, moment):
            check_unchanged(guest, ready.disks)
            _check_same(guest, ready, course)
            course.sent = True
            guest.take(steps.switch)
    except (QmpsnapError, KeyboardInterrupt) as error:
        for step in steps.close:
            # QEMU answers in order: what was sent before, and interrupted, is over by now. It
            # does not delete a node that is in use.
            with suppress(QmpsnapError):
                guest.take(step)
        return error
    return None


def _check_same(guest: Guest, ready: Prepared, course: _Course) -> None:
    for plan, overlay, before in zip(ready.plans, ready.overlays, course.made, strict=True):
        check_same(plan, overlay, before, guest.files.identity(plan.overlay))


def _seen(guest: Guest, ready: Prepared, patience: Patience) -> tuple[Disks, tuple[Disk, ...]]:
    try:
        with changing("snapshot", ready.files):
            made = {plan.overlay: "qcow2" for plan in ready.plans}
            return patience.through(lambda: fresh_all(guest, ready.disks, made))
    except KeyboardInterrupt:
        raise OutcomeUnknown("snapshot", ready.files, "it was interrupted") from None


def _discard(guest: Guest, ready: Prepared, course: _Course, now: Disks) -> None:
    """Remove the overlays that were made, are still these files, and that nothing has open."""
    steps = zip(ready.plans, course.made, ready.steps.discard, strict=True)
    _take_back(
        guest,
        [
            step
            for plan, made, step in steps
            if plan.overlay not in now.open_files
            and made in (None, guest.files.identity(plan.overlay))
        ],
    )


def _take_back(guest: Guest, steps: Iterable[Step | None]) -> None:
    """Remove overlays again; what cannot be removed now is taken by the next try."""
    for step in steps:
        if step is not None:
            with suppress(QmpsnapError):
                guest.take(step)


def _is_new(plan: CreatePlan, after: Disk) -> bool:
    return after.paths == plan.chain


def _result(
    guest: Guest,
    ready: Prepared,
    number: int,
    after: Disk,
    moment: Moment,
    before: Mended,
    notes: Sequence[str],
) -> Result:
    plan, overlay = ready.plans[number], ready.overlays[number]
    try:
        with changing("snapshot", plan.file):
            # The volume service may have made the overlay, with the full path in its header.
            name = name_kept(after.layers[0], plan.active, plan.backing_name)
            after, repaired = ensured(guest, after, after.layers[0], plan.active, name)
    except KeyboardInterrupt:
        raise OutcomeUnknown("snapshot", ready.files, "it was interrupted") from None
    return Result(
        disk=after,
        file_format={plan.file: format_of(after, plan.overlay)},
        repaired=(*before.repaired, *repaired),
        notes=(
            *notes,
            *corrected(plan, overlay),
            *(note for note in ready.steps.notes[number : number + 1] if note),
            *forgotten(plan, after),
            *before.notes,
            *moment.notes,
            *unseen(plan.disk),
            *remarks(ready.state.run),
        ),
        kept=tuple(layer.path for layer in plan.kept),
        consistency=moment.consistency if plan.kind == "create" else None,
        frozen_s=moment.frozen_s,
        guest_state=ready.state.run,
    )
