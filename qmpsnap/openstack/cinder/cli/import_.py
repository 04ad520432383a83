"""`cinder import`: existing volumes into the ledger, before the driver is switched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click
import msgspec
from msgspec.structs import replace

from qmpsnap.cli.command import Command
from qmpsnap.cli.findings import FINDINGS
from qmpsnap.cli.output import rows_option, say, show
from qmpsnap.cli.tables import Table
from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.ledger.values import Place
from qmpsnap.openstack.cinder.cli.deployment import (
    Backend,
    Deployment,
    Row,
    config_option,
    folder_of,
)
from qmpsnap.openstack.cinder.cli.gathered import Beside, stated_of, undecided, unheard

if TYPE_CHECKING:
    from qmpsnap.ledger.ledger import Ledger
    from qmpsnap.ledger.store import Store
    from qmpsnap.ledger.values import File, Statement

EVERY: Final = 250
"""Volumes between two lines of progress in a pipe."""
AGAIN: Final = "`qmpsnap cinder import --again`"
INFO: Final = (
    "write it again as `qmpsnap chain` on the compute host, or the headers, have the chain"
)
"""How a `.info` is mended that cannot be read."""
UNMADE: Final = ("creating", "error")
"""Statuses of volumes whose file is not whole, if the ledger does not know it: it was being made."""
_LATER: Final = "run it again once that has ended"
_LOOKS: Final = 5
"""At a volume that the driver works on."""


class NotAChain(Refused):
    """A file is not what `qmpsnap chain -o json` prints."""

    msg = "{self.path} is not what `qmpsnap chain GUEST -o json` prints: {self.reason}"

    path: str
    reason: str


class Taken(msgspec.Struct, frozen=True):
    """What became of one volume."""

    volume: str
    result: str
    """`known` (before), `imported`, `unknown` (a format is, or whether a file is in use), `failed`."""
    detail: str = ""
    remedy: str = ""


@click.command(
    "import", cls=Command, examples=("cinder import", "cinder import --chain web1.json -o json")
)
@click.option("--backend", "names", multiple=True, metavar="NAME", help="Only this back end.")
@click.option(
    "--chain",
    "chains",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="What `qmpsnap chain GUEST -o json` printed on a compute host: a running guest knows.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Also volumes whose files are others than the ledger knows: stock drivers were at work.",
)
@config_option
@rows_option
def import_(
    names: tuple[str, ...],
    chains: tuple[str, ...],
    again: bool,
    config_files: tuple[str, ...],
    output: str,
) -> None:
    """
    Take the volumes of a share over into the ledger. Reads files, changes none.

    Formats come from running guests (--chain), Cinder's `format` and `base_format`, what Nova was
    told, `.info`, and the headers of overlays. What nobody states, or two state differently, is
    `unknown`, and exit code 3 tells of it, each time: its volumes are listed with who says what,
    and with the command that settles it. Raw files are not looked into.

    Each volume is a transaction of its own: an interrupted import is just run again. Run it before
    the driver is switched; volumes that come in between are taken over when they are first used.
    """
    deployment = Deployment(config_files)
    there = [one.name for one in deployment.backends]
    unknown = [one for one in names if one not in there]
    if unknown or not there:
        said = f"no such back end: {', '.join(unknown)}" if unknown else "no back end to import"
        raise click.UsageError(f"{said}; of these families there are: {', '.join(there) or 'none'}")
    store = deployment.store(make=True)
    guests = formats_in(chains)
    found: list[Taken] = []
    for backend in deployment.backends:
        if not names or backend.name in names:
            found += _with_progress(
                taken(deployment, store, backend, guests, again=again), backend.name
            )
    counts = {word: sum(one.result == word for one in found) for word in _WORDS}
    left = [one for one in found if one.result in ("unknown", "failed")]
    document = {
        "schema": "qmpsnap.cinder-import/1",
        "counts": counts,
        "volumes": [vars_of(one) for one in left],
    }
    show(document, output, lambda _: _view(counts, left))
    if left:
        click.get_current_context().exit(FINDINGS)


_WORDS = ("known", "imported", "unknown", "failed")


def vars_of(one: Taken) -> dict[str, str]:
    """A row of the result."""
    return {
        "volume": one.volume,
        "result": one.result,
        "detail": one.detail,
        "remedy": one.remedy,
    }


def _view(counts: Mapping[str, int], left: list[Taken]) -> Iterator[str | Table]:
    if left:
        rows = [(one.volume, one.result, one.detail) for one in left]
        yield Table(("VOLUME", "RESULT", "WHY"), rows)
        yield from dict.fromkeys(f"-> {one.remedy}" for one in left if one.remedy)
    yield ", ".join(f"{number} {word}" for word, number in counts.items())


def _with_progress(volumes: Iterator[Taken], name: str) -> Iterator[Taken]:
    """Tell how far it is, on stderr: a bar on a terminal, a line now and then in a pipe."""
    if not sys.stderr.isatty():
        for number, one in enumerate(volumes, 1):
            if number % EVERY == 0:
                say(f"{name}: {number} volumes")
            yield one
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        for one in volumes:
            bar.advance(task)
            yield one


def taken(
    deployment: Deployment,
    store: Store,
    backend: Backend,
    guests: Mapping[str, str],
    *,
    again: bool = False,
) -> Iterator[Taken]:
    """Take over every volume of a back end that the ledger does not know, or knows otherwise."""
    with store.reading() as ledger:
        known: dict[str, bool] = {}
        for one in ledger.files():
            is_open = one.format is None or one.place is Place.UNSURE
            known[one.volume] = known.get(one.volume, False) or is_open
    beside = Beside()
    for row in deployment.volumes(backend):
        is_known = row.key in known
        if not row.share or (not is_known and row.status in UNMADE):
            continue
        if again or not is_known or known[row.key]:
            yield _take(store, backend, row, guests, beside, again=again)
        else:
            yield Taken(row.id, "known")


def _take(
    store: Store,
    backend: Backend,
    row: Row,
    guests: Mapping[str, str],
    beside: Beside,
    *,
    again: bool,
) -> Taken:
    """What a ledger that knows the files leaves open is stated anew: somebody may know it now."""
    folder = folder_of(backend, row.share)
    try:
        for _ in range(_LOOKS):
            found = _looked(store, folder, row, guests, beside, again=again)
            if found is not None:
                return found
    except QmpsnapError as error:
        return Taken(row.id, "failed", str(error), error.way_out)
    except ValueError as error:
        return Taken(row.id, "failed", str(error), INFO)
    except OSError as error:
        return Taken(row.id, "failed", str(error))
    return Taken(row.id, "failed", "the driver is at work on it", _LATER)


def _looked(
    store: Store,
    folder: str,
    row: Row,
    guests: Mapping[str, str],
    beside: Beside,
    *,
    again: bool,
) -> Taken | None:
    """
    Look at a volume, and state what is seen; None if the ledger has learnt of it in between.

    The driver may change the volume in the meantime. It writes to the ledger before `.info`.
    """
    with store.reading() as ledger:
        before = ledger.files(row.key, gone=True)
        working = ledger.open_operations(volume=row.key)
    for one in working:
        why = f"the {one.kind} of snapshot {one.snapshot} is not settled"
        return Taken(row.id, "failed", why, _LATER)
    known = {one.file: one.format for one in before if one.place is Place.CHAIN}
    stated = unheard(stated_of(folder, row, guests, beside, known), before)
    stated = [_as_before(one, before, guests) for one in stated]
    if row.under_way and any(one.place is Place.UNSURE for one in stated):
        snapshot = row.under_way[0]
        reset = f"`cinder snapshot-reset-state --state error {snapshot}`, if nobody works on it any more"
        why = f"its snapshot {snapshot} is being made or deleted"
        return Taken(row.id, "failed", why, f"{_LATER}; or {reset}")
    names = {one.file for one in stated}
    changed = bool(known) and names != known.keys()
    left: list[Statement] = []
    if changed and not again:
        return Taken(row.id, "failed", "its files are others than the ledger knows", AGAIN)
    if changed:
        for file in before:
            if file.file not in names and file.place is Place.UNSURE:
                why = f"whether a guest writes to {file.file} is not known"
                return Taken(row.id, "failed", why, "`qmpsnap cinder check` says how to settle it")
        left = [x.statement for x in before if x.place is Place.LEFT and x.file not in names]
    elif known:
        stated = [one for one in stated if known.get(one.file) is None]
    unsure = [x.statement for x in before if x.place is Place.UNSURE and x.file not in names]
    if known and not stated:
        return _told(row, unsure) if unsure else Taken(row.id, "known")

    def work(ledger: Ledger) -> bool:
        ledger.lock(row.key)
        if ledger.files(row.key, gone=True) != before or ledger.open_operations(volume=row.key):
            return False
        if changed:
            ledger.forget(row.key)
        ledger.state(row.key, [*stated, *left])
        return True

    return _told(row, [*stated, *unsure]) if store.run(work) else None


def _as_before(said: Statement, before: Iterable[File], guests: Mapping[str, str]) -> Statement:
    """What is to be stated of a file; its format, if no guest tells, as the ledger has it, and by whom."""
    known = next((one for one in before if one.file == said.file), None)
    if known is None or known.format is None or known.place is Place.GONE or said.file in guests:
        return said
    return replace(said, format=known.format, witness=known.witness, detail=known.detail)


def _told(row: Row, stated: Sequence[Statement]) -> Taken:
    left = [one for file in stated for one in undecided(row.key, file)]
    if not left:
        return Taken(row.id, "imported")
    said, remedies = "; ".join(one[1] for one in left), "; ".join(one[2] for one in left)
    return Taken(row.id, "unknown", said, remedies)


def formats_in(paths: tuple[str, ...]) -> dict[str, str]:
    """
    Formats of files by bare name, as running guests have them open.

    Raises:
        NotAChain: A file holds something else.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
            for disk in document["disks"]:
                for layer in disk["layers"]:
                    if layer["format"] is not None and layer["verdict"] in ("exact", "agreed"):
                        found[layer["file"]] = layer["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotAChain(path, repr(error)) from error
    return found
