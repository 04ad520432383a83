"""`orphans`: files beside a chain that nobody uses, as far as everybody could be asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road, read_guest
from qmpsnap.cli.output import rows_option, show
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import fold, printable
from qmpsnap.cli.units import moment, moment_text
from qmpsnap.cli.views import size
from qmpsnap.cli.who_uses import asked_document, asked_text, check_local, folder_of, guests_of
from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.census import Answer, Asked, FileUse, who_uses
from qmpsnap.guests.files.measure import Measure, measured


class NoFolder(Refused):
    """The disk has no file on this host, so nothing lies beside it."""

    msg = "{self.disk} has no file on this host"
    remedy = "`orphans` looks at disks that are files; see `qmpsnap chain`."

    disk: str


@click.command(cls=Command, examples=("orphans web1 vda", "orphans web1 vda -o json"))
@click.argument("guest")
@click.argument("disk")
@rows_option
@click.pass_obj
def orphans(road: Road, guest: str | None, disk: str, output: str) -> None:
    """
    List the files beside a disk's active file that nobody uses. Removes nothing.

    Asked are: every file beside it, for the names in its header; every guest of libvirt, running or
    off, for what its definition, its saved memory and its snapshots name, with the chains below;
    and every process of this host. A file that nobody names is `unused` only if all of them could
    be asked, else `unknown`, and the reasons are told. Other hosts are not asked, and a file of
    another folder that no guest uses is not seen: look at who was asked before you remove anything.

    On --qmp, no file is called unused: there may be guests that are off and that nobody lists.
    """
    check_local(road, "orphans")
    report = read_guest(road, guest)
    chosen = report.disk(disk)
    asked = who_uses(folder_of(_active(chosen)), guests_of(road, report))
    found = [one for one in asked.files if one.answer is not Answer.USED]
    files = measured(one.path for one in found)
    document = {
        "schema": "qmpsnap.orphans/1",
        "guest": report.guest,
        "disk": chosen.disk,
        **asked_document(asked),
        "files": [_file(one, files.get(one.path, Measure())) for one in found],
        "used": len(asked.files) - len(found),
    }
    show(document, output, lambda here: view(asked, found, files, here))


def _active(disk: Disk) -> str:
    path = disk.layers[0].path if disk.layers else None
    if path is None or not os.path.isabs(path):
        raise NoFolder(disk.disk)
    return path


def _file(one: FileUse, seen: Measure) -> dict[str, object]:
    return {
        "file": os.path.basename(one.path),
        "path": one.path,
        "answer": one.answer.value,
        "gaps": list(one.gaps),
        "size": seen.size,
        "allocated": seen.allocated,
        "created": moment(seen.created),
        "modified": moment(seen.modified),
    }


def view(
    asked: Asked, found: Sequence[FileUse], files: dict[str, Measure], here: Screen
) -> Iterator[str | Table]:
    rows = [
        (
            os.path.basename(one.path),
            one.answer.value,
            size((seen := files.get(one.path, Measure())).allocated),
            moment_text(seen.modified),
        )
        for one in found
    ]
    if rows:
        yield Table(("FILE", "USED", "ON DISK", "WRITTEN"), rows, title=asked.folder)
    total = sum(files.get(one.path, Measure()).allocated or 0 for one in found)
    used = len(asked.files) - len(found)
    many = "1 file" if len(found) == 1 else f"{len(found)} files"
    yield from fold(f"{many} that nobody is known to use ({size(total)}), {used} used", here.width)
    own = {gap for one in found for gap in one.gaps} - {*asked.gaps}
    for line in (*asked_text(asked), *(f"not certain: {gap}" for gap in sorted(own))):
        yield from fold(printable(line), here.width)
