"""
What became of an operation that broke off, and what is to be done about it. Looks only.

    the guest runs, the same QEMU       its graph tells all
    it is off, or its QEMU is gone      headers and the definition tell; three states they do not
    another QEMU runs these files       the same, and what it was started from may be wrong
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from qmpsnap.formats.layers import Disk, DiskNotFound, Disks
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.neighbours import other_users
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.left_over import Among
from qmpsnap.journal.named import above, has_let_go, named_by
from qmpsnap.journal.named_again import not_to_be_named
from qmpsnap.journal.proven import has_failed, intended, is_pivoted, is_unproven
from qmpsnap.journal.reach import lives
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.since import (
    gone_on_from,
    is_empty,
    not_switched,
    stale_written,
)
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobReport, JobStatus
from qmpsnap.operations.merge import job_of
from qmpsnap.operations.names import tidy
from qmpsnap.operations.options import DEFAULT_OPTIONS
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does
from qmpsnap.operations.where import Where, where_of


class Way(StrEnum):
    """What is to be done."""

    ADOPT = "adopt"
    """Its job still runs: see it through."""
    FINISH = "finish"
    """The chain is the new one: do what is left."""
    DONE = "done"
    """The chain is the new one, and nothing is left to do."""
    POINT = "point"
    """The guest is off, and its definition does not name the overlay that it has written to."""
    TAKE_BACK = "take back"
    """The chain is the old one: remove what was made for the new one."""
    NAME_AGAIN = "name again"
    """A merge may not be on the disk: name the old backing file again, which has all data."""
    UNKNOWN = "unknown"


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    way: Way
    why: str
    active: tuple[str, ...] = ()
    """The file that each disk is to be started from; of an unknown one, the candidates."""


def outlook(entry: Entry, guest: Guest | None, left_over: Among = lambda _images: ()) -> Outlook:
    """
    Find out what became of an operation.

    Args:
        entry: As the journal, or a marker, has it.
        guest: The guest, running or off; None: it cannot be had any more, and its QEMU is gone.
        left_over: Which images earlier operations have left, where the journal is there.

    Raises:
        QmpsnapError: The guest cannot be read.
    """
    if guest is None:
        return _gone(entry, left_over)
    runs = not where_of(guest).is_offline
    same = runs and _is_same_qemu(entry.record, guest)
    is_other = not same and None not in (entry.record.where.process, where_of(guest).process)
    job = _job(entry.record, guest) if runs else None
    if job is not None and not is_other:
        return _adopting(job)
    try:
        disks = guest.read()
        if not same and not _has_any_of(entry.record, disks):
            return _of_another(entry, where_of(guest), left_over)
        if job is not None:
            return _adopting(job)
        now = [disks.disk(name) for name in entry.record.disks]
    except DiskNotFound as error:
        return _unknown(entry.record, str(error))
    if not runs:
        users = _users(entry.record)
        if users:
            return _unknown(entry.record, f"libvirt says that the guest is off, but {users}")
        changed = _changed(entry)
        if changed:
            return _unknown(entry.record, changed)
    if entry.record.merge is None:
        return _of_create(entry, now, left_over, runs=runs, same=same)
    return _of_merge(entry, entry.record.merge, now[0], runs=runs, same=same)


def _is_same_qemu(record: Record, guest: Guest) -> bool:
    before, now = record.where.process, where_of(guest).process
    return before is not None and before == now


def _adopting(job: JobReport) -> Outlook:
    return Outlook(way=Way.ADOPT, why=f"its job {job.id} is there: {job.view.status}")


def _job(record: Record, guest: Guest) -> JobReport | None:
    """The job of a merge, as long as it has not ended. No reading: a stream can make one unsafe."""
    if record.merge is None:
        return None
    options = record.wishes.options or DEFAULT_OPTIONS
    steps = guest.compose.merge(record.merge, options, guest.state())
    job = job_of(record.merge, steps, guest.jobs())
    has_ended = job is None or job.view.status in (JobStatus.CONCLUDED, JobStatus.NULL)
    return None if has_ended else job


def _has_any_of(record: Record, disks: Disks) -> bool:
    """Whether a guest has a file that only the operation's own can have, by whatever name."""
    own = record.own
    mine = {identity(path) for path in own} - {None}
    theirs = (path for disk in disks.disks for path in disk.paths if path is not None)
    return any(path in own or identity(path) in mine for path in theirs)


def _of_another(entry: Entry, where: Where, left_over: Among) -> Outlook:
    """Of a guest that is found now where the operation's was: it tells nothing of that one."""
    record = entry.record
    if record.host != platform.node() or lives(record):
        return _unknown(record, f"the guest at {where.at} has none of its files")
    return _gone(entry, left_over)


