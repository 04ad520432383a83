"""`chain`: every layer of a guest's disks."""

from __future__ import annotations

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.connection import GuestCommand, Road, read_guest
from qmpsnap.cli.drawing.graphviz import svg
from qmpsnap.cli.drawing.picture import picture
from qmpsnap.cli.output import Drawing, drawing_option, show, write


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("disk", required=False)
@drawing_option
@click.pass_obj
def chain(road: Road, guest: str | None, disk: str | None, output: str) -> None:
    """
    Show every layer of a guest's disks with format, witnesses and verdict.

    DISK is a target (vda), a serial (the volume id), a device id or a node name.

    dot and svg draw all block nodes and jobs with them, and, without DISK, what is on no disk;
    svg needs Graphviz.
    """
    report = read_guest(road, guest)
    chosen = (report.disk(disk),) if disk else report.disks
    if output in (*Drawing,):
        drawn = picture(report, chosen)
        write(svg(drawn) if output == Drawing.SVG else drawn, nl=False)
        return
    show(documents.chain(report, chosen), output, lambda: views.chain(chosen))
