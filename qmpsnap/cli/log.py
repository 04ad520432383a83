"""`log`: what was done to the guests of this host, and what it came to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import Drawing, draw, say, show, timeline_option
from qmpsnap.cli.tables import Table
from qmpsnap.cli.units import moment, seconds_text
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry
from qmpsnap.journal.store import KEEP


@click.command(cls=Command, examples=("log", "log web1 vda", "log -o svg > history.svg"))
@click.argument("guest", required=False)
@click.argument("disk", required=False)
@click.option(
    "-n",
    "--number",
    metavar="N",
    type=click.IntRange(1, KEEP),
    default=KEEP,
    help="Show the newest N only.",
)
@timeline_option
@click.pass_obj
def log(road: Road, guest: str | None, disk: str | None, number: int, output: str) -> None:
    """
    Show what was done, when and by whom, with formats before and after, oldest first.

    It is read from this host's journal; no guest is asked. An open operation is one that
    `qmpsnap resume` has to settle.
    """
    journal = Journal()
    store = journal.looked_into()
    entries: Sequence[Entry] = ()
    notes: list[str] = []
    if store is None:
        notes.append(f"there is no journal at {journal.path}")
    else:
        with store:
            entries = store.entries()
            notes += store.notes
    chosen = [one for one in entries if _is_meant(one, road, guest, disk)][-number:]
    for note in notes:
        say(f"note: {note}")
    document = {
        "schema": "qmpsnap.log/1",
        "journal": str(journal.path),
        "operations": [entry_document(one) for one in chosen],
        "notes": notes,
    }
    if output == Drawing.SVG:
        from qmpsnap.cli.drawing.timeline import timeline

        draw(timeline(chosen, time.time()))
        return
    show(document, output, lambda _: [table(chosen)])


def _is_meant(entry: Entry, road: Road, guest: str | None, disk: str | None) -> bool:
    record = entry.record
    if road.qmp is not None and record.where.at != _absolute(road.qmp):
        return False
    if guest is not None and guest not in (record.guest, record.where.guest):
        return False
    return disk is None or disk in record.disks


def _absolute(path: str) -> str:
    import os.path

    return os.path.abspath(path)


def entry_document(entry: Entry) -> dict[str, object]:
    """One operation of `qmpsnap.log/1`."""
    record, end, took = entry.record, entry.conclusion, _took(entry)
    return {
        "id": record.id,
        "kind": record.kind,
        "guest": record.guest,
        "disks": list(record.disks),
        "outcome": "open" if end is None else end.outcome,
        "begun": time_text(record.begun),
        "ended": None if end is None else time_text(end.ended),
        "seconds": None if took is None else round(took, 3),
        "by": record.by,
        "host": record.host,
        "road": record.where.road,
        "at": record.where.at,
        "formats_before": record.before,
        "formats_after": None if end is None else end.after,
        "file_format": None if end is None else end.file_format,
        "active": [] if end is None else list(end.active),
        "removed": [] if end is None else list(end.removed),
        "kept": [] if end is None else [path for one in end.kept for path in one.files],
        "consistency": None if end is None else end.consistency,
        "frozen_s": None if end is None else end.frozen_s,
        "error": None if end is None else end.error,
        "message": None if end is None else end.message,
        "notes": [] if end is None else list(end.notes),
        "resumed": end is not None and end.resumed,
        "token": record.token,
    }


def table(entries: Iterable[Entry]) -> Table:
    """One row an operation."""
    rows = [
        (
            time_text(entry.record.begun),
            entry.record.guest,
            ", ".join(entry.record.disks),
            entry.record.kind,
            _came_to(entry),
            None if (took := _took(entry)) is None else seconds_text(took),
            entry.record.by,
            _formats(entry),
            entry.record.id,
        )
        for entry in entries
    ]
    columns = ("BEGUN", "GUEST", "DISK", "KIND", "CAME TO", "TOOK", "BY", "FORMATS", "ID")
    return Table(columns, rows, heading=2, prose=("FORMATS",))


def _came_to(entry: Entry) -> str:
    end = entry.conclusion
    if end is None:
        return "open"
    words = [
        end.outcome,
        *([end.error] if end.error else []),
        *(["resumed"] if end.resumed else []),
    ]
    if end.consistency is not None:
        words.append(f"{end.consistency}-consistent")
    return ", ".join(words)


def _formats(entry: Entry) -> str:
    """Of each file that was or is in the chain: what it was, and what it is where that differs."""
    before, end = entry.record.before, entry.conclusion
    after = before if end is None or not end.after else end.after
    said = []
    for name in dict.fromkeys((*after, *before)):
        was, now = before.get(name), after.get(name)
        if was == now:
            said.append(f"{name}: {now}")
        else:
            said.append(f"{name}: {was or 'new'} -> {now or 'left the chain'}")
    return ", ".join(said)


def _took(entry: Entry) -> float | None:
    """Seconds; None of what is open, and where a marker of somebody else had no time at all."""
    took = None if entry.conclusion is None else entry.conclusion.ended - entry.record.begun
    return took if took is not None and math.isfinite(took) else None


def time_text(seconds: float) -> str:
    """A moment in UTC, to the second: `2026-11-26T04:46:03Z`; `?` for what is no time."""
    return moment(seconds) or "?"
