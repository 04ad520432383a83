"""`list`: the snapshots of a guest's disks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import click

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road, measured, read_guest
from qmpsnap.cli.output import rows_option, say, show
from qmpsnap.formats.layers import Disk


@click.command("list", cls=Command, examples=("list web1", "list web1 vda"))
@click.argument("guest")
@click.argument("disk", required=False)
@rows_option
@click.pass_obj
def list_(road: Road, guest: str | None, disk: str | None, output: str) -> None:
    """List the snapshots of a guest's disks, newest first."""
    report = read_guest(road, guest)
    chosen = (report.disk(disk),) if disk is not None else report.disks
    for note in _mixed(chosen) if road.is_local else ():
        say(f"note: {note}")
    files = measured(road, chosen)
    document = documents.snapshot_list(report, chosen, files)
    show(document, output, lambda _: [views.snapshot_list(chosen, files)])


def _mixed(disks: Iterable[Disk]) -> Iterator[str]:
    """Of files that hold no snapshot any more: a commit into them was begun and not done."""
    from qmpsnap.journal.file import DEFAULT
    from qmpsnap.journal.folder import JournalUnusable
    from qmpsnap.journal.knowing import mixing
    from qmpsnap.journal.mixed import states_lost

    try:
        store = DEFAULT.looked_into()
        if store is None:
            return
        with store:
            known = mixing(store)
    except JournalUnusable as error:
        yield str(error)
        return
    for disk in disks:
        for path, why in states_lost(known, disk).items():
            file = os.path.basename(path)
            yield f"{file} does not hold any more what it did at a snapshot: {why}, and was not done"
