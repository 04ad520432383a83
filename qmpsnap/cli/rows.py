"""`-o csv`: the rows of a document, one a line, for spreadsheets and `cut`. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qmpsnap.cli.text import printable

COLUMNS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "qmpsnap.chain/1": (
        ("disks", "layers"),
        "guest disk serial kind file path format verdict virtual_size allocated created modified "
        "node flags evidence",
    ),
    "qmpsnap.disks/1": (
        ("disks",),
        "guest disk serial kind read_only format verdict virtual_size depth file path",
    ),
    "qmpsnap.findings/1": (("findings",), "severity id guest disk file node message remedy"),
    "qmpsnap.guests/1": (
        ("guests", "disks"),
        "guest uuid running disk serial kind format verdict virtual_size depth file path findings "
        "error",
    ),
    "qmpsnap.jobs/1": (
        ("jobs",),
        "id type disk status current total rate seconds_left bandwidth io_status error ours",
    ),
    "qmpsnap.history/1": (
        ("statements",),
        "at volume file format base backing place size encrypted witness believed operation detail",
    ),
    "qmpsnap.ledger/1": (
        ("files",),
        "volume file format base backing place size encrypted witness at operation detail",
    ),
    "qmpsnap.log/1": (
        ("operations",),
        "id kind guest disks outcome begun ended seconds by host road",
    ),
    "qmpsnap.orphans/1": (
        ("files",),
        "guest disk file path answer size allocated created modified gaps",
    ),
    "qmpsnap.outbox/1": (
        ("updates",),
        "id since snapshot volume kind outcome state attempts next_try answer operation token to",
    ),
    "qmpsnap.snapshots/1": (
        ("snapshots",),
        "guest disk name created virtual_size data data_format data_allocated overlay "
        "overlay_allocated",
    ),
}
"""By schema: which list of the document are its rows, and the keys that are shown of them."""

_THINGS: Final = frozenset({"uuid", "layers"})
"""What a guest or a disk is known by: one without rows below it is there all the same."""

Row = Mapping[str, object]


def csv_text(document: Row) -> str:
    """
    Lay a document out: a line of names, then a line a row.

    Names are the document's keys; what stands above a row is repeated in it, and what has no rows
    below it (a guest without disks) has one of its own. Lists are joined by blanks, evidence is
    `qmp=raw header=raw`. What would act on a terminal is escaped as in a table.
    """
    path, names = COLUMNS[str(document["schema"])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names.split())
    for row in _rows(document, path):
        writer.writerow([_cell(row.get(name)) for name in names.split()])
    return text.getvalue()


def _rows(part: Row, path: Sequence[str]) -> Iterator[Row]:
    if not path:
        yield part
        return
    below = part[path[0]]
    assert isinstance(below, Sequence)
    for one in below:
        for row in _rows(one, path[1:]):
            yield {**part, **row}
    if not below and part.keys() & _THINGS:
        yield part


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(_word, value))
        case Mapping():
            return " ".join(f"{name}={_cell(one)}" for name, one in value.items())
        case _:
            return printable(value)


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return printable(f"{value['witness']}={value['format']}")
    return printable(value)
