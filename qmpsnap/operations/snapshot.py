"""
Create: overlays on one or several disks, all of them or none.

    prepare the files ─► (mend the active header) ─► open them ─► (freeze) switch all (thaw) ─► read again

Before the switch there are at most unused, empty overlays, which are taken back on an error. A
process that is killed leaves them, and the next try takes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk
from qmpsnap.operations.guards import Guard, check_create, check_idle
from qmpsnap.operations.guest import Guest, Overlay
from qmpsnap.operations.headers import name_kept
from qmpsnap.operations.mend import ensured, mended_active
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    OutcomeUnknown,
    Result,
    changing,
    fresh_all,
    paths,
)
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.quiesce import NEVER, Moment, NotConsistent, Policy, Quiesce, held
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.run_state import remarks
from qmpsnap.operations.unchanged import GraphChanged, check_unchanged


def create(
    host: Guest,
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
    (result,) = create_all(host, (request,), quiesce, allow=allow)
    return result


def create_all(
    host: Guest,
    requests: Iterable[CreateRequest],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
) -> tuple[Result, ...]:
    """
    Take a snapshot of several disks at one moment; returns one result for each, in order.

    Raises:
        Refused: Nothing was touched.
        GraphChanged: Somebody else changed a chain meanwhile; nothing is left behind.
        CannotFreeze: A freeze was required and could not be had; nothing is left behind.
        Failed: The overlays could not be made or put on; every chain is as it was.
        NotConsistent, NotThawed: The snapshot is there; the freeze was not what it should be.
        OutcomeUnknown: The connection broke before the outcome could be seen.
    """
    host.clear()
    plans = plan_creates(host.read(), requests)
    check_create(host.migration(), allow)
    check_idle([plan.disk for plan in plans], host.jobs())
    state = host.run_state()
    overlays = _prepared(host, plans)
    mended: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    moment = Moment()
    problem: BaseException | None = None
    disks = [plan.disk for plan in plans]

    def switch() -> None:
        check_unchanged(disks, host.read())
        host.switch(plans)

    try:
        check_unchanged(disks, host.read())
        # While it is the active one: under libvirt only then.
        mended += [mended_active(host, plan.disk) for plan in plans]
        host.open(plans)
        held(host, quiesce, switch, moment)
    except (QmpsnapError, KeyboardInterrupt) as error:
        # Whatever was said, the graph decides: a reply that was lost may have been a yes.
        problem = error
        with suppress(QmpsnapError):
            host.retract(plans)
    if isinstance(problem, GraphChanged):
        with suppress(QmpsnapError):  # what cannot be taken back now is taken by the next try
            _discard(host, plans, overlays, host.read().open_files)
        raise moment.not_thawed or problem
    files = ", ".join(plan.file for plan in plans)
    try:
        with changing("snapshot", files):
            made = {plan.overlay: "qcow2" for plan in plans}
            guest, afters = fresh_all(host, disks, made)
        if all(_is_new(plan, after) for plan, after in zip(plans, afters, strict=True)):
            results = tuple(
                _result(host, plan, overlay, after, moment, before, state)
                for plan, overlay, after, before in zip(
                    plans, overlays, afters, mended, strict=True
                )
            )
            _check_consistent(quiesce, moment, files)
            return results
    except KeyboardInterrupt:
        raise OutcomeUnknown("snapshot", files, "it was interrupted") from None
    found = "; ".join(after.chain_text for after in afters)
    if any(paths(after) != paths(plan.disk) for plan, after in zip(plans, afters, strict=True)):
        wanted = "; ".join(f"{plan.file} over {plan.disk.chain_text}" for plan in plans)
        raise ChainUnexpected("snapshot", found, wanted)
    _discard(host, plans, overlays, guest.open_files)
    if moment.not_thawed is not None:
        raise moment.not_thawed from problem
    raise problem or ChainUnexpected("snapshot", found, f"{files} on top")


def _prepared(host: Guest, plans: Sequence[CreatePlan]) -> list[Overlay]:
    """Make or check all overlay files; if one cannot be had, those that were made go again."""
    overlays: list[Overlay] = []
    try:
        for plan in plans:
            overlays.append(host.prepare(plan))
    except BaseException:
        _discard(host, plans, overlays, frozenset())
        raise
    return overlays


def _discard(
    host: Guest, plans: Sequence[CreatePlan], overlays: Sequence[Overlay], held_open: frozenset[str]
) -> None:
    for plan, overlay in zip(plans, overlays, strict=False):
        if overlay.made and plan.overlay not in held_open:
            host.discard(plan)


def _is_new(plan: CreatePlan, after: Disk) -> bool:
    return paths(after) == (plan.overlay, *paths(plan.disk))


def _check_consistent(quiesce: Quiesce, moment: Moment, files: str) -> None:
    """What was required must have been had. With `try`, the notes say it."""
    if quiesce.policy is not Policy.REQUIRE:
        return
    if moment.not_thawed is not None:
        raise moment.not_thawed
    if moment.consistency != "filesystem":
        raise NotConsistent(files, moment.broken or "it was interrupted")


def _result(
    host: Guest,
    plan: CreatePlan,
    overlay: Overlay,
    after: Disk,
    moment: Moment,
    before: tuple[tuple[str, ...], tuple[str, ...]],
    state: str | None,
) -> Result:
    mended, notes = before
    with changing("snapshot", plan.file):
        # The volume service may have made the overlay, with the full path in its header.
        name = name_kept(after.layers[0], plan.active, plan.backing_name)
        after, repaired = ensured(host, after, after.layers[0], plan.active, name)
    format_ = after.layers[0].format
    assert format_ is not None  # a fresh overlay's node states it
    return Result(
        disk=after,
        file_format={plan.file: format_},
        repaired=(*mended, *repaired),
        notes=(*overlay.notes, *notes, *moment.notes, *remarks(state)),
        consistency=moment.consistency,
        frozen_s=moment.frozen_s,
        guest_state=state,
    )
