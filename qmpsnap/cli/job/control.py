"""`job cancel`, `pause`, `resume` and `set-speed`."""

from __future__ import annotations

import click

from qmpsnap.cli import plans
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.options import plan_as
from qmpsnap.cli.output import say
from qmpsnap.cli.units import BytesPerSecond
from qmpsnap.operations.forecast import forecast_control
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job import verbs
from qmpsnap.operations.job.states import Verb
from qmpsnap.operations.space import bytes_text


@click.command(cls=Command, examples=("job cancel web1 vda", "job cancel web1 vda --plan"))
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


@click.command(cls=Command, examples=("--qmp /run/web1.qmp job pause vda",))
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
    say(f"job {done.id} is paused; it goes on after `qmpsnap job resume`")


@click.command(cls=Command, examples=("--qmp /run/web1.qmp job resume vda",))
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def resume(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Resume a job that was paused, or has paused itself on an error (not under libvirt).

    JOB is its id, or the disk when it has one job.
    """
    with road.open(guest) as host:
        if plan is not None:
            _show_plan(host, Verb.RESUME, job, plan)
            return
        done = verbs.resume(host, job)
    say(f"job {done.id} goes on")


@click.command(
    "set-speed", cls=Command, examples=("job set-speed web1 vda 50M", "job set-speed web1 vda 0")
)
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
