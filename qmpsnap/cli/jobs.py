"""`jobs`, `wait`, `cancel`, `pause`, `resume` and `set-speed`: what runs, and what to do with it."""

from __future__ import annotations

import time
from typing import Final

import click

from qmpsnap.cli import documents, plans, views
from qmpsnap.cli.options import plan_as
from qmpsnap.cli.output import output_option, say, show
from qmpsnap.cli.progress import shown
from qmpsnap.cli.road import GuestCommand, Road
from qmpsnap.cli.units import BytesPerSecond, Seconds
from qmpsnap.operations.forecast import forecast_control
from qmpsnap.operations.guest import Guest, Jobs
from qmpsnap.operations.job import verbs
from qmpsnap.operations.job.pace import Pace, Rates
from qmpsnap.operations.job.states import JobReport, JobStatus, Verb
from qmpsnap.operations.space import bytes_text

BETWEEN_S: Final = 0.5
"""Seconds between the two looks that a rate takes."""


@click.command(cls=GuestCommand)
@click.argument("guest")
@output_option
@click.pass_obj
def jobs(road: Road, guest: str | None, output: str) -> None:
    """
    List the block jobs of a guest, this tool's and others'.

    While one runs, it looks twice, half a second apart, for the rate.
    """
    with road.open(guest) as host:
        found, rates = _looked_twice(host)
    show(documents.jobs(found, rates), output, lambda: views.jobs(found, rates))


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


@click.command(cls=GuestCommand)
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


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def cancel(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Cancel a job, and wait for its end. The chain stays as it was.

    JOB is its id, or the disk when it has one job.
    """
    with road.open(guest) as host:
        if plan is not None:
            _show_plan(host, Verb.CANCEL, job, plan)
            return
        done = verbs.cancel(host, job)
    say(f"job {done.id} was cancelled")


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def pause(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Pause a job (not under libvirt).

    JOB is its id, or the disk when it has one job.
    """
    with road.open(guest) as host:
        if plan is not None:
            _show_plan(host, Verb.PAUSE, job, plan)
            return
        done = verbs.pause(host, job)
    say(f"job {done.id} is paused; it goes on after `qmpsnap resume`")


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def resume(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Let a job go on that was paused, or has paused itself on an error (not under libvirt).

    JOB is its id, or the disk when it has one job.
    """
    with road.open(guest) as host:
        if plan is not None:
            _show_plan(host, Verb.RESUME, job, plan)
            return
        done = verbs.resume(host, job)
    say(f"job {done.id} goes on")


@click.command("set-speed", cls=GuestCommand)
@click.argument("guest")
@click.argument("job")
@click.argument("bandwidth", type=BytesPerSecond())
@plan_as
@click.pass_obj
def set_speed(road: Road, guest: str | None, job: str, bandwidth: int, plan: str | None) -> None:
    """
    Limit a running job to so many bytes a second; 0 for no limit.

    JOB is its id, or the disk when it has one job. BANDWIDTH may end in K, M or G.
    """
    with road.open(guest) as host:
        if plan is not None:
            _show_plan(host, Verb.SET_SPEED, job, plan, bandwidth)
            return
        done = verbs.set_speed(host, job, bandwidth)
    limit = f"{bytes_text(bandwidth)}/s" if bandwidth else "any speed"
    say(f"job {done.id} may copy at {limit} from now on")


def _show_plan(host: Guest, verb: Verb, job: str, output: str, bandwidth: int = 0) -> None:
    plans.show_plans(verb, (forecast_control(host, verb, job, bandwidth),), output)
