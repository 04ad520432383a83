"""`resume`: settle operations that broke off."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from msgspec.structs import replace

from qmpsnap import service
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.every_guest import listed
from qmpsnap.cli.output import output_option, say, show
from qmpsnap.cli.progress import shown
from qmpsnap.cli.reporting import STDOUT, Reports, report_option, sent, sentence
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import fold, printable
from qmpsnap.errors import Unreachable
from qmpsnap.formats.layers import Disks
from qmpsnap.guests.connect import connect_qmp
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.markers import PREFIX
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import OperationBusy
from qmpsnap.journal.letter import WAITING
from qmpsnap.journal.markers import MarkerUntrusted, beside, entry_of
from qmpsnap.journal.plugged import has_any_of
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.resume import Settled, Take, Wanted, settle, told, unknown
from qmpsnap.journal.resume import resume as resume_one
from qmpsnap.operations.clear import cleared_alone
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.where import where_of

INTERRUPTED = 6


@click.command(
    cls=Command,
    examples=(
        "resume",
        "resume --plan",
        "resume 0123456789abcdef0123456789abcdef --take base",
        "resume /share/.qmpsnap-0123456789abcdef0123456789abcdef",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--plan", "only_plan", is_flag=True, help="Show what became of each, and do nothing.")
@click.option(
    "--take",
    type=click.Choice(["active", "base"]),
    help="Of an operation that nobody can know the outcome of, with one ID: record which file is "
    "right, the upper one or the lower one; where there is one, `active`. No file is removed, "
    "and none changed but the header of one whose merge may not be on the disk.",
)
@report_option(
    "Send the updates that wait for these operations there; stdout: they stay stored, and this prints "
    "what they say."
)
@output_option
@click.pass_obj
@click.pass_context
def resume(
    context: click.Context,
    road: Road,
    ids: tuple[str, ...],
    only_plan: bool,
    take: Take | None,
    report: str,
    output: str,
) -> None:
    """
    Settle interrupted operations: finish them, take them back, or say what cannot be known.

    Without ID, all open operations of this host; with --qmp or --connect those of these guests. ID
    is what `qmpsnap log` shows, or the path of a marker (.qmpsnap-ID) when the journal is gone. A
    block job goes on with `qmpsnap job resume`.
    """
    if take is not None and len(ids) != 1:
        raise click.UsageError("--take is about one operation: give its ID")
    journal = Journal()
    reports = Reports(report)
    if report != STDOUT:
        reports(report)  # whether there is an identity, before anything is done
    problems: list[str] = []
    entries = (
        [_entry(journal, id_) for id_ in ids] if ids else _open(journal, road, problems, only_plan)
    )
    with shown() as screen:
        wanted = Wanted(only_plan=only_plan, take=take, progress=screen.progress, tell=screen.tell)
        settled = [_settled(journal, road, entry, wanted) for entry in entries]
    document = {
        "schema": "qmpsnap.resume/1",
        "operations": [one for each in settled for one in _documents(each, only_plan=only_plan)],
    }
    for problem in problems:
        say(f"note: {problem}")
    show(document, output, lambda here: _view(entries, settled, here))
    if not only_plan:
        _report(journal, reports, settled, send=report != STDOUT)
    if problems or any(one.outcome == "unknown" for one in settled):
        context.exit(INTERRUPTED)


def _report(journal: Journal, reports: Reports, settled: list[Settled], *, send: bool) -> None:
    """Send what waits for the operations that are settled, or say that it waits."""
    store = journal.looked_into()
    if store is None:
        return
    operations = {one.record.id for one in settled}
    with store:
        letters = [one for one in store.letters.find(WAITING) if one.operation in operations]
    if send:
        sent(journal, reports, [one.id for one in letters])
        return
    for letter in letters:
        say(f"note: {sentence(letter)}")


def _settled(journal: Journal, road: Road, entry: Entry, wanted: Wanted) -> Settled:
    try:
        return _settled_on(journal, road, entry, wanted)
    except OperationBusy as error:
        return unknown(entry.record, told(error))


def _settled_on(journal: Journal, road: Road, entry: Entry, wanted: Wanted) -> Settled:
    if entry.conclusion is not None:
        return resume_one(journal, entry, wanted)
    if road.qmp is None:
        record = entry.record
        name = record.where.guest or record.guest
        if road.connect is None or name is None:
            return resume_one(journal, entry, wanted)
        if record.where.at not in ("", road.connect):
            return _elsewhere(journal, road, entry, name, wanted)
        record = replace(record, where=replace(record.where, at=road.connect))
        return resume_one(journal, replace(entry, record=record), wanted)
    with connect_qmp(road.qmp, max_stall_s=road.max_stall_s) as guest:
        if not _is_of(entry.record, guest, _read(guest, wanted.only_plan)):
            return unknown(entry.record, f"the guest at {road.qmp} has none of its files")
        return settle(journal, entry, guest, wanted)


def _elsewhere(journal: Journal, road: Road, entry: Entry, name: str, wanted: Wanted) -> Settled:
    """
    By another libvirt than it was begun with, or another URI of the same one.

    That it has no such guest says nothing of the one that had.
    """
    record = entry.record
    try:
        with road.open(name) as guest:
            if not has_any_of(record, _read(guest, wanted.only_plan)):
                return unknown(record, f"the guest at {road.uri} has none of its files")
            used = [path for path in sorted(record.own) if in_use_by_qemu(path)]
            if used and where_of(guest).is_offline:
                why = f"the guest at {road.uri} is off, and a QEMU has {', '.join(used)}"
                return unknown(record, why)
            return settle(journal, entry, guest, wanted)
    except Unreachable as error:
        why = f"its guest cannot be reached: {told(error)}"
    if wanted.take is None:
        return unknown(record, why)
    return settle(journal, entry, None, wanted, out_of_reach=why)


def _entry(journal: Journal, id_: str) -> Entry:
    """
    The operation that was named.

    Raises:
        click.UsageError: The name is none.
        MarkerUntrusted: Its marker is not acted on.
    """
    store = journal.looked_into()
    is_path = "/" in id_ or id_.startswith(PREFIX)
    path = os.path.abspath(id_)
    there = beside((path,)) if is_path else ()
    marker = next((one for one in there if one.path == path), None)
    if store is not None:
        with store:
            found = store.named(os.path.basename(path).removeprefix(PREFIX) if is_path else id_)
        if marker is not None and marker.written is not None:
            found = tuple(one for one in found if marker.is_of(one.record))
        if found:
            return replace(found[-1], marker=path) if is_path else found[-1]
    if marker is not None:
        return entry_of(marker)
    raise click.UsageError(
        f"{id_!r} is not the id of an operation (`qmpsnap log` shows them); a block job goes on "
        "with `qmpsnap job resume`"
    )


def _is_of(record: Record, guest: Guest, disks: Disks) -> bool:
    """Whether an operation is about a guest: it has its files, or had them before they were unplugged."""
    before, now = record.where, where_of(guest)
    is_its_socket = before.road == "qmp" and before.at == now.at
    is_its_qemu = before.process is not None and before.process == now.process
    return is_its_socket or is_its_qemu or has_any_of(record, disks)


def _read(guest: Guest, only_plan: bool) -> Disks:
    """Read a guest; a stream that has ended, and waits to be dismissed, makes that unsafe."""
    return guest.read() if only_plan else cleared_alone(guest, ()).disks


def _open(journal: Journal, road: Road, problems: list[str], only_plan: bool) -> list[Entry]:
    """All that are open, of the guests that were named; with those that only a marker knows."""
    store = journal.looked_into()
    entries: list[Entry] = []
    if store is not None:
        with store:
            entries = list(store.open_entries())
    if road.connect is not None:
        return _under_libvirt(road, entries, problems)
    if road.qmp is None:
        return entries
    with connect_qmp(road.qmp, max_stall_s=road.max_stall_s) as guest:
        disks = _read(guest, only_plan)
        mine = [one for one in entries if _is_of(one.record, guest, disks)]
    paths = disks.stated().keys()
    known = [one.record for one in mine]
    unread = {one.marker_name for one in known}
    for marker in beside(paths):
        if (marker.written is None and marker.id in unread) or any(map(marker.is_of, known)):
            continue
        unread.add(marker.id)
        known += [] if marker.written is None else [marker.written.record]
        try:
            entry = entry_of(marker)
        except MarkerUntrusted as error:
            problems.append(str(error))
        else:
            mine += [entry] if has_any_of(entry.record, disks) else []
    return mine


def _under_libvirt(road: Road, entries: list[Entry], problems: list[str]) -> list[Entry]:
    """Those of a libvirt that was named, by the guests that it has: one libvirt has several URIs."""
    here = [one for one in entries if one.record.where.at == road.connect]
    there = [one for one in entries if one not in here and one.record.where.guest is not None]
    if there:
        try:
            connection, domains = listed(road)
        except Unreachable as error:
            problems.append(told(error))
            return here
        connection.close()
        known = {one.uuid for one in domains}
        here += [one for one in there if one.record.where.guest in known]
    return here


def _documents(settled: Settled, *, only_plan: bool) -> Iterator[dict[str, object]]:
    """One for each disk."""
    record = settled.record
    for number, disk in enumerate(record.disks):
        is_one_each = len(settled.active) == len(record.disks)
        yield {
            "id": record.id,
            "kind": record.kind,
            "guest": record.guest,
            "disk": disk,
            "outcome": settled.outcome,
            "active": settled.active[number]
            if is_one_each and settled.outcome != "unknown"
            else None,
            "candidates": list(settled.active) if settled.outcome == "unknown" else [],
            "file_format": settled.file_format,
            "status": service.resumed(settled),
            "notes": list(settled.notes),
            "planned": only_plan,
        }


def _view(entries: list[Entry], settled: list[Settled], here: Screen) -> Iterator[str | Table]:
    if not settled:
        yield "nothing is open"
        return
    rows = [
        (
            one.record.id,
            one.record.kind,
            one.record.guest,
            ", ".join(one.record.disks),
            one.outcome,
            ", ".join(one.active),
        )
        for one in settled
    ]
    yield Table(("ID", "KIND", "GUEST", "DISK", "OUTCOME", "START FROM"), rows)
    for entry, one in zip(entries, settled, strict=True):
        for note in one.notes:
            yield from fold(printable(f"{one.record.id}: {note}"), here.width)
        if one.outcome == "unknown":
            yield from _ways_out(entry.named, one, here)


def _ways_out(named: str, settled: Settled, here: Screen) -> Iterator[str]:
    """The commands by which a person finds out, and records what was found."""
    record = settled.record
    plan = record.merge
    if plan is not None and plan.kind == "active-commit" and plan.base is not None:
        formats = f"-f {plan.top.format} -F {plan.base.format}"
        yield from fold(
            printable(f"  compare: qemu-img compare -U {formats} {plan.top.path} {plan.base.path}"),
            here.width,
        )
    for word, path in zip(("active", "base"), settled.active, strict=False):
        yield from fold(
            printable(f"  if {path} is right: qmpsnap resume {named} --take {word}"), here.width
        )
