"""`ledger show` and `ledger history`."""

from __future__ import annotations

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.ledger import documents
from qmpsnap.cli.ledger.where import ledger_option, opened
from qmpsnap.cli.output import rows_option, say, show
from qmpsnap.cli.tables import Table
from qmpsnap.ledger.named import words


@click.command(
    "show",
    cls=Command,
    examples=("ledger show", "ledger show 1c0f8a8e-6c5b-4d0e-9b57-3b1d3c1f8a11 -o json"),
)
@click.argument("volume", required=False)
@ledger_option
@rows_option
def show_(volume: str | None, url: str | None, output: str) -> None:
    """
    Show the format of every file, who stated it, and every snapshot with who has control of it.

    Also what somebody stated otherwise (a raw file that is suddenly called qcow2 is an ALARM), and
    which status updates were refused.
    """
    with opened(url) as store, store.reading() as ledger:
        of = () if volume is None else (volume,)
        document = documents.whole(ledger, _name(store.engine), of)
        tables: list[str | Table] = [documents.files_table(ledger.files(volume))]
        doubted = ledger.differences(volume)
        if doubted:
            tables += ["", documents.differences_table(doubted)]
        snapshots = ledger.snapshots(volume)
        if snapshots:
            tables += ["", documents.snapshots_table(snapshots)]
        names = {one.snapshot for one in snapshots}
        refused = [one for one in ledger.refusals() if volume is None or one.snapshot in names]
        if refused:
            tables += ["", documents.refusals_table(refused)]
    if doubted:
        say(
            f"note: {len(doubted)} statements are not believed; `qmpsnap ledger set VOLUME FILE "
            f"--format FORMAT --why REASON{words()}` settles those of a file"
        )
    show(document, output, lambda _: tables)


@click.command(
    "history",
    cls=Command,
    examples=("ledger history 1c0f8a8e-6c5b-4d0e-9b57-3b1d3c1f8a11",),
)
@click.argument("volume")
@click.argument("file", required=False)
@ledger_option
@rows_option
def history(volume: str, file: str | None, url: str | None, output: str) -> None:
    """Show everything that was ever stated of a volume's files, or of one, oldest first."""
    with opened(url) as store, store.reading() as ledger:
        found = ledger.history(volume, file)
        states = ledger.states(volume) if file is None else ()
    document: documents.Document = {
        "schema": "qmpsnap.history/1",
        "volume": volume,
        "statements": [documents.file(one) for one in found],
        "states": [documents.snapshot(one) for one in states],
    }
    tables: list[str | Table] = [documents.files_table(found)]
    if states:
        tables += ["", documents.snapshots_table(states)]
    show(document, output, lambda _: tables)


def _name(engine: object) -> str:
    from sqlalchemy.engine import Engine

    from qmpsnap.ledger.schema import name

    assert isinstance(engine, Engine)
    return name(engine)
