"""`--report`: where an update is sent, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from qmpsnap.cli.output import say, warn
from qmpsnap.delivery.file import PREFIX, File
from qmpsnap.journal.letter import CINDER

if TYPE_CHECKING:
    from collections.abc import Collection

    from qmpsnap.delivery.outbox import Outbox
    from qmpsnap.delivery.service import Service
    from qmpsnap.journal.file import Journal
    from qmpsnap.journal.letter import Letter

    StringType = click.ParamType[str]
else:
    StringType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])
STDOUT: Final = "stdout"


class _Report(StringType):
    name = "cinder|file:PATH|stdout"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in (CINDER, STDOUT):
            return value
        path = value.removeprefix(PREFIX)
        if path == value or not path:
            self.fail(f"{value!r} is none of cinder, file:PATH and stdout", param, ctx)
        return f"{PREFIX}{os.path.abspath(path)}"


def report_option(help_text: str) -> Callable[[F], F]:
    """Add `--report`."""
    return click.option(
        "--report", type=_Report(), default=STDOUT, show_default=True, help=help_text
    )


class Reports:
    """The services that letters are addressed to, each made when it is first needed."""

    def __init__(self, to: str | None = None) -> None:
        """
        Make none yet.

        Args:
            to: Where every letter is sent, wherever it is addressed to; None: as it is addressed.
        """
        self._to = to
        self._made: dict[str, Service] = {}

    def __call__(self, to: str) -> Service | None:
        """
        The service for an address; None: it is none that we know.

        Raises:
            IdentityUnusable: There is nobody as whom to send to Cinder.
        """
        to = self._to or to
        if to not in self._made:
            if to == CINDER:
                from qmpsnap.delivery.identity import cinder_of_environment

                self._made[to] = cinder_of_environment()
            elif to.startswith(PREFIX):
                self._made[to] = File(to.removeprefix(PREFIX))
            else:
                return None
        return self._made[to]


def outbox(journal: Journal, reports: Reports) -> Outbox:
    """The outbox, for one round."""
    from qmpsnap.delivery.outbox import Outbox

    return Outbox(journal, reports)


def sent(journal: Journal, reports: Reports, ids: Collection[str]) -> tuple[Letter, ...]:
    """Send some letters now; what was not accepted is said, and stays."""
    found = outbox(journal, reports).send(ids=ids, at_once=True).tried if ids else ()
    for letter in found:
        if letter.state in ("waiting", "dead"):
            warn(f"note: {sentence(letter)}")
        else:
            say(f"note: {sentence(letter)}")
    return found


def sentence(letter: Letter) -> str:
    """What became of a letter, and what can be done."""
    said = f"the update {letter.id} ({letter.due.kind} of {letter.due.addressee.snapshot})"
    why = letter.answer or "no answer yet"
    match letter.state:
        case "waiting":
            return (
                f"{said} is stored, and not accepted yet: {why}; `qmpsnap outbox send` tries again"
            )
        case "dead":
            return f"{said} was refused: {why}; see `qmpsnap outbox show {letter.id}`"
        case "dropped":
            return f"{said} is not sent: {why}"
        case "due":
            return f"{said} is due: its operation is open"
        case _:
            return f"{said} was accepted: {why}"
