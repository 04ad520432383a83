"""`job cancel`, `pause`, `resume` and `set-speed`."""

from __future__ import annotations

import click

from qmpsnap.cli import plans
from qmpsnap.cli.command import Changing
from qmpsnap.cli.connection import Road
from qmpsnap.cli.interruptible import expecting
from qmpsnap.cli.options import plan_as
from qmpsnap.cli.output import say
from qmpsnap.cli.units import BytesPerSecond
from qmpsnap.operations.forecast import forecast_control
from qmpsnap.operations.job import verbs
from qmpsnap.operations.job.states import JobReport, Verb, copied
from qmpsnap.operations.space import bytes_text


@click.command(cls=Changing, examples=("job cancel web1 vda", "job cancel web1 vda --plan"))
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def cancel(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Cancel a job, and wait for its end. The chain stays as it was.

    JOB is its id, or the disk when it has one job.
    """
    if done := _act(road, guest, Verb.CANCEL, job, plan):
        say(f"job {done.id} was cancelled")
        if done.type == "commit":
            say(copied(done.type))


@click.command(cls=Changing, examples=("--qmp /run/web1.qmp job pause vda",))
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def pause(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Pause a job (not under libvirt).

    JOB is its id, or the disk when it has one job.
    """
    if done := _act(road, guest, Verb.PAUSE, job, plan):
        say(f"job {done.id} is paused; it goes on after `qmpsnap job resume`")


@click.command(cls=Changing, examples=("--qmp /run/web1.qmp job resume vda",))
@click.argument("guest")
@click.argument("job")
@plan_as
@click.pass_obj
def resume(road: Road, guest: str | None, job: str, plan: str | None) -> None:
    """
    Resume a job that was paused, or has paused itself on an error (not under libvirt).

    JOB is its id, or the disk when it has one job.
    """
    if done := _act(road, guest, Verb.RESUME, job, plan):
        say(f"job {done.id} goes on")


@click.command(
    "set-speed", cls=Changing, examples=("job set-speed web1 vda 50M", "job set-speed web1 vda 0")
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
    limit = f"{bytes_text(bandwidth)}/s" if bandwidth else "any speed"
    if done := _act(road, guest, Verb.SET_SPEED, job, plan, bandwidth):
        say(f"job {done.id} may copy at {limit} from now on")


def _act(
    road: Road, guest: str | None, verb: Verb, job: str, plan: str | None, bandwidth: int = 0
) -> JobReport | None:
    """Do it to the job, and return what it was; or show the plan in this form."""
    with expecting(road, guest) as host:
        if plan is not None:
            plans.show_plans(verb, (forecast_control(host, verb, job, bandwidth),), plan)
            return None
        match verb:
            case Verb.CANCEL:
                return verbs.cancel(host, job)
            case Verb.PAUSE:
                return verbs.pause(host, job)
            case Verb.RESUME:
                return verbs.resume(host, job)
            case Verb.SET_SPEED:
                return verbs.set_speed(host, job, bandwidth)
