"""What the ledger's commands print: documents and tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from qmpsnap.cli.tables import Table

if TYPE_CHECKING:
    from qmpsnap.ledger.ledger import Ledger
    from qmpsnap.ledger.values import Difference, File, Operation, Refusal, Snapshot

Document = dict[str, object]


def whole(ledger: Ledger, where: str, volumes: Sequence[str] = ()) -> Document:
    """`qmpsnap.ledger/1`: what the ledger knows, of all volumes or of some."""
    of: Sequence[str | None] = volumes or (None,)
    files = [one for volume in of for one in ledger.files(volume)]
    snapshots = [one for volume in of for one in ledger.snapshots(volume)]
    working = [one for volume in of for one in ledger.open_operations(volume=volume)]
    doubted = [one for volume in of for one in ledger.differences(volume)]
    names = {one.snapshot for one in snapshots}
    refused = [one for one in ledger.refusals() if not volumes or one.snapshot in names]
    states = {one.snapshot: one for one in snapshots}
    return {
        "schema": "qmpsnap.ledger/1",
        "ledger": where,
        "files": [file(one) for one in files],
        "differences": [difference(one) for one in doubted],
        "snapshots": [snapshot(one) for one in snapshots],
        "operations": [_operation(one, states[one.snapshot]) for one in working],
        "refused": [_refusal(one) for one in refused],
        "present": [
            {"kind": one.kind, "host": one.host, "version": one.version, "at": when(one.at)}
            for one in ledger.presences()
        ],
    }


def file(one: File) -> Document:
    """One statement."""
    return {
        "volume": one.volume,
        "file": one.file,
        "format": one.format and one.format.value,
        "base": one.base,
        "backing": one.backing,
        "place": one.place.value,
        "size": one.size,
        "encrypted": one.encrypted,
        "witness": one.witness.value,
        "detail": one.detail,
        "operation": one.operation,
        "at": when(one.at),
        "believed": one.believed,
    }


def difference(one: Difference) -> Document:
    """What somebody stated otherwise."""
    return {
        "volume": one.said.volume,
        "file": one.said.file,
        "known": one.known.format and one.known.format.value,
        "said": one.said.format and one.said.format.value,
        "witness": one.said.witness.value,
        "operation": one.said.operation,
        "at": when(one.said.at),
        "alarm": one.is_alarm,
    }


def snapshot(one: Snapshot) -> Document:
    """A snapshot's newest state."""
    return {
        "volume": one.volume,
        "snapshot": one.snapshot,
        "state": one.state.word,
        "status": one.state.status,
        "control": one.state.control.value,
        "operation": one.operation,
        "why": one.why,
        "at": when(one.at),
    }


def _operation(one: Operation, state: Snapshot) -> Document:
    return {
        "id": one.token,
        "volume": one.volume,
        "snapshot": one.snapshot,
        "kind": one.kind.value,
        "file": one.file,
        "onto": one.onto,
        "host": one.host,
        "state": state.state.word,
        "control": state.state.control.value,
        "begun": when(one.begun),
    }


def _refusal(one: Refusal) -> Document:
    return {
        "snapshot": one.snapshot,
        "reason": one.reason,
        "times": one.times,
        "detail": one.detail,
        "first": when(one.first),
        "last": when(one.last),
    }


def when(moment: datetime) -> str:
    """A moment in UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def files_table(files: Iterable[File], title: str = "") -> Table:
    """One row a statement."""
    columns = ("VOLUME", "FILE", "FORMAT", "PLACE", "BACKING", "STATED BY", "SINCE", "DETAIL")
    rows = [
        (
            one.volume,
            one.file,
            (one.format or "unknown") + ("" if one.believed else " (not believed)"),
            one.place,
            one.backing,
            one.witness,
            when(one.at),
            one.detail,
        )
        for one in files
    ]
    return Table(columns, rows, heading=2, prose=("DETAIL",), title=title)


def differences_table(found: Iterable[Difference]) -> Table:
    """One row a difference."""
    rows = [
        (
            "ALARM" if one.is_alarm else "differs",
            one.said.volume,
            one.said.file,
            one.known.format or "unknown",
            one.said.format,
            one.said.witness,
            when(one.said.at),
            one.said.operation,
        )
        for one in found
    ]
    columns = ("", "VOLUME", "FILE", "KNOWN AS", "SAID", "BY", "WHEN", "OPERATION")
    return Table(columns, rows, heading=3, title="Stated otherwise, and not believed")


def snapshots_table(found: Iterable[Snapshot]) -> Table:
    """One row a snapshot."""
    rows = [
        (one.volume, one.snapshot, one.state.word, one.state.control, when(one.at), one.operation)
        for one in found
    ]
    columns = ("VOLUME", "SNAPSHOT", "STATE", "CONTROL", "SINCE", "OPERATION")
    return Table(columns, rows, heading=2, title="Snapshots")


def refusals_table(found: Iterable[Refusal]) -> Table:
    """One row a reason."""
    rows = [(one.snapshot, one.reason, one.times, when(one.last), one.detail) for one in found]
    columns = ("SNAPSHOT", "REASON", "TIMES", "LAST", "DETAIL")
    return Table(columns, rows, heading=2, prose=("DETAIL",), title="Refused status updates")
