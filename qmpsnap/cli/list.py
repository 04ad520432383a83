"""`list`: the snapshots of a guest's disks."""

from __future__ import annotations

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road, measured, read_guest
from qmpsnap.cli.output import rows_option, show


@click.command("list", cls=Command, examples=("list web1", "list web1 vda"))
@click.argument("guest")
@click.argument("disk", required=False)
@rows_option
@click.pass_obj
def list_(road: Road, guest: str | None, disk: str | None, output: str) -> None:
    """List the snapshots of a guest's disks, newest first."""
    report = read_guest(road, guest)
    chosen = (report.disk(disk),) if disk is not None else report.disks
    files = measured(road, chosen)
    document = documents.snapshot_list(report, chosen, files)
    show(document, output, lambda _: [views.snapshot_list(chosen, files)])
