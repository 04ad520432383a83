"""`revert`: a disk of a guest that is off goes back to a snapshot."""

from __future__ import annotations

import click

from qmpsnap import by_name
from qmpsnap.cli import plans
from qmpsnap.cli.command import Changing
from qmpsnap.cli.connection import Road
from qmpsnap.cli.interruptible import expecting
from qmpsnap.cli.journaling import journal_option
from qmpsnap.cli.options import allow_option, guards, plan_option
from qmpsnap.cli.output import output_option
from qmpsnap.cli.snapshots import tell
from qmpsnap.journal.file import Journal
from qmpsnap.journal.knowing import known_by
from qmpsnap.operations.forecast import forecast_create
from qmpsnap.operations.planned import Asked


@click.command(
    cls=Changing,
    examples=("revert web1 vda monday --plan", "revert web1 vda monday --also vdb"),
)
@click.argument("guest")
@click.argument("disk")
@click.argument("name")
@click.option(
    "--also",
    metavar="DISK",
    multiple=True,
    help="One more disk, back to its snapshot of the same name; may be given again. All, or none.",
)
@click.option(
    "--as",
    "new",
    metavar="NEW",
    help="Name of the snapshot that the disk is at afterwards.  [default: NAME and the time (UTC)]",
)
@allow_option
@plan_option
@journal_option
@output_option
@click.pass_obj
def revert(
    road: Road,
    guest: str | None,
    disk: str,
    name: str,
    also: tuple[str, ...],
    new: str | None,
    allow: tuple[str, ...],
    only_plan: bool,
    journal: Journal | None,
    output: str,
) -> None:
    """
    Let a disk go back to a snapshot. The guest has to be off.

    The disk gets a new, empty file over what it held at the snapshot. Nothing else is written: what
    it has held until now stays in its files, which are named. They are worth nothing without what
    they lie over, so merges into that are refused until they are removed.

    Refused where a commit into what the disk held was begun and not done: it holds newer data too.

    What is no file of the disk does not go back: firmware settings (nvram), TPM state, the memory.
    """
    with expecting(road, guest) as host:
        if only_plan:
            requests = by_name.revert_requests([disk, *also], name, new)
            allowed = guards(allow)
            way = plans.way_to(road, host)
            asked = Asked(create=tuple(requests), allow=tuple(allowed), way=way)
            looked = known_by(host, journal)
            forecasts = forecast_create(looked, requests, allow=allowed)
            plans.show_plans("revert", forecasts, output, asked)
            return
        done = by_name.revert(
            host, disk, name, also=also, name=new, allow=guards(allow), journal=journal
        )
    tell(f"{', '.join(one.disk.disk for one in done)} went back to {name}", "revert", done, output)
