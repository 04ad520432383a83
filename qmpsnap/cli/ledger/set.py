"""`ledger set` and `ledger settle`: what a person knows better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from qmpsnap.cli.command import Changing
from qmpsnap.cli.ledger import documents
from qmpsnap.cli.ledger.where import ledger_option, opened
from qmpsnap.cli.output import output_option, show
from qmpsnap.errors import Refused
from qmpsnap.ledger.named import OfLedger

if TYPE_CHECKING:
    from qmpsnap.ledger.ledger import Ledger
    from qmpsnap.ledger.values import File, Statement

_FORMATS = ("raw", "qcow2", "ploop")
_PLACES = ("chain", "left", "unsure", "gone")


class KnownOtherwise(OfLedger, Refused):
    """A format is to be changed that is not the one in the ledger."""

    msg = "{self.file} of volume {self.volume} is known as {self.known}, which `--was` must say"
    remedy = (
        "Look at `qmpsnap ledger history {self.volume} {self.file}{self.ledger}` first. Nothing "
        "was changed."
    )

    volume: str
    file: str
    known: str


class NotBelievable(OfLedger, Refused):
    """What is to be stated cannot be so."""

    msg = "{self.file} of volume {self.volume} cannot be stated so: {self.reason}"
    remedy = (
        "`qmpsnap ledger show {self.volume}{self.ledger}` shows its files. Nothing was changed."
    )

    volume: str
    file: str
    reason: str


class VolumeBusy(OfLedger, Refused):
    """An operation on the volume is not settled."""

    msg = "the {self.kind} of snapshot {self.snapshot} of volume {self.volume} is not settled"
    remedy = (
        "Wait for it; or, once it is certain that no compute host is at work on it, "
        "`qmpsnap ledger settle {self.token} --why REASON{self.ledger}`. Nothing was changed."
    )

    volume: str
    kind: str
    snapshot: str
    token: str


@click.command(
    "set",
    cls=Changing,
    examples=(
        "ledger set VOLUME volume-1c0f8a8e --format raw --why 'made by raw import'",
        "ledger set VOLUME volume-1c0f8a8e --format raw --was qcow2 --why 'the record was wrong'",
        "ledger set VOLUME volume-1c0f8a8e.7d1a --place left --why 'no guest has it open'",
    ),
)
@click.argument("volume")
@click.argument("file")
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Its format.")
@click.option(
    "--was", type=click.Choice(_FORMATS), help="The format that it is known by, if it is."
)
@click.option(
    "--place",
    type=click.Choice(_PLACES),
    help="Where it stands: in the chain; left it, so that it may be removed; unsure; or gone.",
)
@click.option("--backing", metavar="NAME", help="Its backing file; an empty name: none.")
@click.option("--base", is_flag=True, help="Of a new file: it is the first one of its volume.")
@click.option("--why", required=True, metavar="REASON", help="Kept in the history.")
@ledger_option
@output_option
def set_(
    volume: str,
    file: str,
    format_: str | None,
    was: str | None,
    place: str | None,
    backing: str | None,
    base: bool,
    why: str,
    url: str | None,
    output: str,
) -> None:
    """
    State a file of a volume yourself, which settles what was stated otherwise.

    It is believed from then on, and the history says that it was you. No image is touched, and
    none is looked at.
    """
    with opened(url, make=True) as store, store.writing() as ledger:
        ledger.lock(volume)
        for one in ledger.open_operations(volume=volume):
            raise VolumeBusy(volume, one.kind, one.snapshot, one.token)
        known = ledger.file(volume, file)
        said = _statement(volume, file, known, format_=format_, was=was, base=base)
        said = replace(
            said,
            place=type(said.place)(place) if place else said.place,
            backing=said.backing if backing is None else backing or None,
            detail=why[:500],
        )
        _check(ledger, volume, said)
        ledger.state(volume, [said])
        (stated,) = ledger.history(volume, file)[-1:]
    document: documents.Document = {"schema": "qmpsnap.stated/1", **documents.file(stated)}
    show(document, output, lambda _: [documents.files_table([stated])])


def _statement(
    volume: str,
    file: str,
    known: File | None,
    *,
    format_: str | None,
    was: str | None,
    base: bool,
) -> Statement:
    from qmpsnap.ledger.files import moved
    from qmpsnap.ledger.values import Format, Place, Statement, Witness

    before = None if known is None else known.format
    changes = before is not None and format_ not in (None, before)
    if was not in (None, before) or (changes and was is None):
        raise KnownOtherwise(volume, file, before or "nothing")
    if known is None:
        plain = Statement(
            file=file,
            format=None,
            base=base,
            backing=None,
            place=Place.CHAIN,
            witness=Witness.OPERATOR,
        )
    else:
        plain = moved(known, known.place)
        if base:
            plain = replace(plain, base=True)
    return replace(
        plain,
        format=Format(format_) if format_ else plain.format,
        witness=Witness.OPERATOR,
        operation=None,
    )


def _check(ledger: Ledger, volume: str, said: Statement) -> None:
    """
    See that the volume's files are a chain afterwards, and that the two rules hold.

    Of what has left, the volume service removes the file: only an operation takes one out of the chain.
    """
    from qmpsnap.ledger.chain import ChainUnknown, chain_of, contradiction
    from qmpsnap.ledger.values import Place

    known = ledger.file(volume, said.file)
    reason = contradiction(known, said)
    if known is not None and (known.place, said.place) == (Place.CHAIN, Place.LEFT):
        reason = "it is in the chain, and a file that has left may be removed"
    if reason is None:
        others = [one for one in ledger.files(volume) if one.file != said.file]
        unsure = Place.UNSURE in {said.place, *(one.place for one in others)}
        there = [one for one in (*others, said) if one.place is Place.CHAIN]
        try:
            if there and not unsure:
                chain_of(volume, there)
        except ChainUnknown as error:
            reason = error.reason
    if reason is not None:
        raise NotBelievable(volume, said.file, reason)


@click.command(
    "settle",
    cls=Changing,
    examples=("ledger settle 0b6b6d3e-2f1f-4f0e-8a55-5c0f3f0f2f3a --why 'the host is gone'",),
)
@click.argument("operation")
@click.option("--why", required=True, metavar="REASON", help="Kept in the history.")
@ledger_option
@output_option
def settle(operation: str, why: str, url: str | None, output: str) -> None:
    """
    End an operation that compute will not answer.

    Only when it is certain that no compute host is at work on it, or will be. A file that was made
    for it is kept, and nothing begins on the volume until `ledger set --place` says whether it is
    in the chain.
    """
    with opened(url) as store, store.writing() as ledger:
        after = ledger.abandon(operation, why)
    document: documents.Document = {"schema": "qmpsnap.settled/1", **documents.snapshot(after)}
    show(document, output, lambda _: [documents.snapshots_table([after])])
