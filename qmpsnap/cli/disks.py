"""`disks`: what disks a guest has."""

from __future__ import annotations

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road, read_guest
from qmpsnap.cli.output import rows_option, show


@click.command(cls=Command, examples=("disks web1", "disks web1 -o json"))
@click.argument("guest")
@rows_option
@click.pass_obj
def disks(road: Road, guest: str | None, output: str) -> None:
    """Show a guest's disks: active file, format, depth of the chain."""
    report = read_guest(road, guest)
    show(documents.disks(report), output, lambda _: [views.disks(report)])
