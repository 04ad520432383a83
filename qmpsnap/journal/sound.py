"""
Whether what a marker says of an operation agrees with itself. Pure.

Whoever may write to the images' folder may write a marker. One that is sound is acted on as if this
program had written it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from qmpsnap.journal.record import Record
from qmpsnap.operations.plan_merge import MergePlan

_END: Final = 253_402_300_800
"""The year 10000, seconds after 1970: no calendar of Python has it."""
_LARGEST: Final = 2**64
"""No file system, and no QEMU, has a number like this."""


def flaw_of(record: Record) -> str:
    """Say what does not agree in the record of an operation; empty: nothing."""
    plans = record.plans
    if record.merge is None:
        kinds = {plan.kind for plan in record.creates} if _have_their_layers(record) else set()
        if record.kind not in kinds:
            return f"it has no plan of its kind, {record.kind}"
    elif record.merge.kind != record.kind or record.creates:
        return f"its plan is of another kind than {record.kind}"
    elif flaw := _flaw_of_merge(record.merge):
        return flaw
    if [plan.disk.disk for plan in plans] != [*record.disks]:
        return "its plans are of other disks"
    if len(record.made_here) != len(record.creates):
        return "it does not say which overlays it has made"
    if not {one.path for one in record.files} <= record.paths:
        return "it has looked at files of no disk"
    if not 0 <= record.begun < _END:
        return f"it was begun at no time, {record.begun}"
    if any(
        not abs(one) < _LARGEST for one in _numbers_in(msgspec.to_builtins(record, enc_hook=str))
    ):
        return "a number in it is too large, or is not a number"
    names = {*record.works_on, *(one.path for one in record.files), *record.paths}
    return next((f"{name!r} is no path" for name in sorted(names) if not _is_path(name)), "")


def _have_their_layers(record: Record) -> bool:
    return all(plan.active in plan.disk.layers for plan in record.creates)


def _flaw_of_merge(plan: MergePlan) -> str:
    paths = [layer.path for layer in plan.disk.layers]
    needed = {
        "commit": (plan.top, plan.base, plan.above),
        "active-commit": (plan.top, plan.base),
        "pull": (plan.top, plan.above),
    }[plan.kind]
    if None in needed or not plan.dropped:
        return "its plan lacks a layer"
    named = [one for one in (*needed, plan.base, *plan.dropped, *plan.remaining) if one is not None]
    return "" if _all_in(paths, (one.path for one in named)) else "its layers are of another disk"


def _all_in(paths: Iterable[str], named: Iterable[str]) -> bool:
    return set(named) <= set(paths)


def _numbers_in(value: Any) -> Iterator[int | float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers_in(one)


def _is_path(name: str) -> bool:
    try:
        return os.path.isabs(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False
