"""`job list`: every block job of a guest, and how fast it is."""

from __future__ import annotations

import time
from typing import Final

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import rows_option, show
from qmpsnap.operations.guest import Jobs
from qmpsnap.operations.job.pace import Pace, Rates
from qmpsnap.operations.job.states import JobReport, JobStatus

BETWEEN_S: Final = 0.5
"""Seconds between the two looks that a rate takes."""


@click.command("list", cls=Command, examples=("job list web1", "job list web1 -o json"))
@click.argument("guest")
@rows_option
@click.pass_obj
def list_(road: Road, guest: str | None, output: str) -> None:
    """
    List the block jobs of a guest, this tool's and others'.

    While one runs, it looks twice, half a second apart, for the rate.
    """
    with road.open(guest) as host:
        found, rates = _looked_twice(host)
    show(documents.jobs(found, rates), output, lambda _: [views.jobs(found, rates)])


def _looked_twice(host: Jobs) -> tuple[tuple[JobReport, ...], dict[str, Rates]]:
    first = host.jobs()
    if not any(job.view.status is JobStatus.RUNNING for job in first):
        return first, {}
    began = time.monotonic()
    time.sleep(BETWEEN_S)
    second, now = host.jobs(), time.monotonic()
    paces = {job.id: Pace().seen(job.view, began) for job in first}
    rates = {
        job.id: pace.rates
        for job in second
        if (pace := paces.get(job.id, Pace()).seen(job.view, now))
    }
    return second, {name: rate for name, rate in rates.items() if rate is not None}
