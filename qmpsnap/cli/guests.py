"""`guests`: every guest of a libvirt connection, with its disks and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import click
import msgspec

from qmpsnap.cli import documents
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.every_guest import Answer, Domain, by_libvirt, listed, many_options
from qmpsnap.cli.output import rows_option, say, show
from qmpsnap.cli.parallel import in_parallel
from qmpsnap.cli.tables import Table
from qmpsnap.cli.views import size
from qmpsnap.findings.across_guests import across_guests
from qmpsnap.findings.finding import Finding, Severity


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One guest."""

    domain: Domain
    answer: Answer | Exception
    found: tuple[Finding, ...]

    @property
    def state(self) -> str:
        return "running" if self.domain.running else "off"

    @property
    def counted(self) -> dict[str, int]:
        counted = Counter(one.severity for one in self.found)
        return {severity.value: counted[severity] for severity in Severity}


@click.command(cls=Command, examples=("guests", "guests -c qemu+ssh://compute7/system -o json"))
@many_options
@rows_option
@click.pass_obj
def guests(road: Road, jobs: int, timeout: float, output: str) -> None:
    """
    Show every guest of libvirt, running or off: its disks, their depth, and the findings.

    Findings are what `verify` finds in a guest, and for running guests what `audit` finds across
    them. One guest that cannot be read does not hide the others: its row says why.

    Exit code 0, whatever was found; `audit` ends with 3 on a finding.
    """
    if road.qmp is not None or road.replay is not None:
        raise click.UsageError("that is one guest: see `qmpsnap disks` and `qmpsnap verify`")
    (answer,) = in_parallel([lambda: listed(road)], threads=1, limit_s=timeout)
    if isinstance(answer, Exception):
        raise answer
    connection, domains = answer
    with closing(connection):
        work = [by_libvirt(road, one) for one in domains]
        answers = in_parallel(work, threads=jobs, limit_s=timeout)
    rows = _rows(domains, answers)
    show(_document(road, rows), output, lambda _: [table(rows)])
    off = sum(not one.domain.running for one in rows)
    say(f"{len(rows)} guest{'' if len(rows) == 1 else 's'}, {off} of them off")


def _rows(domains: Sequence[Domain], answers: Sequence[Answer | Exception]) -> list[Row]:
    pairs = sorted(zip(domains, answers, strict=True), key=lambda pair: pair[0].name)
    across = across_guests(
        [one.seen for domain, one in pairs if isinstance(one, Answer) and domain.running]
    )
    return [
        Row(domain=domain, answer=one, found=_found(domain, one, across)) for domain, one in pairs
    ]


def _found(
    domain: Domain, answer: Answer | Exception, across: Sequence[Finding]
) -> tuple[Finding, ...]:
    own = answer.found if isinstance(answer, Answer) else ()
    return (*own, *(one for one in across if one.guest == domain.name))


def _document(road: Road, rows: Sequence[Row]) -> documents.Document:
    """`qmpsnap.guests/1`."""
    return {
        "schema": "qmpsnap.guests/1",
        "source": road.uri,
        "guests": [
            {
                "guest": one.domain.name,
                "uuid": one.domain.uuid,
                "running": one.domain.running,
                "error": str(one.answer) if isinstance(one.answer, Exception) else None,
                "disks": [documents.in_short(disk) for disk in one.answer.seen.report.disks]
                if isinstance(one.answer, Answer)
                else [],
                "findings": one.counted,
            }
            for one in rows
        ],
    }


def table(rows: Sequence[Row]) -> Table:
    columns = ("GUEST", "DISK", "STATE", "FORMAT", "SIZE", "DEPTH", "ACTIVE FILE", "FINDINGS")
    lines = [line for one in rows for line in _lines(one)]
    return Table(columns, lines, heading=2, prose=("FINDINGS",))


def _lines(row: Row) -> list[tuple[object, ...]]:
    """One line a disk; what was found in the guest stands in the first."""
    name, state, found = row.domain.name, row.state, _text(row.counted)
    if isinstance(row.answer, Exception):
        return [(name, None, state, *(None,) * 4, f"cannot be read: {row.answer}")]
    lines: list[tuple[object, ...]] = []
    for number, disk in enumerate(row.answer.seen.report.disks):
        active = disk.layers[0] if disk.layers else None
        lines.append(
            (
                name,
                disk.disk,
                state,
                (active.format or "?") if active else None,
                size(active.virtual_size if active else None),
                len(disk.layers),
                (active.path or active.file) if active else "(empty)",
                found if number == 0 else "",
            )
        )
    return lines or [(name, None, state, None, None, None, "(no disks)", found)]


def _text(counted: dict[str, int]) -> str:
    parts = [f"{number} {word}{'s' if number > 1 else ''}" for word, number in counted.items()]
    return ", ".join(part for part, number in zip(parts, counted.values(), strict=True) if number)
