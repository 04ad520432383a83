"""What `verify` and `audit` share: how findings are shown, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec

from qmpsnap.cli import documents
from qmpsnap.cli.output import Format, Rows, draw, say, show, write
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import INDENT, fold, printable
from qmpsnap.cli.units import moment_text
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import RULES, Finding, Severity

F = TypeVar("F", bound=Callable[..., Any])

FINDINGS: Final = 3
SARIF: Final = "sarif"
HTML: Final = "html"

_ORDER: Final = {rule.id: number for number, rule in enumerate(RULES)}
_STYLE: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}

findings_output = click.option(
    "-o",
    "--output",
    type=click.Choice([*(one.value for one in (*Format, *Rows)), SARIF, HTML]),
    default=Format.TABLE.value,
    show_default=True,
    help="How to print the findings.",
)


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """One guest that was to be looked at."""

    guest: str | None
    source: str
    """libvirt URI, socket or transcript."""
    seen: Seen | None
    """None when it could not be read; then there is a finding."""


class NotAudited(msgspec.Struct, frozen=True, kw_only=True):
    """One guest that was left out on purpose."""

    guest: str
    source: str
    reason: str


def tell(
    output: str,
    audited: Sequence[Audited],
    found: Sequence[Finding],
    not_audited: Sequence[NotAudited] = (),
) -> int:
    """Print the findings, the worst first; returns the exit code."""
    ordered = sorted(found, key=lambda one: _ORDER[one.id])
    if output == SARIF:
        from importlib.metadata import version

        from qmpsnap.findings.sarif import sarif

        remarks = [f"{one.guest} was not audited: {one.reason}" for one in not_audited]
        document = sarif(
            ordered,
            version=version("qmpsnap"),
            complete=all(one.seen is not None for one in audited),
            not_audited=remarks,
        )
        write(json.dumps(document, indent=2))
    elif output == HTML:
        import time
        from importlib.metadata import version

        from qmpsnap.cli.page import page

        now = moment_text(time.time()) or "-"
        draw(page(audited, ordered, not_audited, when=now, version=version("qmpsnap")))
    else:
        document = documents.findings(
            [_guest(one) for one in audited],
            [
                {"guest": one.guest, "source": one.source, "reason": one.reason}
                for one in not_audited
            ],
            ordered,
        )
        show(document, output, lambda here: _view(ordered, here))
    for line in _summary(audited, ordered, not_audited):
        say(line)
    return FINDINGS if any(one.matters for one in ordered) else 0


def _guest(one: Audited) -> documents.Document:
    return {
        "guest": one.guest,
        "source": one.source,
        "read": one.seen is not None,
        "disks": len(one.seen.report.disks) if one.seen else 0,
    }


def _summary(
    audited: Sequence[Audited], found: Sequence[Finding], not_audited: Sequence[NotAudited]
) -> Iterator[str]:
    """Yield what to say beside the findings."""
    read = [one for one in audited if one.seen is not None]
    disks = sum(len(one.seen.report.disks) for one in read if one.seen)
    numbers = [sum(one.severity is severity for one in found) for severity in Severity]
    counted = ", ".join(
        _many(number, severity.value)
        for severity, number in zip(Severity, numbers, strict=True)
        if number
    )
    yield f"{_many(len(read), 'guest')}, {_many(disks, 'disk')}: {counted or 'no findings'}"
    if len(read) < len(audited):
        yield f"could not be read: {len(audited) - len(read)}"
    for reason in sorted({one.reason for one in not_audited}):
        names = [one.guest for one in not_audited if one.reason == reason]
        yield f"not audited, {reason}: {_many(len(names), 'guest')} ({', '.join(names)})"


def _many(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _view(found: Sequence[Finding], here: Screen) -> Iterator[str | Table]:
    """Blocks that fit a narrow terminal; in a pipe, one line each."""
    if here.width is not None:
        if not found:
            yield "no findings"
        for one in found:
            yield from _block(one, here)
        return
    rows = [
        (one.severity.value, one.id, one.guest, one.disk, one.file, one.message, one.remedy)
        for one in found
    ]
    columns = ("SEVERITY", "FINDING", "GUEST", "DISK", "FILE", "WHAT", "WHAT TO DO")
    yield Table(columns, rows)


def _block(one: Finding, here: Screen) -> Iterator[str]:
    where = " ".join(printable(name) for name in (one.guest, one.disk) if name)
    severity = here.paint(one.severity.value, _STYLE[one.severity])
    yield f"{severity} {here.paint(one.id, 'bold')}  {where}".rstrip()
    if one.file:
        yield INDENT + printable(one.file)
    yield from fold(printable(one.message), here.width, INDENT)
    for line in fold(printable(one.remedy), here.width, INDENT):
        yield here.paint(line, "dim")
    yield ""
