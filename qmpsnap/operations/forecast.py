"""
`--plan`: what would be done, before anything is. Pure.

The steps come from the code that carries them out, so that what is shown is what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.operations.guards import Guard, check_create, check_idle, check_merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.headers import wrong_active
from qmpsnap.operations.job.states import Verb
from qmpsnap.operations.job.verbs import planned
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.quiesce import NEVER, CannotFreeze, Policy, Quiesce
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.space import Growth, growth
from qmpsnap.operations.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One disk's part of a plan."""

    disk: str
    kind: str
    """`create`, `commit`, `active-commit`, `pull`; or what is done to a job."""
    why: str
    """Why it is this kind of merge, where another one was possible."""
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
    host: Guest,
    request: DeleteRequest | NamedDeleteRequest,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    allow: Collection[Guard] = (),
    removes: Callable[[Disk, str], bool] = lambda _disk, _path: False,
) -> Forecast:
    """
    Say what a delete would do.

    Args:
        host: The guest.
        request: What to delete.
        options: How the job would run.
        allow: Guards that would not count.
        removes: Whether a file that leaves the chain of a disk would be removed.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    plan = plan_delete(host.read(), request)
    if host.attach(plan) is None:
        check_idle((plan.disk,), host.jobs())
    around = host.surroundings(plan.disk)
    check_merge(plan, around, allow)
    return Forecast(
        disk=plan.disk.disk,
        kind=plan.kind,
        why=plan.why,
        steps=(
            *host.steps_of_merge(plan, options),
            *_headers(plan),
            *_mended(host, plan),
            *(
                Step(by="file", what=f"remove {layer.path}, if nobody has it open any more")
                for layer in plan.dropped
                if layer.path is not None and removes(plan.disk, layer.path)
            ),
        ),
        moved=growth(plan.dropped, plan.written, around.allocated),
        before=plan.disk.layers,
        after=_chain(plan.remaining),
    )


def forecast_create(
    host: Guest,
    requests: Sequence[CreateRequest],
    quiesce: Quiesce = NEVER,
    *,
    allow: Collection[Guard] = (),
) -> tuple[Forecast, ...]:
    """
    Say what a create would do.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    plans = plan_creates(host.read(), requests)
    check_create(host.migration(), allow)
    check_idle([plan.disk for plan in plans], host.jobs())
    last, switch = plans[-1], _switch(host, plans, quiesce)
    return tuple(
        Forecast(
            disk=plan.disk.disk,
            kind="create",
            why="",
            steps=(
                _overlay(plan),
                *_rewritten(host, wrong_active(plan.disk.layers, plan.disk)),
                *(switch if plan is last else ()),
            ),
            moved=Growth(moved=0, needed=0),
            before=plan.disk.layers,
            after=((plan.file, "qcow2"), *_chain(plan.disk.layers)),
            for_all=len(switch) if plan is last and len(plans) > 1 else 0,
        )
        for plan in plans
    )


def forecast_control(host: Guest, verb: Verb, wanted: str, bandwidth: int = 0) -> Forecast:
    """
    Say what would be done to a job; the chain stays as it is.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    job, step = planned(host, verb, wanted, bandwidth)
    found = next((disk for disk in host.read().disks if disk.disk == job.disk), None)
    layers = found.layers if found else ()
    return Forecast(
        disk=job.disk or job.id,
        kind=verb,
        why="",
        steps=(step,),
        moved=Growth(moved=0, needed=0),
        before=layers,
        after=_chain(layers),
    )


def _switch(host: Guest, plans: Sequence[CreatePlan], quiesce: Quiesce) -> tuple[Step, ...]:
    """Open the overlays, and switch to them, frozen as asked for."""
    *opening, switch = host.steps_of_create(plans)
    if quiesce.policy is Policy.NEVER:
        return (*opening, switch)
    try:
        freeze, thaw = host.steps_of_freeze()
    except CannotFreeze:
        if quiesce.policy is Policy.REQUIRE:
            raise
        return (*opening, switch)
    return (*opening, freeze, switch, thaw)


def _overlay(plan: CreatePlan) -> Step:
    arguments: Mapping[str, object] = {
        "format": "qcow2",
        "backing": plan.backing_name,
        "backing-format": plan.backing_format,
        "size": plan.virtual_size,
    }
    return Step(by="file", what=f"make {plan.overlay}, or check the one that is there", arguments=arguments)  # fmt: skip


def _chain(layers: Sequence[Layer]) -> tuple[tuple[str, str | None], ...]:
    return tuple((layer.file, layer.format) for layer in layers)


def _headers(plan: MergePlan) -> tuple[Step, ...]:
    """The header that QEMU writes when the job ends, where there is one."""
    if plan.above is None:
        return ()
    arguments = {"backing": plan.backing_name, "backing-format": plan.base and plan.base.format}
    what = f"QEMU writes the backing file into the header of {plan.above.path}"
    return (Step(by="file", what=what, arguments=arguments),)


def _mended(host: Guest, plan: MergePlan) -> tuple[Step, ...]:
    """The header of what an active commit makes the active layer, where it is known to be wrong."""
    if plan.kind != "active-commit":
        return ()
    return _rewritten(host, wrong_active(plan.remaining, plan.disk))


def _rewritten(host: Guest, plan: MergePlan | None) -> tuple[Step, ...]:
    """How a header is mended that is wrong already; nothing where it cannot be."""
    if plan is None:
        return ()
    try:
        return host.steps_of_merge(plan, DEFAULT_OPTIONS)
    except Refused:
        return ()
