"""
`--plan`: what would be done, before anything is.

The steps are those that are taken; nothing here describes one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Layer
from qmpsnap.operations.clear import found
from qmpsnap.operations.guards import Guard, doubts
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import Verb
from qmpsnap.operations.job.verbs import planned
from qmpsnap.operations.merge import prepared as prepared_merge
from qmpsnap.operations.merge import remaining
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.plan_header import HeaderPlan, wrong_active
from qmpsnap.operations.quiesce import NEVER, CannotFreeze, Policy, Quiesce, freeze_steps
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.snapshot import Prepared
from qmpsnap.operations.snapshot import prepared as prepared_snapshot
from qmpsnap.operations.space import Growth, growth
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import on_the_same_node


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """One disk's part of a plan."""

    disk: str
    kind: str
    """`create`, `commit`, `active-commit`, `pull`; or what is done to a job."""
    why: str
    """Why it is this kind of merge, where another one was possible; and whom else it changes."""
    steps: tuple[Step, ...]
    moved: Growth | None
    """Bytes that are copied, and that the written file grows by; None where it is not known."""
    before: tuple[Layer, ...]
    """The chain that the plan was made from, and that every step expects to find."""
    after: tuple[tuple[str, str | None], ...]
    """(file, format) of the chain afterwards."""
    for_all: int = 0
    """How many of the last steps are done once for all disks; the last disk's steps have them."""


def forecast_delete(
    guest: Guest,
    request: DeleteRequest | NamedDeleteRequest,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    allow: Collection[Guard] = (),
    remove: bool = False,
) -> Forecast:
    """
    Say what a delete would do; arguments as for `merge.delete`.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    seen = found(guest)
    merge = prepared_merge(guest, seen, request, options, allow=allow, remove=remove)
    plan = merge.plan
    acts = remaining(merge.steps, merge.running)
    removing = tuple(step for step in acts if step.does is Does.REMOVE)
    failed = merge.running is not None and merge.running.view.error is not None
    mending = None
    if plan.kind == "active-commit" and not failed:
        mending = wrong_active(plan.remaining, plan.disk)
    return Forecast(
        disk=plan.disk.disk,
        kind=plan.kind,
        why="; ".join(
            one
            for one in (
                plan.why,
                *on_the_same_node(plan.disk, seen.disks.disks),
                *doubts(plan, merge.around),
            )
            if one
        ),
        steps=(
            *seen.clear,
            *acts[: len(acts) - len(removing)],
            *_written_again(guest, mending),
            *removing,
        ),
        moved=growth(plan.dropped, plan.written, merge.around.allocated),
        before=plan.disk.layers,
        after=_chain(plan.remaining),
    )


def forecast_create(
    guest: Guest,
    requests: Sequence[CreateRequest],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
) -> tuple[Forecast, ...]:
    """
    Say what a create would do: for each disk what is its own, at the last what is done for all.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    seen = found(guest)
    ready = prepared_snapshot(guest, seen, requests, allow=allow)
    last, switch = len(ready.plans) - 1, _switch(guest, ready, quiesce)
    return tuple(
        Forecast(
            disk=plan.disk.disk,
            kind=plan.kind,
            why="; ".join((*on_the_same_node(plan.disk, seen.disks.disks), *ready.notes)),
            steps=(
                *(
                    (*seen.clear, *_mendings(guest, ready), *ready.steps.hold)
                    if number == 0
                    else ()
                ),
                *ready.steps.make[number],
                *(switch if number == last else ()),
            ),
            moved=Growth(moved=0, needed=0),
            before=plan.disk.layers,
            after=((plan.file, "qcow2"), *_chain(plan.below)),
            for_all=len(switch) if number == last and last else 0,
        )
        for number, plan in enumerate(ready.plans)
    )


def forecast_control(guest: Guest, verb: Verb, wanted: str, bandwidth: int = 0) -> Forecast:
    """
    Say what would be done to a job; the chain stays as it is.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    job, steps = planned(guest, verb, wanted, bandwidth)
    disk = next((disk for disk in guest.read().disks if disk.disk == job.disk), None)
    layers = disk.layers if disk else ()
    return Forecast(
        disk=job.disk or job.id,
        kind=verb,
        why="",
        steps=steps,
        moved=Growth(moved=0, needed=0),
        before=layers,
        after=_chain(layers),
    )


def _switch(guest: Guest, ready: Prepared, quiesce: Quiesce) -> tuple[Step, ...]:
    """Open the overlays, and switch to them, frozen as asked for."""
    steps = ready.steps
    release = () if steps.release is None else (steps.release,)
    around = _freeze(guest, ready, quiesce)
    if around is None:
        return (*steps.open, steps.switch, *release)
    freeze, thaw = around
    return (*steps.open, freeze, steps.switch, thaw, *release)


def _freeze(guest: Guest, ready: Prepared, quiesce: Quiesce) -> tuple[Step, Step] | None:
    if quiesce.policy is Policy.NEVER:
        return None
    try:
        return freeze_steps(guest, quiesce, ready.state.run)
    except CannotFreeze:
        if quiesce.policy is Policy.REQUIRE:
            raise
        return None


def _mendings(guest: Guest, ready: Prepared) -> tuple[Step, ...]:
    """The headers of active layers that are wrong already, for all disks."""
    plans = [wrong_active(disk.layers, disk) for disk in ready.disks]
    return tuple(step for plan in plans for step in _written_again(guest, plan))


def _written_again(guest: Guest, plan: HeaderPlan | None) -> tuple[Step, ...]:
    """How a header is mended that is wrong already; nothing where it cannot be."""
    if plan is None:
        return ()
    try:
        return guest.compose.header(plan).all
    except Refused:
        return ()


def _chain(layers: Sequence[Layer]) -> tuple[tuple[str, str | None], ...]:
    return tuple((layer.file, layer.format) for layer in layers)
