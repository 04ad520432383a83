"""Progress of a block job, on stderr: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from qmpsnap.cli.output import printable
from qmpsnap.operations.jobs import JobView
from qmpsnap.operations.plan_delete import MergePlan
from qmpsnap.operations.run import Progress as Callback


@contextmanager
def bar() -> Iterator[Callback | None]:
    """Give a callback for `run.delete`; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task: TaskID | None = None

        def update(plan: MergePlan, view: JobView) -> None:
            nonlocal task
            if task is None:
                text = printable(f"{plan.kind} {plan.top.file}").replace("[", "\\[")
                task = progress.add_task(text, total=None)
            progress.update(task, completed=view.current, total=view.total or None)

        yield update
