"""`record`: a transcript of one reading."""

from __future__ import annotations

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import say


@click.command(cls=Command, examples=("record web1 web1.jsonl",))
@click.argument("guest")
@click.argument("file", type=click.Path(readable=False))
@click.pass_obj
def record(road: Road, guest: str | None, file: str) -> None:
    """
    Write to FILE what one reading of a guest asks and hears, for --replay and for bug reports.

    It holds file names and the whole domain XML, and no data of the guest.
    """
    road.record(guest, file)
    say(f"recorded; look at it with `qmpsnap --replay {file} chain`")
