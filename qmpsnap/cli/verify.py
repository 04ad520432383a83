"""`verify`: compare all witnesses for one guest."""

from __future__ import annotations

from contextlib import ExitStack

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.findings import Audited, findings_output, tell
from qmpsnap.cli.ledger.where import asked_too
from qmpsnap.findings.across_guests import across_guests
from qmpsnap.findings.finding import Finding
from qmpsnap.findings.look import look


@click.command(
    cls=Command,
    examples=("verify web1", "verify web1 vda -o json", "verify web1 --ledger sqlite:///ledger.db"),
)
@click.argument("guest")
@click.argument("disk", required=False)
@click.option(
    "--ledger",
    metavar="URL",
    help="Ask the volume side's ledger in this database as well: `qmpsnap ledger` explains it.",
)
@findings_output
@click.pass_context
def verify(
    ctx: click.Context, guest: str | None, disk: str | None, ledger: str | None, output: str
) -> None:
    """
    Compare all witnesses for a guest's disks, and tell what is wrong or will be at the next start.

    Reads only. DISK is a target (vda), a serial (the volume id), a device id or a node name.

    Exit code 3 when there is an error or a warning, 0 when there is nothing or notes alone. What
    each finding means is in docs/reference/findings.md.
    """
    road: Road = ctx.obj
    with ExitStack() as stack:
        read, host = stack.enter_context(road.looking(guest))
        if ledger is not None:
            read = stack.enter_context(asked_too(read, ledger))
        seen, found = look(read, name=guest, live=road.replay is None, host=host)
    found += across_guests([seen])
    if disk is not None and (seen.report.disks or not found):  # a loop hides all disks
        found = _only(found, seen.report.disk(disk).disk)
    audited = Audited(guest=seen.guest, source=road.source, seen=seen)
    ctx.exit(tell(output, [audited], found))


def _only(found: tuple[Finding, ...], disk: str) -> tuple[Finding, ...]:
    """Those of one disk, and those of the guest as a whole."""
    return tuple(one for one in found if one.disk in (disk, None))
