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

from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.clear import Found, cleared, notes_of
from qmpsnap.operations.fresh import fresh_all
from qmpsnap.operations.guards import Guard, check_create, check_idle
from qmpsnap.operations.guest import Guest, Overlay, SnapshotSteps, State
from qmpsnap.operations.headers import Mended, ensured, mended_active
from qmpsnap.operations.hold import held
from qmpsnap.operations.judge import format_of
from qmpsnap.operations.names import name_beside
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    OutcomeUnknown,
    Result,
    changing,
    check_names,
)
from qmpsnap.operations.patience import Patience
from qmpsnap.operations.plan_header import name_kept, wrong_active
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.quiesce import NEVER, Moment, NotConsistent, Policy, Quiesce, frozen
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.run_state import remarks
from qmpsnap.operations.shape import check_shape
from qmpsnap.operations.step import Step
from qmpsnap.operations.unchanged import GraphChanged, check_unchanged
from qmpsnap.operations.volume import unseen


class SizeChanged(Failed):
    """Somebody resized a disk while its snapshot was taken."""

    msg = (
        "the snapshot is there, and disk {self.disk} has {self.size} bytes now: it was resized to "
        "{self.wanted} bytes while the snapshot was taken"
    )
    remedy = (
        "All data is in the file below. Give the disk its size (`virsh blockresize`; QMP "
        "`block_resize`) before the guest is started again."
    )

    disk: str
    size: int
    wanted: int


@dataclass(slots=True)
class _Sent:
    """Whether the guest may write to the new files."""

    may_be: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A snapshot before its first act: what will be done, and all that was looked at."""

    plans: tuple[CreatePlan, ...]
    overlays: tuple[Overlay, ...]
    steps: SnapshotSteps
    state: State

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
    check_create(state.migration, allow)
    check_idle([plan.disk for plan in plans], found.jobs)
    for plan in plans:
        check_shape(plan.disk, found.disks)
    overlays = tuple(guest.files.overlay(plan) for plan in plans)
    steps = guest.compose.snapshot(found.disks, plans, overlays, state)
    return Prepared(plans=plans, overlays=overlays, steps=steps, state=state)


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
        SizeChanged, NamesAnother: It is there; the disk was resized, or a file replaced, in between.
        ChainUnexpected: It is there, and so is one that somebody else took meanwhile.
        HeaderWrong: It is there; a header is wrong, and could not be mended.
        OutcomeUnknown: The connection broke before the outcome could be seen.

    Every error `stands` from the switch on, unless it was proven not to have happened.
    """
    sent = _Sent()
    try:
        return _created(guest, requests, quiesce, allow, begins, sent)
    except QmpsnapError as error:
        if sent.may_be:
            error.standing()
        raise


def _created(
    guest: Guest,
    requests: Iterable[CreateRequest],
    quiesce: Quiesce,
    allow: Collection[Guard],
    begins: Begins | None,
    sent: _Sent,
) -> tuple[Result, ...]:
    found = cleared(guest)
    ready = prepared(guest, found, requests, allow=allow)
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
        _make(guest, ready)
        problem = _switch(guest, ready, quiesce, moment, sent)
        if isinstance(problem, GraphChanged):
            with suppress(QmpsnapError):
                _discard(guest, ready, guest.read())
            raise moment.not_thawed or problem
        patience = Patience()
        patience.came = isinstance(problem, KeyboardInterrupt)
        now, afters = _seen(guest, ready, patience)
    sent.may_be = any(_has(plan, after) for plan, after in zip(ready.plans, afters, strict=True))
    if all(_is_new(plan, after) for plan, after in zip(ready.plans, afters, strict=True)):
        for plan, after in zip(ready.plans, afters, strict=True):
            check_names("snapshot", plan.disk, after)
        notes = (*notes_of(found.jobs, but=""), *patience.notes)
        results = tuple(
            _result(guest, ready, number, after, moment, mended[number], notes)
            for number, after in enumerate(afters)
        )
        _check_consistent(quiesce, moment, ready.files)
        for result in results:
            _check_size(result.disk)
        return results
    saw = "; ".join(after.chain_text for after in afters)
    if any(after.paths != disk.paths for disk, after in zip(ready.disks, afters, strict=True)):
        wanted = "; ".join(f"{plan.file} over {plan.disk.chain_text}" for plan in ready.plans)
        _mend_headers(guest, ready, afters)
        if problem is not None and not sent.may_be:
            _discard(guest, ready, now)
        raise ChainUnexpected("snapshot", saw, wanted) from problem
    _discard(guest, ready, now)
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


def _make(guest: Guest, ready: Prepared) -> None:
    """Make all overlay files; if one cannot be made, those that were made go again."""
    made = 0
    try:
        for steps in ready.steps.make:
            for step in steps:
                guest.take(step)
            made += 1
    except BaseException:
        _take_back(guest, ready.steps.discard[:made])
        raise


