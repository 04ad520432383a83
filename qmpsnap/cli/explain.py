"""`explain`: whose a file is, how its format is known, who uses it, and whether it may go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click
import msgspec

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import output_option, say, show
from qmpsnap.cli.tables import Screen
from qmpsnap.cli.text import INDENT, fold, printable
from qmpsnap.cli.units import moment, moment_text
from qmpsnap.cli.views import size
from qmpsnap.cli.who_uses import asked_document, asked_text, check_local, folder_of, guests_of
from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.formats.layers import Disk, Disks, Identity, Layer
from qmpsnap.guests.census import Answer, Asked, FileUse, who_uses
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.measure import Measure, measured
from qmpsnap.operations.names import snapshots


class NoSuchFile(Refused):
    """There is no image of this name on this host."""

    msg = "{self.path} is neither a file nor a block device of this host"
    remedy = "Give the path of an image, as `qmpsnap chain -o json` shows it."

    path: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the file stands in a chain."""

    guest: str | None
    disk: Disk
    position: int

    @property
    def layer(self) -> Layer:
        return self.disk.layers[self.position]

    @property
    def words(self) -> str:
        """Its part in the chain, in words."""
        words = "active layer" if self.position == 0 else f"layer {self.position}"
        known = snapshots(self.disk)
        words += "".join(
            f", data of snapshot {one.name}" for one in known if one.data is self.layer
        )
        return words + "".join(
            f", written since snapshot {one.name}" for one in known if one.overlay is self.layer
        )


MAY_GO = {
    Answer.USED: "no: it is used",
    Answer.UNUSED: "yes: everybody was asked, and nobody uses it",
    Answer.UNKNOWN: "not known: nobody is known to use it, but not everybody could be asked",
}


@click.command(
    cls=Command,
    one_guest=True,
    examples=("explain /share/volume-1.monday", "--qmp /run/web1.qmp explain disk.qcow2 -o json"),
)
@click.argument("file", type=click.Path(readable=False))
@output_option
@click.pass_obj
def explain(road: Road, file: str, output: str) -> None:
    """
    Tell whose a file is, how its format is known, who uses it, and whether it may go.

    The same are asked as by `orphans`. Names are compared by what they lead to: FILE may be a
    symbolic link, or another name of an image. The format is what the witnesses of the guest say
    that has it in a chain; of a file that is in no chain nobody states a format, and its bytes do
    not tell.
    """
    check_local(road, "explain")
    key = identity(file)
    if key is None:
        raise NoSuchFile(file)
    path = os.path.realpath(file)
    report = road.read(None) if road.qmp is not None else None
    asked = who_uses(folder_of(path), guests_of(road, report), only=path)
    (use,) = asked.files
    reports = [report] if report is not None else list(_reports(road, use))
    places = [place for one in reports for place in _places(one, key)]
    seen = measured([path]).get(path, Measure())
    show(
        _document(path, use, asked, places, seen),
        output,
        lambda here: view(path, use, asked, places, seen, here),
    )


def _reports(road: Road, use: FileUse) -> Iterator[Disks]:
    for guest in dict.fromkeys(one.guest for one in use.uses if one.guest is not None):
        try:
            yield road.read(guest)
        except QmpsnapError as error:
            say(f"note: guest {guest} uses it, and cannot be read: {error}")


def _places(report: Disks, key: Identity) -> Iterator[Place]:
    for disk in report.disks:
        for position, layer in enumerate(disk.layers):
            if layer.path is not None and identity(layer.path) == key:
                yield Place(guest=report.guest, disk=disk, position=position)


def _document(
    path: str, use: FileUse, asked: Asked, places: Sequence[Place], seen: Measure
) -> dict[str, object]:
    """`qmpsnap.explain/1`."""
    return {
        "schema": "qmpsnap.explain/1",
        "file": os.path.basename(path),
        "path": path,
        "size": seen.size,
        "allocated": seen.allocated,
        "created": moment(seen.created),
        "modified": moment(seen.modified),
        "answer": use.answer.value,
        "uses": [{"by": one.by, "who": one.who, "guest": one.guest} for one in use.uses],
        "layers": [
            {
                "guest": one.guest,
                "disk": one.disk.disk,
                "position": one.position,
                "format": one.layer.format,
                "verdict": one.layer.verdict.value,
                "evidence": [
                    {"witness": said.witness.value, "format": said.format, "detail": said.detail}
                    for said in one.layer.evidence
                ],
            }
            for one in places
        ],
        **asked_document(asked),
        "gaps": list(use.gaps),
    }


def view(
    path: str,
    use: FileUse,
    asked: Asked,
    places: Sequence[Place],
    seen: Measure,
    here: Screen,
) -> Iterator[str]:
    yield here.paint(printable(path), "bold")
    facts = [f"{size(seen.allocated)} on disk", f"created {moment_text(seen.created) or '-'}"]
    yield from _lines(
        "file", [", ".join((*facts, f"written {moment_text(seen.modified) or '-'}"))], here
    )
    of = [f"{one.guest or 'the guest'} {one.disk.disk}: {one.words}" for one in places]
    yield from _lines("whose", of or ["in no chain of a guest that could be read"], here)
    formats = [f"{one.layer.format or '?'} ({one.layer.verdict.value})" for one in places]
    said = [
        f"{one.witness.value}: {one.format} ({one.detail})"
        for place in places
        for one in place.layer.evidence
    ]
    lines = list(dict.fromkeys((*formats, *said)))
    yield from _lines("format", lines or ["nobody states one, and its bytes do not tell"], here)
    yield from _lines("used by", [one.who for one in use.uses] or ["nobody who was asked"], here)
    yield from _lines("may go", [MAY_GO[use.answer], *map(str, use.gaps * (not use.uses))], here)
    yield from _lines("asked", [next(asked_text(asked)).removeprefix("asked: ")], here)


def _lines(label: str, texts: Sequence[str], here: Screen) -> Iterator[str]:
    for number, text in enumerate(texts):
        first = here.paint(f"{label:8}", "dim") if number == 0 else " " * 8
        folded = fold(printable(text), None if here.width is None else here.width - 10)
        yield f"{INDENT}{first}{folded[0]}"
        yield from (INDENT + " " * 8 + line for line in folded[1:])
