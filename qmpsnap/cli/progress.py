"""
Progress of a block job, on stderr: a bar on a terminal, a line every few seconds in a pipe.

A short job says nothing in a pipe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from qmpsnap.cli.output import is_quiet, logs_json, say, warn
from qmpsnap.cli.text import printable
from qmpsnap.cli.units import seconds_text
from qmpsnap.operations.job.notices import Notice, StoppedByError
from qmpsnap.operations.job.pace import Pace
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.space import bytes_text

EVERY_S: Final = 5.0
"""Seconds between two lines in a pipe."""

Update = Callable[[str, JobView], None]


class Shown(msgspec.Struct, frozen=True):
    """What `run.delete` calls while a job runs."""

    update: Update
    tell: Callable[[Notice], None]

    def progress(self, plan: MergePlan, view: JobView) -> None:
        """Show how far a merge is."""
        self.update(f"{plan.kind} {plan.top.file}", view)


@contextmanager
def shown() -> Iterator[Shown]:
    """Show progress for the length of a block; nothing of it with `-q`."""
    if is_quiet() or logs_json() or not sys.stderr.isatty():
        yield Shown(_lines(), _tell)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, pace="", visible=False)
        pace = Pace()

        def update(name: str, view: JobView) -> None:
            nonlocal pace
            pace = pace.seen(view, time.monotonic())
            bar.update(
                task,
                description=printable(name),
                completed=view.current,
                total=view.total or None,
                pace=pace_text(pace, view),
                visible=True,
            )

        yield Shown(update, lambda notice: console.print(printable(notice)))


def _tell(notice: Notice) -> None:
    """Say it; that a job waits for somebody to make room, with `-q` as well."""
    (warn if isinstance(notice, StoppedByError) else say)(str(notice))


def _lines() -> Update:
    pace = Pace()
    said = time.monotonic()

    def update(name: str, view: JobView) -> None:
        nonlocal pace, said
        now = time.monotonic()
        pace = pace.seen(view, now)
        if now - said >= EVERY_S and view.total:
            said = now
            amount = f"{bytes_text(view.current)} of {bytes_text(view.total)}"
            percent = 100 * view.current // view.total
            say(f"{name}: {percent} % ({amount}) {pace_text(pace, view)}".rstrip())

    return update


def pace_text(pace: Pace, view: JobView) -> str:
    """Rate and time left, in words; the state where the job does not run."""
    rates = pace.rates
    if view.status != "running" or rates is None:
        return str(view.status)
    left = rates.left_s
    return f"{bytes_text(rates.copying)}/s, " + (
        f"{seconds_text(left)} left" if left is not None else "no end in sight"
    )
