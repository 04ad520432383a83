"""`disks`, `chain` and `list`: what there is. They read only."""

from __future__ import annotations

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.graphviz import svg
from qmpsnap.cli.output import Drawing, drawing_option, output_option, say, show, write
from qmpsnap.cli.picture import picture
from qmpsnap.cli.road import GuestCommand, Road
from qmpsnap.formats.layers import Disks
from qmpsnap.operations.volume import find_disk


def _read(road: Road, guest: str | None) -> Disks:
    report = road.read(guest)
    for note in report.notes:
        say(f"note: {note}")
    return report


@click.command(cls=GuestCommand)
@click.argument("guest")
@output_option
@click.pass_obj
def disks(road: Road, guest: str | None, output: str) -> None:
    """Show a guest's disks: active file, format, depth of the chain."""
    report = _read(road, guest)
    show(documents.disks(report), output, lambda: views.disks(report))


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
    report = _read(road, guest)
    chosen = (find_disk(report, disk),) if disk else report.disks
    if output in (*Drawing,):
        drawn = picture(report, chosen)
        write(svg(drawn) if output == Drawing.SVG else drawn, nl=False)
        return
    show(documents.chain(report, chosen), output, lambda: views.chain(chosen))


@click.command("list", cls=GuestCommand)
@click.argument("guest")
@click.argument("disk", required=False)
@output_option
@click.pass_obj
def list_(road: Road, guest: str | None, disk: str | None, output: str) -> None:
    """List the snapshots of a guest's disks, newest first."""
    report = _read(road, guest)
    chosen = (find_disk(report, disk),) if disk else report.disks
    document = documents.snapshot_list(report, chosen)
    show(document, output, lambda: views.snapshot_list(chosen))


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("file")
@click.pass_obj
def record(road: Road, guest: str | None, file: str) -> None:
    """
    Write to FILE what one reading of a guest asks and hears, for --replay and for bug reports.

    It holds file names and the whole domain XML, and no data of the guest.
    """
    road.record(guest, file)
    say(f"recorded; look at it with `qmpsnap --replay {file} chain`")
