"""`chain`: every layer of a guest's disks."""

from __future__ import annotations

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road, measured, read_guest
from qmpsnap.cli.output import Drawing, draw, drawing_option, show


@click.command(
    cls=Command,
    examples=(
        "chain web1",
        "chain web1 vda -o json",
        "--qmp /run/web1.qmp chain vda -o svg > chain.svg",
    ),
)
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
    chosen = (report.disk(disk),) if disk is not None else report.disks
    if output in (*Drawing,):
        from qmpsnap.cli.drawing.graphviz import svg
        from qmpsnap.cli.drawing.picture import picture

        drawn = picture(report, chosen)
        draw(svg(drawn) if output == Drawing.SVG else drawn)
        return
    files = measured(road, chosen)
    document = documents.chain(report, chosen, files)
    show(document, output, lambda here: views.chain(chosen, here, files))
