"""
What became of an operation that broke off, and what is to be done about it. Looks only.

    the guest runs, the same QEMU       its graph tells all
    it is off, or its QEMU is gone      headers and the definition tell; three states they do not
    another QEMU runs these files       the same, and what it was started from may be wrong
    the disk was plugged in again       the same, and so may be what it was plugged in with
    it was unplugged                    as if its QEMU were gone
"""

from __future__ import annotations

import platform
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, DiskAmbiguous, Disks
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.neighbours import other_users
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.known_again import in_its_names
from qmpsnap.journal.left_over import Among
from qmpsnap.journal.named import above, has_let_go, named_by
from qmpsnap.journal.named_again import not_to_be_named
from qmpsnap.journal.plugged import Found, Stay, found_of, whose
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
    disks: tuple[str, ...] = ()
    """What the guest calls its disks now; empty: as the operation does."""
    by_files: bool = False
    """Whether the guest has none of its disks, so that nothing is to be done there."""


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
    record, where = entry.record, where_of(guest)
    runs = not where.is_offline
    same = runs and _is_same_qemu(record, guest)
    is_other = not same and None not in (record.where.process, where.process)
    job = _job(record, guest) if runs else None
    if job is not None and where.road == "qmp" and not is_other:
        return _adopting(job)  # its id follows from the files
    read = guest.read()
    disks = in_its_names(record, read)
    try:
        now = whose(record, disks)
    except DiskAmbiguous as error:
        return _unknown(record, str(error))
    there = [disk for disk in now if disk is not None]
    if not there:
        return _unplugged(entry, disks, left_over) if same else _of_another(entry, where, left_over)
    names = tuple(disk.disk for disk in there)
    if job is not None and names == record.disks:
        return _adopting(job)
    if len(there) < len(now):
        gone = [name for name, disk in zip(record.disks, now, strict=True) if disk is None]
        return _unknown(record, f"the guest has {', '.join(gone)} no more")
    if names != record.disks and (record.where.road == "qmp") != (where.road == "qmp"):
        why = f"{', '.join(record.disks)} is called {', '.join(names)} here"
        return _unknown(record, f"{why}: it was done by another way to the guest")
    if not runs:
        problem = _users(record)
        problem = problem and f"libvirt says that the guest is off, but {problem}"
        problem = problem or _changed(entry)
        if problem:
            return _unknown(record, problem)
    found = found_of(record, there, disks.open_files, runs=runs, is_same=same)
    judged = replace(_judged(entry, found, left_over), disks=names)
    # What is left goes by the names in the plan; of another QEMU that is to look at the headers.
    is_called_otherwise = judged.way is Way.FINISH and disks is not read
    return replace(judged, way=Way.DONE) if is_called_otherwise else judged


def _judged(entry: Entry, found: Found, left_over: Among) -> Outlook:
    """By the chains that the guest has."""
    plan = entry.record.merge
    if plan is None:
        return _of_create(entry, found, left_over)
    return _of_merge(entry, plan, found.disks[0], found)


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


def _of_another(entry: Entry, where: Where, left_over: Among) -> Outlook:
    """Of a guest that is found now where the operation's was: it tells nothing of that one."""
    record = entry.record
    if record.host != platform.node() or lives(record):
        return _unknown(record, f"the guest at {where.at} has none of its files")
    return _gone(entry, left_over)


def _unplugged(entry: Entry, disks: Disks, left_over: Among) -> Outlook:
    """Of a guest that runs, and has none of the disks any more: the files tell."""
    record = entry.record
    held = sorted(record.own & disks.open_files)
    if held or record.host != platform.node():
        why = f"the guest has {', '.join(record.disks)} no more"
        return _unknown(record, f"{why}, and still has {', '.join(held)} open" if held else why)
    return _gone(entry, left_over)


