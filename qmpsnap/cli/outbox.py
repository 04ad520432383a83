"""`outbox`: the updates that are stored for the volume service, and how far they have come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

import click

from qmpsnap.cli.command import Changing, Command
from qmpsnap.cli.group import Entry, LazyGroup
from qmpsnap.cli.log import time_text
from qmpsnap.cli.output import output_option, rows_option, say, show
from qmpsnap.cli.reporting import STDOUT, Reports, report_option, sent, sentence
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import fold, printable
from qmpsnap.delivery.machine import body_of
from qmpsnap.errors import NotFound, Refused
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import OPEN, Letter, State
from qmpsnap.status import Dialect

_COMMANDS = {
    "Commands": {
        "list": Entry("qmpsnap.cli.outbox:list_", "Updates that somebody has to see to."),
        "show": Entry("qmpsnap.cli.outbox:show_", "All that is known of one update."),
        "send": Entry("qmpsnap.cli.outbox:send", "Send what waits, now."),
        "drop": Entry("qmpsnap.cli.outbox:drop", "Never send an update."),
    }
}
_SHOWN: Final[tuple[State, ...]] = (*OPEN, "dead")
_FAILED: Final = 1


class LetterNotFound(NotFound):
    """No letter of the outbox has this id."""

    msg = "there is no update {self.wanted!r} in the outbox"
    remedy = "`qmpsnap outbox list --all` shows them: {self.known_text}"


class NotSendable(Refused):
    """A letter that cannot be sent as it is."""

    msg = "the update {self.letter} cannot be sent: it is {self.state}"
    remedy = (
        "One that is due has an open operation: `qmpsnap resume` settles it. Of one that is dead and "
        "has no outcome nobody knows what to tell: tell the volume service by hand, then `qmpsnap "
        "outbox drop {self.letter}`."
    )

    letter: str
    state: str


class NotDroppable(Refused):
    """A letter that is still going to be, or that has ended."""

    msg = "the update {self.letter} cannot be dropped: it is {self.state}"
    remedy = (
        "`qmpsnap resume` settles the operation of one that is due; one that is closed needs "
        "nothing."
    )

    letter: str
    state: str


@click.group(cls=LazyGroup, sections=_COMMANDS, examples=("outbox list", "outbox send"))
def outbox() -> None:
    """
    The updates for the volume service that this host has stored.

    They are sent in the order of their calls until they are accepted, by nova-compute where it runs
    our driver. An update is due while its operation runs or is open, then waiting; accepted when
    something has to follow yet; dead when the service will never take it as it is.
    """


@click.command("list", cls=Command, examples=("outbox list", "outbox list --all -o json"))
@click.option("--all", "everything", is_flag=True, help="Also those that are closed or dropped.")
@rows_option
def list_(everything: bool, output: str) -> None:
    """List the updates that somebody has to see to, in the order of their calls."""
    letters, notes = _found(() if everything else _SHOWN)
    for note in notes:
        say(f"note: {note}")
    document = {
        "schema": "qmpsnap.outbox/1",
        "journal": str(Journal().path),
        "updates": [letter_document(one) for one in letters],
        "notes": notes,
    }
    show(document, output, lambda _: [_table(letters)])


@click.command("show", cls=Command, examples=("outbox show 0123456789abcdef",))
@click.argument("id_", metavar="ID")
@output_option
def show_(id_: str, output: str) -> None:
    """Show one update: what is told, in either dialect, and what the service has answered."""
    (letter,) = _named((id_,))
    document = {
        "schema": "qmpsnap.outbox/1",
        "journal": str(Journal().path),
        "updates": [letter_document(letter)],
        "notes": [],
    }
    show(document, output, lambda here: _lines(letter, here))


@click.command(
    cls=Changing, examples=("outbox send", "outbox send 0123456789abcdef --report file:updates")
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@report_option("Where to send; stdout: where each is addressed to.")
@click.pass_context
def send(context: click.Context, ids: tuple[str, ...], report: str) -> None:
    """
    Send updates now, each once: all that wait, or the ones that are named, even dead ones.

    The identity comes from OS_CLOUD and clouds.yaml, or from OS_*. The exit code is 1 when one was
    not accepted.
    """
    journal = Journal()
    named = _named(ids)
    if named:
        with journal.opened() as store:
            for letter in named:
                if letter.state != "waiting" and not store.letters.renew(letter.id):
                    raise NotSendable(letter.id, letter.state)
    chosen = ids or tuple(one.id for one in _found(("waiting", "accepted"))[0])
    tried = sent(journal, Reports(None if report == STDOUT else report), chosen)
    if not tried:
        say("nothing is waiting" if not ids else "another process is sending")
    if any(one.state in ("waiting", "dead") for one in tried):
        context.exit(_FAILED)


@click.command(cls=Changing, examples=("outbox drop 0123456789abcdef",))
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def drop(ids: tuple[str, ...]) -> None:
    """
    Never send an update, when the service was told in another way, or is no more.

    Of one that was accepted, what was to follow is not done. It stays in the list for a while.
    """
    for letter in _named(ids):
        if letter.state not in ("waiting", "dead", "accepted"):
            raise NotDroppable(letter.id, letter.state)
    with Journal().opened() as store:
        for letter in _named(ids):
            if not store.letters.drop(letter.id, time.time()):
                raise NotDroppable(letter.id, "closed by now")


def letter_document(letter: Letter) -> dict[str, object]:
    """One update of `qmpsnap.outbox/1`."""
    who, content = letter.due.addressee, letter.content
    bodies = {one.value: None if content is None else dict(body_of(letter, one)) for one in Dialect}
    return {
        "id": letter.id,
        "snapshot": who.snapshot,
        "volume": who.volume,
        "project": who.project,
        "to": who.to,
        "kind": letter.due.kind,
        "token": letter.due.token,
        "operation": letter.operation,
        "state": letter.state,
        "outcome": None if content is None else content.outcome,
        "file_format": {} if content is None else content.file_format,
        "why": None if content is None else content.why,
        "since": time_text(letter.due.since),
        "changed": time_text(letter.changed),
        "attempts": letter.attempts,
        "unsure": letter.is_unsure,
        "next_try": _next_try(letter),
        "answer": letter.answer,
        "after": who.after,
        "bodies": bodies,
    }


def _next_try(letter: Letter) -> str | None:
    if letter.state != "waiting" or not letter.next_try:
        return None
    return time_text(letter.next_try)


def _found(states: tuple[State, ...]) -> tuple[tuple[Letter, ...], list[str]]:
    store = Journal().looked_into()
    if store is None:
        return (), []
    with store:
        return store.letters.find(states), list(store.notes)


def _named(ids: Iterable[str]) -> tuple[Letter, ...]:
    """
    Letters by id, in the order in which they were named.

    Raises:
        LetterNotFound: There is none.
    """
    known = {one.id: one for one in _found(())[0]}
    wanted = tuple(dict.fromkeys(ids))
    for id_ in wanted:
        if id_ not in known:
            open_ = tuple(one.id for one in known.values() if one.state in _SHOWN)
            raise LetterNotFound(id_, open_)
    return tuple(known[id_] for id_ in wanted)


def _table(letters: Iterable[Letter]) -> Table:
    rows = [
        (
            one.id,
            time_text(one.due.since),
            one.due.addressee.snapshot,
            one.due.kind,
            "?" if one.content is None else one.content.outcome,
            one.state,
            str(one.attempts),
            _next_try(one),
            one.answer,
        )
        for one in letters
    ]
    columns = ("ID", "SINCE", "SNAPSHOT", "KIND", "OUTCOME", "STATE", "TRIES", "NEXT", "ANSWER")
    return Table(columns, rows, prose=("ANSWER",))


def _lines(letter: Letter, here: Screen) -> Iterator[str]:
    import json

    document = letter_document(letter)
    bodies = document.pop("bodies")
    assert isinstance(bodies, dict)
    for name, value in (document | bodies).items():
        if value not in (None, {}, False):
            text = value if isinstance(value, str) else json.dumps(value)
            yield from fold(printable(f"{name.replace('_', ' ')}: {text}"), here.width)
    yield from fold(printable(sentence(letter)), here.width)