def _of_create(
    entry: Entry, now: Sequence[Disk], left_over: Among, *, runs: bool, same: bool
) -> Outlook:
    record = entry.record
    active = tuple(disk.paths[0] or disk.layers[0].file for disk in now if disk.layers)
    there = [plan.overlay in disk.paths for plan, disk in zip(record.creates, now, strict=True)]
    if all(there):
        is_top = all(
            plan.overlay == disk.paths[0] for plan, disk in zip(record.creates, now, strict=True)
        )
        way = Way.FINISH if runs and is_top else Way.DONE
        return Outlook(way=way, why="every overlay is in its chain", active=active)
    if any(there):
        return _unknown(record, "some of the overlays are in their chains, and some are not")
    if others := gone_on_from(record, [plan.overlay for plan in record.creates], left_over):
        return _unknown(record, others)
    if same:
        return Outlook(way=Way.TAKE_BACK, why="no overlay is in its chain", active=active)
    written = [plan for plan in record.creates if not is_empty(plan.overlay)]
    if not written:
        return Outlook(way=Way.TAKE_BACK, why="the overlays are empty, or gone", active=active)
    names = ", ".join(plan.file for plan in written)
    if runs:
        return _unknown(
            record, f"the guest was started from the old file, and had written to {names} before"
        )
    if doubt := not_switched(entry, written):
        return _unknown(record, doubt)
    if not record.where.is_offline:
        why = f"the guest has written to {names}, which its definition does not name"
        return Outlook(way=Way.POINT, why=why, active=tuple(one.overlay for one in record.creates))
    return _unknown(record, f"{names} holds data, and is not in the chain")


def _of_merge(entry: Entry, plan: MergePlan, disk: Disk, *, runs: bool, same: bool) -> Outlook:
    dropped = {layer.path for layer in plan.dropped}
    paths = set(disk.paths)
    if plan.written.path in paths and not dropped & paths:
        return _merged(entry, plan, disk, runs=runs, same=same)
    if dropped <= paths:
        return _unmerged(entry, plan, disk, runs=runs, same=same)
    return _unknown(
        entry.record, f"the chain is neither the old nor the new one: {disk.chain_text}"
    )


def _merged(entry: Entry, plan: MergePlan, disk: Disk, *, runs: bool, same: bool) -> Outlook:
    active = _first(disk)
    new = "what was to leave the chain has left it"
    if same and disk.paths == tuple(layer.path for layer in plan.remaining):
        return Outlook(way=Way.FINISH, why=new, active=active)
    if is_unproven(entry, plan):
        if not runs:
            return _unproven(entry, plan, active)
        if plan.kind == "pull" or has_failed(entry):
            since = f"gone on since: {disk.chain_text}" if same else "started a guest from it"
            return _unknown(entry.record, f"{_unflushed(plan)}, and somebody has {since}")
    if same and plan.kind != "pull":
        return Outlook(way=Way.DONE, why=f"{new}, and somebody has gone on since", active=active)
    begun_live = not entry.record.where.is_offline
    if plan.kind == "active-commit" and begun_live and not intended(entry, Does.COMMIT):
        why = f"{disk.layers[0].file} is active, and the pivot to it was not sent"
        return _unknown(entry.record, why)
    direct = entry.record.where.road == "qmp"
    if plan.kind == "active-commit" and direct and not is_pivoted(entry):
        why = f"somebody has started the guest from {disk.layers[0].file}, and the pivot is not proven"
        return _unknown(entry.record, why)
    return Outlook(way=Way.DONE, why=new, active=active)


def _unmerged(entry: Entry, plan: MergePlan, disk: Disk, *, runs: bool, same: bool) -> Outlook:
    is_open = plan.kind == "active-commit" and not same and not entry.record.where.is_offline
    if is_open and is_pivoted(entry):
        why = (
            f"the pivot from {plan.top.file} is proven, and somebody has started the guest from it"
        )
        return _unknown(entry.record, why)
    if is_open and intended(entry, Does.COMMIT):
        return _unknown(entry.record, _either(plan))
    if not runs and is_unproven(entry, plan) and has_let_go(plan):
        # libvirt died before it had the definition say so; whoever goes by the header reads zeros.
        return _unproven(entry, plan, _first(disk))
    return Outlook(way=Way.TAKE_BACK, why="the chain is the old one", active=_first(disk))


def _gone(entry: Entry, left_over: Among) -> Outlook:
    """By the headers alone."""
    record, found = entry.record, _by_headers(entry)
    if found.way is Way.UNKNOWN:
        return found
    overlays = [plan.overlay for plan in record.creates]
    others = gone_on_from(record, [*overlays, *found.active], left_over)
    return _unknown(record, others) if others else found