def _of_create(entry: Entry, found: Found, left_over: Among) -> Outlook:
    record, now = entry.record, found.disks
    active = tuple(disk.paths[0] or disk.layers[0].file for disk in now if disk.layers)
    there = [plan.overlay in disk.paths for plan, disk in zip(record.creates, now, strict=True)]
    if all(there):
        is_top = all(
            plan.overlay == disk.paths[0] for plan, disk in zip(record.creates, now, strict=True)
        )
        way = Way.FINISH if found.runs and is_top else Way.DONE
        return Outlook(way=way, why="every overlay is in its chain", active=active)
    if any(there):
        return _unknown(record, "some of the overlays are in their chains, and some are not")
    if others := gone_on_from(record, [plan.overlay for plan in record.creates], left_over):
        return _unknown(record, others)
    if found.stay is Stay.SURE:
        return Outlook(way=Way.TAKE_BACK, why="no overlay is in its chain", active=active)
    held = [plan.file for plan in record.creates if plan.overlay in found.open_files]
    if held and found.is_same and found.stay is Stay.NO:
        # What the guest has written there may be in memory alone.
        begun = found.begun_with("the old file")
        return _unknown(record, f"{begun}, and {', '.join(held)} is still open")
    written = [plan for plan in record.creates if not is_empty(plan.overlay)]
    if not written:
        return Outlook(way=Way.TAKE_BACK, why="the overlays are empty, or gone", active=active)
    names = ", ".join(plan.file for plan in written)
    if found.stay is Stay.LIKELY:
        why = f"{names} holds data, and is not in the chain: it may have been plugged in again"
        return _unknown(record, why)
    if found.runs:
        begun = found.begun_with("the old file")
        return _unknown(record, f"{begun}, and the guest had written to {names} before")
    if doubt := not_switched(entry, written):
        return _unknown(record, doubt)
    if not record.where.is_offline:
        why = f"the guest has written to {names}, which its definition does not name"
        return Outlook(way=Way.POINT, why=why, active=tuple(one.overlay for one in record.creates))
    return _unknown(record, f"{names} holds data, and is not in the chain")


def _of_merge(entry: Entry, plan: MergePlan, disk: Disk, found: Found) -> Outlook:
    dropped = {layer.path for layer in plan.dropped}
    paths = set(disk.paths)
    if plan.written.path in paths and not dropped & paths:
        return _merged(entry, plan, disk, found)
    if dropped <= paths:
        return _unmerged(entry, plan, disk, found)
    return _unknown(
        entry.record, f"the chain is neither the old nor the new one: {disk.chain_text}"
    )


def _merged(entry: Entry, plan: MergePlan, disk: Disk, found: Found) -> Outlook:
    active = _first(disk)
    new = "what was to leave the chain has left it"
    is_pivot = plan.kind == "active-commit" and not entry.record.where.is_offline
    unsent = is_pivot and not intended(entry, Does.COMMIT)
    has_stayed = found.stay is Stay.SURE or (found.stay is Stay.LIKELY and not unsent)
    if has_stayed and disk.paths == tuple(layer.path for layer in plan.remaining):
        return Outlook(way=Way.FINISH, why=new, active=active)
    if is_unproven(entry, plan):
        if not found.runs:
            return _unproven(entry, plan, active)
        if plan.kind == "pull" or has_failed(entry):
            since = found.begun_with("it")
            since = f"somebody has gone on since: {disk.chain_text}" if has_stayed else since
            return _unknown(entry.record, f"{_unflushed(plan)}, and {since}")
    if has_stayed and plan.kind != "pull":
        return Outlook(way=Way.DONE, why=f"{new}, and somebody has gone on since", active=active)
    if unsent:
        why = f"{disk.layers[0].file} is active, and the pivot to it was not sent"
        return _unknown(entry.record, why)
    if found.stay is Stay.NO and plan.remaining[0].path not in disk.paths:
        lost = f"{plan.remaining[0].file}, which was active, is not in its chain"
        return _unknown(entry.record, f"{found.begun_with(disk.layers[0].file)}: {lost}")
    # Where the disk was plugged in, libvirt's definition names what it was given.
    is_told = entry.record.where.road != "qmp" and not found.is_same
    if plan.kind == "active-commit" and not is_told and not is_pivoted(entry):
        begun = found.begun_with(disk.layers[0].file)
        return _unknown(entry.record, f"{begun}, and the pivot is not proven")
    return Outlook(way=Way.DONE, why=new, active=active)


def _unmerged(entry: Entry, plan: MergePlan, disk: Disk, found: Found) -> Outlook:
    is_pivot = plan.kind == "active-commit" and not entry.record.where.is_offline
    if is_pivot and found.stay is not Stay.SURE:
        if is_pivoted(entry):
            why = f"the pivot from {plan.top.file} is proven, and {found.begun_with('it')}"
            return _unknown(entry.record, why)
        if intended(entry, Does.COMMIT):
            return _unknown(entry.record, _either(plan))
    if not found.runs and is_unproven(entry, plan) and has_let_go(plan):
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
    return _unknown(record, others) if others else replace(found, by_files=True)


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
