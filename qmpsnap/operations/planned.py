"""
A plan that was shown before: what it was made for, and whether it would come out the same now. Pure.

Nothing of it is carried out. The request is planned again, and only what comes of that is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Layer
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.forecast import Forecast
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.quiesce import NEVER, Quiesce
from qmpsnap.operations.requests import (
    BadRequest,
    CreateRequest,
    DeleteRequest,
    NamedDeleteRequest,
    checked_folder,
    checked_name,
)
from qmpsnap.operations.step import Step

_WHERE: Final = "request"
_EXPECTED: Final = "what `--plan -o json` writes"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How the guest was reached: one of `qmp` and `connect`."""

    qmp: str | None = None
    """Path of its QMP socket."""
    agent: str | None = None
    """Path of its agent's socket, on that road."""
    connect: str | None = None
    """libvirt's URI."""
    guest: str | None = None
    """Its UUID, under libvirt."""
    passthrough: bool = True


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan was made for; of the first three there is one."""

    create: tuple[CreateRequest, ...] = ()
    delete: DeleteRequest | None = None
    delete_by_name: NamedDeleteRequest | None = None
    quiesce: Quiesce = NEVER
    options: MergeOptions = DEFAULT_OPTIONS
    allow: tuple[Guard, ...] = ()
    remove: bool = False
    verify: bool = False
    way: Way = Way()


class ShownStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step, as it is shown."""

    by: str
    what: str
    arguments: dict[str, Any]


class ShownLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of the chain that a plan was made from."""

    file: str
    path: str | None
    node: str | None
    format: str | None


class ShownAfter(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of the chain afterwards."""

    file: str
    format: str | None


class ShownDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk's part: what must come out the same. How much is moved may not: the guest writes."""

    disk: str
    kind: str
    before: tuple[ShownLayer, ...]
    after: tuple[ShownAfter, ...]
    steps: tuple[ShownStep, ...] = msgspec.field(default=())


class PlanDiffers(Refused):
    """What was planned would not come out the same now."""

    msg = "the plan does not hold any more: {self.difference}"
    remedy = "Make a new plan, look at it, and apply that one."

    difference: str


def check_asked(asked: Asked) -> None:
    """
    See that a request that was read from a file could have come from the command line.

    Raises:
        BadRequest: It could not.
        BadFileName: One of the names cannot be what it should be.
    """
    kinds = [bool(asked.create), asked.delete is not None, asked.delete_by_name is not None]
    if sum(kinds) != 1:
        raise BadRequest(_WHERE, "it asks for nothing, or for more than one thing", _EXPECTED)
    for one in asked.create:
        if one.new_file is not None:
            checked_name("new_file", one.new_file)
        if one.into is not None and not os.path.isabs(checked_folder("into", one.into)):
            raise BadRequest(_WHERE, f"the folder {one.into!r} is not absolute", _EXPECTED)
    if asked.delete is not None:
        names = asked.delete.file_to_merge, asked.delete.merge_target_file
        for field_, name in zip(("file_to_merge", "merge_target_file"), names, strict=True):
            if name is not None:
                checked_name(field_, name)
        if names[0] is None and names[1] is not None:
            raise BadRequest(_WHERE, "it has a merge target without a file to merge", _EXPECTED)
    limit = asked.quiesce.limit_s
    if not 0 < limit <= 3600:
        raise BadRequest(_WHERE, f"a freeze of {limit} s", _EXPECTED)


def shown(forecast: Forecast) -> ShownDisk:
    """What is shown of a plan."""
    return ShownDisk(
        disk=forecast.disk,
        kind=forecast.kind,
        before=_before(forecast.before),
        after=tuple(ShownAfter(file=file, format=format_) for file, format_ in forecast.after),
        steps=tuple(_step(step) for step in forecast.steps),
    )


def shown_ready(ready: snapshot.Prepared | merge.Prepared) -> tuple[ShownDisk, ...]:
    """The same of what is about to be done, without its steps: they follow from the rest."""
    if isinstance(ready, merge.Prepared):
        plan = ready.plan
        return (
            ShownDisk(
                disk=plan.disk.disk,
                kind=plan.kind,
                before=_before(plan.disk.layers),
                after=_after(plan.remaining),
            ),
        )
    return tuple(
        ShownDisk(
            disk=plan.disk.disk,
            kind=plan.kind,
            before=_before(plan.disk.layers),
            after=(ShownAfter(file=plan.file, format="qcow2"), *_after(plan.below)),
        )
        for plan in ready.plans
    )


def _before(layers: Sequence[Layer]) -> tuple[ShownLayer, ...]:
    return tuple(
        ShownLayer(file=one.file, path=one.path, node=one.node, format=one.format) for one in layers
    )


def _after(layers: Sequence[Layer]) -> tuple[ShownAfter, ...]:
    return tuple(ShownAfter(file=one.file, format=one.format) for one in layers)


def _step(step: Step) -> ShownStep:
    """As it is after it was written as JSON and read again."""
    arguments = json.loads(json.dumps(msgspec.to_builtins(dict(step.arguments), enc_hook=str)))
    return ShownStep(by=step.by, what=step.what, arguments=arguments)


def check_same_plan(
    before: Sequence[ShownDisk], now: Sequence[ShownDisk], *, steps: bool = True
) -> None:
    """
    Compare a plan with what would be done now.

    Args:
        before: As it was shown.
        now: As it is made again.
        steps: Whether the steps count.

    Raises:
        PlanDiffers: They are not the same; says the first difference of each disk.
    """
    found = [
        difference
        for one, other in zip_longest(before, now)
        if (difference := _difference(one, other, steps=steps)) is not None
    ]
    if found:
        raise PlanDiffers("; ".join(found))


def _difference(before: ShownDisk | None, now: ShownDisk | None, *, steps: bool) -> str | None:
    if before is None or now is None or before.disk != now.disk:
        return f"it was about {_name(before)}, and would be about {_name(now)} now"
    if before.before != now.before:
        return f"the chain of {now.disk} was {_chain(before.before)}, and is {_chain(now.before)}"
    if before.kind != now.kind:
        return f"{now.disk} had a {before.kind}, and would have a {now.kind}"
    if before.after != now.after:
        return f"{now.disk} would be {_chain(now.after)} afterwards, and not {_chain(before.after)}"
    if not steps:
        return None
    for number, (one, other) in enumerate(zip_longest(before.steps, now.steps), start=1):
        if one != other:
            return f"step {number} on {now.disk} was {_text(one)}, and would be {_text(other)}"
    return None


def _name(disk: ShownDisk | None) -> str:
    return "no disk" if disk is None else disk.disk


def _chain(layers: Sequence[ShownLayer | ShownAfter]) -> str:
    """With the nodes where files and formats alone may not tell the difference."""
    return " <- ".join(
        f"{one.file} ({', '.join(filter(None, (one.format, getattr(one, 'node', None))))})"
        for one in reversed(layers)
    )


def _text(step: ShownStep | None) -> str:
    if step is None:
        return "none"
    return f"{step.what} {json.dumps(step.arguments)}" if step.arguments else step.what