def _by_headers(entry: Entry) -> Outlook:
    record = entry.record
    problem = _users(record) or _changed(entry)
    if problem:
        return _unknown(record, problem)
    plan = record.merge
    if plan is None:
        written = [one for one in record.creates if not is_empty(one.overlay)]
        if not written:
            active = tuple(one.disk.layers[0].path for one in record.creates)
            return Outlook(way=Way.TAKE_BACK, why="the overlays are empty, or gone", active=active)
        names = ", ".join(one.file for one in written)
        if doubt := not_switched(entry, written):
            return _unknown(record, doubt)
        active = tuple(one.overlay for one in record.creates)
        return Outlook(way=Way.DONE, why=f"the guest has written to {names}", active=active)
    top = (plan.disk.layers[0].path,)
    if plan.kind == "active-commit":
        if not intended(entry, Does.COMMIT):
            return Outlook(way=Way.TAKE_BACK, why="the pivot was not sent", active=top)
        if is_pivoted(entry) and plan.base is not None:
            if doubt := stale_written(entry, plan):
                return _unknown(record, f"{doubt}: somebody has started the guest from it")
            return Outlook(way=Way.DONE, why="the pivot is proven", active=(plan.base.path,))
        return _unknown(record, _either(plan))
    upper = above(plan)
    try:
        header = read_header(upper.path, follow=False)
    except (OSError, BadHeader) as error:
        return _unknown(record, f"{upper.file} cannot be read: {error}")
    named = named_by(upper.path, header.backing_file)
    if named == named_by(upper.path, plan.base.path if plan.base else None):
        if is_unproven(entry, plan):
            return _unproven(entry, plan, top)
        return Outlook(way=Way.DONE, why=f"{upper.file} names its new backing file", active=top)
    if named == tidy(plan.dropped[0].path):
        return Outlook(way=Way.TAKE_BACK, why=f"{upper.file} names the old file", active=top)
    return _unknown(record, f"{upper.file} names {header.backing_file!r}")


def _unproven(entry: Entry, plan: MergePlan, active: tuple[str, ...]) -> Outlook:
    """
    Of a merge that may not be on the disk: what was to leave the chain has all data, if it is there.

    Without it a commit counts as done unless its flush has failed: QEMU flushes at the end of each.
    """
    record, why = entry.record, _unflushed(plan)
    problem = not_to_be_named(record, plan)
    if not problem:
        return Outlook(way=Way.NAME_AGAIN, why=why, active=active)
    if plan.kind == "commit" and not has_failed(entry):
        return Outlook(
            way=Way.DONE, why=f"{above(plan).file} names its new backing file", active=active
        )
    return _unknown(record, f"{why}, and {problem}")


def _unflushed(plan: MergePlan) -> str:
    return f"nobody has proven that what {plan.written.file} was given is on the disk"


def _either(plan: MergePlan) -> str:
    base = plan.base.file if plan.base is not None else "?"
    return (
        f"the pivot from {plan.top.file} to {base} was sent, and nobody saw whether it was carried "
        f"out. If it was, {base} is right and {plan.top.file} is stale; if not, {plan.top.file} is "
        "right"
    )


def _unknown(record: Record, why: str) -> Outlook:
    return Outlook(way=Way.UNKNOWN, why=why, active=candidates(record))


def candidates(record: Record) -> tuple[str, ...]:
    """The file that the first disk is to be started from if it was done, and if it was not."""
    if record.creates:
        return record.creates[0].overlay, record.creates[0].disk.layers[0].path
    plan = record.merge
    if plan is None or plan.kind != "active-commit" or plan.base is None:
        return () if plan is None else (plan.disk.layers[0].path,)
    return plan.top.path, plan.base.path


def _first(disk: Disk) -> tuple[str, ...]:
    return (disk.layers[0].path or disk.layers[0].file,) if disk.layers else ()


def _users(record: Record) -> str:
    found, _ = other_users(sorted(record.own), None)
    return "; ".join(f"{path} is open by {', '.join(users)}" for path, users in found.items())


def _changed(entry: Entry) -> str:
    """Which files are not those that they were; one that the operation itself removed may be gone."""
    record, found = entry.record, []
    removed = {act.arguments.get("path") for act in entry.acts if act.does == Does.REMOVE}
    for before in record.files:
        now = seen(before.path, header=before.header is not None)
        if now is None:
            if before.path not in removed:
                found.append(f"{before.path} is gone")
        elif not is_same(before, now):
            found.append(f"{before.path} is another file than it was")
        elif before.header is not None and before.header != now.header:
            found.append(f"the header of {before.path} has changed")
    return "; ".join(found)