def _switch(
    guest: Guest, ready: Prepared, quiesce: Quiesce, moment: Moment, sent: _Sent
) -> BaseException | None:
    """
    Open the overlays and switch to them, frozen as asked for; returns what went wrong.

    Whatever was said, the graph decides: a reply that was lost may have been a yes.
    """
    steps = ready.steps
    try:
        for step in steps.open:
            guest.take(step)
        with frozen(guest, quiesce, moment):
            check_unchanged(guest, ready.disks)
            sent.may_be = True
            guest.take(steps.switch)
    except (QmpsnapError, KeyboardInterrupt) as error:
        for step in steps.close:
            # QEMU answers in order: what was sent before, and interrupted, is over by now. It
            # does not delete a node that is in use.
            with suppress(QmpsnapError):
                guest.take(step)
        return error
    return None


def _seen(guest: Guest, ready: Prepared, patience: Patience) -> tuple[Disks, tuple[Disk, ...]]:
    try:
        with changing("snapshot", ready.files):
            made = {plan.overlay: "qcow2" for plan in ready.plans}
            return patience.through(lambda: fresh_all(guest, ready.disks, made))
    except KeyboardInterrupt:
        raise OutcomeUnknown("snapshot", ready.files, "it was interrupted") from None


def _discard(guest: Guest, ready: Prepared, now: Disks) -> None:
    """Remove the overlays that were made and that nothing has open."""
    steps = zip(ready.plans, ready.steps.discard, strict=True)
    _take_back(guest, [step for plan, step in steps if plan.overlay not in now.open_files])


def _take_back(guest: Guest, steps: Iterable[Step | None]) -> None:
    """Remove overlays again; what cannot be removed now is taken by the next try."""
    for step in steps:
        if step is not None:
            with suppress(QmpsnapError):
                guest.take(step)


def _mend_headers(guest: Guest, ready: Prepared, afters: Sequence[Disk]) -> None:
    """
    Let each overlay name what it really lies over.

    Between our last look and libvirt's switch, somebody may have taken a snapshot: QEMU puts our
    overlay on top of theirs, and its header names the file two below.

    Raises:
        HeaderWrong: It could not be mended.
    """
    for plan, after in zip(ready.plans, afters, strict=True):
        if not _has(plan, after) or after.paths[-1] == plan.overlay:
            continue
        place = after.paths.index(plan.overlay)
        above, below = after.layers[place : place + 2]
        name = name_kept(above, below, name_beside(above, below))
        try:
            ensured(guest, after, above, below, name)
        except HeaderWrong as error:
            # libvirt (9.0) takes a relative name from our header, as it was, for that of the other
            # overlay, and writes it again.
            try:
                ensured(guest, after, above, below, below.path or below.file)
            except HeaderWrong:
                raise error from None


def _has(plan: CreatePlan, after: Disk) -> bool:
    return plan.overlay in after.paths


def _is_new(plan: CreatePlan, after: Disk) -> bool:
    return after.paths == (plan.overlay, *plan.disk.paths)


def _check_size(disk: Disk) -> None:
    """
    An overlay is made in the size of the plan, and whoever resizes in between is not kept out.

    Names of nodes do not show it, so it is looked at when all is read again.
    """
    overlay, below = disk.layers[0].virtual_size, disk.layers[1].virtual_size
    if overlay is not None and below is not None and overlay != below:
        raise SizeChanged(disk.disk, overlay, below)


def _check_consistent(quiesce: Quiesce, moment: Moment, files: str) -> None:
    """What was required must have been had. With `try`, the notes say it."""
    if quiesce.policy is not Policy.REQUIRE:
        return
    if moment.not_thawed is not None:
        raise moment.not_thawed
    if moment.consistency != "filesystem":
        raise NotConsistent(files, moment.broken or "it was interrupted")


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
            *_corrected(plan, overlay),
            *(note for note in ready.steps.notes[number : number + 1] if note),
            *_forgotten(plan, after),
            *before.notes,
            *moment.notes,
            *unseen(plan.disk),
            *remarks(ready.state.run),
        ),
        consistency=moment.consistency,
        frozen_s=moment.frozen_s,
        guest_state=ready.state.run,
    )


def _forgotten(plan: CreatePlan, after: Disk) -> tuple[str, ...]:
    """libvirt opens an overlay without `detect_zeroes`, and adds it with the next start (9.0)."""
    before, now = plan.active.node_details, after.layers[0].node_details
    if before is None or now is None or now.detect_zeroes or not before.detect_zeroes:
        return ()
    return (
        f"{plan.file} was opened without detect-zeroes, which {plan.active.file} has: until the "
        "guest is started again, zeroes that it writes take room",
    )


def _corrected(plan: CreatePlan, overlay: Overlay) -> tuple[str, ...]:
    """What was wrong in the header of an overlay that was handed over."""
    if overlay.recorded is None or overlay.recorded[1] == plan.backing_format:
        return ()
    was = overlay.recorded[1] or "nothing"
    return (f"corrected the header of {plan.file}: backing format {was} -> {plan.backing_format}",)
