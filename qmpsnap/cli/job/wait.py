"""`job wait`: until a job has ended."""

from __future__ import annotations

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import say
from qmpsnap.cli.progress import shown
from qmpsnap.cli.units import Seconds
from qmpsnap.operations.job import verbs


@click.command(cls=Command, examples=("job wait web1 vda", "job wait web1 vda --timeout 60"))
@click.argument("guest")
@click.argument("job")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Seconds(0, min_open=True),
    help="Stop waiting after so long; the job goes on.",
)
@click.pass_obj
def wait(road: Road, guest: str | None, job: str, timeout: float | None) -> None:
    """
    Wait until a job has ended.

    JOB is its id, or the disk when it has one job. A job of a `delete` that was interrupted stops
    before it changes the chain; only the same `delete` command, given again, finishes it.
    """
    with road.open(guest) as host, shown() as screen:
        done = verbs.wait_for(
            host,
            job,
            timeout_s=timeout,
            progress=lambda seen: screen.update(f"{seen.type} {seen.disk or seen.id}", seen.view),
        )
    say(f"job {done.id} has ended; `qmpsnap chain` shows the chain")
