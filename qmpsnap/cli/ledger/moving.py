"""`ledger import` and `ledger export`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from qmpsnap.cli.command import Changing, Command
from qmpsnap.cli.ledger import documents
from qmpsnap.cli.ledger.where import ledger_option, opened
from qmpsnap.cli.output import output_option, say, show, write

if TYPE_CHECKING:
    from qmpsnap.ledger.exchange import Volume
    from qmpsnap.ledger.ledger import Ledger
    from qmpsnap.ledger.values import File

_FOUND: Final = 3
_MOST: Final = 1 << 27
"""Bytes that are read: more than a document may have."""


@click.command("export", cls=Command, examples=("ledger export > ledger.json",))
@click.argument("volume", nargs=-1)
@ledger_option
def export(volume: tuple[str, ...], url: str | None) -> None:
    """Print what the ledger knows, of all volumes or some, as JSON that `ledger import` reads."""
    from qmpsnap.ledger.schema import name

    with opened(url) as store, store.reading() as ledger:
        document = documents.whole(ledger, name(store.engine), volume)
    write(json.dumps(document, indent=1))


@click.command("import", cls=Changing, examples=("ledger import ledger.json",))
@click.argument("file", type=click.Path(allow_dash=True))
@ledger_option
@output_option
@click.pass_context
def import_(ctx: click.Context, file: str, url: str | None, output: str) -> None:
    """
    Take over what another ledger exported: files that this one lacks, and formats it does not know.

    What contradicts it is kept, shown and not believed (exit code 3). Volume by volume, so it may
    be interrupted and given again. FILE may be `-`.
    """
    from qmpsnap.ledger.chain import ChainUnknown
    from qmpsnap.ledger.exchange import parse

    volumes = parse(_read(file), file)
    stated = 0
    doubted: list[File] = []
    skipped: dict[str, str] = {}
    with opened(url, make=True) as store:
        for one in volumes:
            try:
                added, kept = store.run(lambda ledger, one=one: _take(ledger, one))  # type: ignore[misc]
            except ChainUnknown as error:
                skipped[one.volume] = error.reason
                continue
            stated += added
            doubted += kept
    for volume, reason in skipped.items():
        say(f"note: volume {volume} was left out: {reason}")
    document: documents.Document = {
        "schema": "qmpsnap.imported/1",
        "volumes": len(volumes),
        "stated": stated,
        "not_believed": [documents.file(one) for one in doubted],
        "left_out": skipped,
    }
    lines = [f"{stated} files of {len(volumes)} volumes were new"]
    tables = [documents.files_table(doubted, "Not believed")] if doubted else []
    show(document, output, lambda _: [*lines, *tables])
    if doubted or skipped:
        ctx.exit(_FOUND)


def _read(file: str) -> bytes:
    """
    Read a file, or standard input.

    Raises:
        BadImport: It cannot be read.
    """
    from qmpsnap.ledger.exchange import BadImport

    try:
        if file == "-":
            return sys.stdin.buffer.read(_MOST)
        with open(file, "rb") as opened_file:
            return opened_file.read(_MOST)
    except OSError as error:
        raise BadImport(file, error.strerror or str(error)) from error


def _take(ledger: Ledger, volume: Volume) -> tuple[int, list[File]]:
    from qmpsnap.ledger.exchange import news

    ledger.lock(volume.volume)
    said = news(volume.volume, ledger.files(volume.volume), volume.files)
    doubted = ledger.state(volume.volume, said)
    for snapshot, state in volume.snapshots:
        ledger.adopt(volume.volume, snapshot, state)
    return len(said) - len(doubted), list(doubted)
