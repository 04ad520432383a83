"""`--plan`: what a create or delete would do, as a table, JSON or YAML."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from qmpsnap.cli.output import show
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import INDENT, Safe, cells, fold, json_text, printable
from qmpsnap.cli.views import size
from qmpsnap.journal.identities import seen_all
from qmpsnap.journal.record import Seen
from qmpsnap.operations.forecast import Forecast
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.planned import Asked, Way
from qmpsnap.operations.step import Step
from qmpsnap.operations.where import where_of

if TYPE_CHECKING:
    from qmpsnap.cli.connection import Road


def show_plans(
    operation: str, forecasts: Sequence[Forecast], output: str, asked: Asked | None = None
) -> None:
    """
    Print `qmpsnap.plan/1`.

    Args:
        operation: What it is a plan of.
        forecasts: One for each disk.
        output: In which form.
        asked: What it was made for; None where `apply` does not carry it out.
    """
    document: dict[str, object] = {
        "schema": "qmpsnap.plan/1",
        "operation": operation,
        "request": None if asked is None else msgspec.to_builtins(asked),
        "files": [
            {"path": one.path, "inode": one.inode, "born": one.born, "device": one.device}
            for one in _files(forecasts)
        ],
        "disks": [
            {
                "disk": one.disk,
                "kind": one.kind,
                "why": one.why,
                "steps": [
                    {"by": step.by, "what": step.what, "arguments": dict(step.arguments)}
                    for step in one.steps
                ],
                "moves": one.moved.moved if one.moved else None,
                "grows": one.moved.needed if one.moved else None,
                "before": [
                    {
                        "file": layer.file,
                        "path": layer.path,
                        "node": layer.node,
                        "format": layer.format,
                    }
                    for layer in one.before
                ],
                "after": [{"file": file, "format": format_} for file, format_ in one.after],
            }
            for one in forecasts
        ],
    }
    show(document, output, lambda here: _view(operation, forecasts, here))


def _files(forecasts: Sequence[Forecast]) -> tuple[Seen, ...]:
    """Which files they are: another one may be called the same when the plan is applied."""
    paths = dict.fromkeys(layer.path for one in forecasts for layer in one.before)
    return seen_all((path, False) for path in paths if path is not None)


def way_to(road: Road, host: Guest) -> Way:
    """How `apply` reaches the same guest."""
    where = where_of(host)
    if road.qmp is not None:
        agent = None if road.agent is None else os.path.abspath(road.agent)
        return Way(qmp=os.path.abspath(road.qmp), agent=agent)
    return Way(connect=where.at or road.uri, guest=where.guest, passthrough=road.passthrough)


def _view(operation: str, forecasts: Sequence[Forecast], here: Screen) -> Iterator[str | Table]:
    """A table a disk, and one of what is done for all of them; steps are numbered throughout."""
    number = 1
    for one in forecasts:
        own = one.steps[: len(one.steps) - one.for_all]
        why = f" ({one.why})" if one.why else ""
        title = f"{operation} on {one.disk}: {one.kind}{why}"
        yield from _steps(title, number, own, here)
        number += len(own)
        yield from fold(printable(_outcome(one)), here.width)
    if common := [step for one in forecasts for step in one.steps[len(one.steps) - one.for_all :]]:
        yield from _steps(f"{operation} on all disks", number, common, here)


def _steps(title: str, first: int, steps: Sequence[Step], here: Screen) -> Iterator[str | Table]:
    """
    One line a step; where the longest does not fit, its arguments below, as JSON to be pasted.

    A JSON that does not fit a line either has a line for each value, or the terminal would break
    it anywhere.
    """
    rows = [
        (number, step.by, step.what, _json(step, here)) for number, step in enumerate(steps, first)
    ]
    table = Table(("", "BY", "STEP", "ARGUMENTS"), rows, title=title)
    if table.fits(here):
        yield table
        return
    for line in fold(printable(title), here.width):
        yield here.paint(line, "bold")
    for (number, by, what, arguments), step in zip(rows, steps, strict=True):
        yield from fold(f"{number}  {by}  {printable(what)}", here.width)
        if step.arguments and cells(INDENT + arguments) > (here.width or 0):
            yield from (INDENT + line for line in _json(step, here, indent=2).split("\n"))
        elif step.arguments:
            yield INDENT + arguments


def _json(step: Step, here: Screen, *, indent: int | None = None) -> Safe:
    return json_text(dict(step.arguments), encoding=here.encoding, indent=indent)


def _outcome(forecast: Forecast) -> str:
    chain = " <- ".join(f"{file} ({format_ or '?'})" for file, format_ in reversed(forecast.after))
    moved = forecast.moved
    moves = "how much it moves is not known"
    if moved is not None and moved.moved:
        grows = f"the written file grows by {size(moved.needed)} at most"
        moves = f"moves {size(moved.moved)} at most, {grows}"
    elif moved is not None:
        moves = "moves no data"
    return f"{moves}; afterwards: {chain}"
