"""
Settle operations that broke off.

They are seen through, finished or taken back; or it is said that nobody can know.

    look (`outlook`) ─► acts, written down as any others ─► markers removed ─► conclusion

All of it may be done twice, and may be killed as well.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Final, Literal, cast

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Failed, QmpsnapError, Refused, Unknown, Unreachable
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.door import take_file
from qmpsnap.guests.files.steps import discard_steps
from qmpsnap.journal.door import Recorder
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import held
from qmpsnap.journal.knowing import knowing
from qmpsnap.journal.known_again import known_again
from qmpsnap.journal.left_over import left_over_among
from qmpsnap.journal.markers import folders, of_its_name, resume_by
from qmpsnap.journal.named import above, names_its_new
from qmpsnap.journal.named_again import old_name
from qmpsnap.journal.outlook import Outlook, Way, candidates, outlook
from qmpsnap.journal.plugged import called
from qmpsnap.journal.reach import Opener, lives, reached
from qmpsnap.journal.record import Entry, Outcome, Record, conclusion_of
from qmpsnap.journal.store import Store
from qmpsnap.operations import finish, snapshot
from qmpsnap.operations.clear import cleared_alone
from qmpsnap.operations.guest import Guest, Overlay
from qmpsnap.operations.job.loop import Tell
from qmpsnap.operations.merge import Prepared, Progress
from qmpsnap.operations.options import DEFAULT_OPTIONS
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.unchanged import GraphChanged

Settlement = Literal["finished", "rolled-back", "nothing-to-do", "unknown"]
Take = Literal["active", "base"]
_TRIES: Final = 50
_AGAIN_S: Final = 0.1
_ENDS: Final[dict[Way, Settlement]] = {
    Way.ADOPT: "finished",
    Way.FINISH: "finished",
    Way.DONE: "finished",
    Way.POINT: "finished",
    Way.TAKE_BACK: "rolled-back",
    Way.NAME_AGAIN: "rolled-back",
    Way.UNKNOWN: "unknown",
}


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one operation."""

    record: Record
    outcome: Settlement
    active: tuple[str, ...] = ()
    """The file that each disk is active with, or is to be started from; of an unknown one, the
    candidates."""
    file_format: dict[str, str]
    """What is to be reported of one that is finished."""
    notes: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    is_unread: bool = False
    """Whether it is unknown because the guest could not be read."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How it is to be settled."""

    only_plan: bool = False
    take: Take | None = None
    """What a person has decided where nobody can know."""
    progress: Progress | None = None
    tell: Tell | None = None


class CannotTake(Refused):
    """A decision that an operation leaves nobody to make."""

    msg = "there is nothing to decide about operation {self.operation}: {self.reason}"
    remedy = "`qmpsnap resume {self.operation}` settles it, or says what can be decided."

    operation: str
    reason: str


AS_IT_IS: Final = Wanted()


def resume(
    journal: Journal, entry: Entry, wanted: Wanted = AS_IT_IS, *, opener: Opener | None = None
) -> Settled:
    """
    Settle one operation, by the way to its guest that it was written down with.

    Args:
        journal: Where it is concluded.
        entry: The operation.
        wanted: How.
        opener: Opens its guest; None: a connection of this call's own.

    Raises:
        JournalUnusable: That it is settled cannot be written down.
        CannotTake: See there.
        OperationBusy: Somebody is at work on it.
        FileFailed: It had ended, and its marker cannot be removed.
    """
    if entry.conclusion is not None:
        return settle(journal, entry, None, wanted)
    with held(journal.opened_folder, entry.record.id):
        pass  # whoever is at work on it has the guest's socket, too
    left = _TRIES
    while True:
        try:
            with reached(entry, opener) as guest:
                settled = settle(journal, entry, guest, wanted)
        except Unreachable as error:
            why = f"its guest cannot be reached: {told(error)}"
            if wanted.take is not None:
                return settle(journal, entry, None, wanted, out_of_reach=why)
            settled = replace(unknown(entry.record, why), is_unread=True)
        left -= 1
        if not settled.is_unread or lives(entry.record) or not left:
            return settled
        time.sleep(_AGAIN_S)  # libvirt has not noticed the end of its QEMU yet


def settle(
    journal: Journal,
    entry: Entry,
    guest: Guest | None,
    wanted: Wanted = AS_IT_IS,
    *,
    out_of_reach: str = "",
) -> Settled:
    """
    Settle one operation.

    Args:
        journal: Where it is concluded.
        entry: The operation, by the journal or by its marker.
        guest: The guest; None: it cannot be had any more.
        wanted: How.
        out_of_reach: Why nobody knows whether it is gone, where a person has decided all the same.

    Raises:
        JournalUnusable, CannotTake, OperationBusy, FileFailed: See `resume`.
    """
    id_ = entry.record.id
    with journal.opened() as store, held(journal.opened_folder, id_), ExitStack() as stack:
        guest = None if guest is None else knowing(guest, store)
        named = entry.marker
        entry = _known(store, entry, only_plan=wanted.only_plan)
        if entry.record.id != id_:
            stack.enter_context(held(journal.opened_folder, entry.record.id))
        if entry.conclusion is not None:
            return _ended(entry, named, only_plan=wanted.only_plan)
        if another := _anothers(entry.record, folders(entry.record)):
            if wanted.take is not None:
                raise CannotTake(entry.record.id, another)
            return replace(unknown(entry.record, another), active=())
        entry = replace(entry, record=known_again(entry.record))
        try:
            if guest is not None and not wanted.only_plan:
                cleared_alone(guest, entry.record.disks)  # an ended stream makes reading unsafe
            found = outlook(entry, guest, partial(left_over_among, store))
        except QmpsnapError as error:
            return replace(unknown(entry.record, str(error)), is_unread=True)
        if wanted.take is not None:
            found = (
                _decided_without(entry, found, wanted.take, out_of_reach)
                if out_of_reach
                else _decided(entry, found, wanted.take)
            )
        if wanted.only_plan:
            return _planned(entry.record, found)
        return _carried_out(store, entry, guest, found, wanted)


def _known(store: Store, entry: Entry, *, only_plan: bool) -> Entry:
    """The operation as the journal has it now; one that only a marker knows is written down first."""
    found = store.same(entry.record)
    if found is not None:
        return found
    if only_plan:
        return entry
    if store.has(entry.record.id):
        entry = replace(entry, record=entry.record.named_apart(secrets.token_hex(16)))
    store.begin(entry.record, entry.acts)
    return entry


def _ended(entry: Entry, named: str | None, *, only_plan: bool) -> Settled:
    """It was settled before; at most its markers are left, of which one may have been named."""
    end = entry.conclusion
    assert end is not None
    files = (*end.active, *end.elsewhere, *entry.record.works_on, *([named] if named else []))
    where = dict.fromkeys(os.path.dirname(one) for one in files)
    notes = [f"it had ended: {end.outcome}"]
    for marker in of_its_name(entry.record, where):
        if marker.is_of(entry.record):
            if not only_plan:
                take_file(_removing(marker.path))
            left = "is still there" if only_plan else "was left: removed"
            notes.append(f"its marker {marker.path} {left}")
    if another := _anothers(entry.record, where):
        return unknown(entry.record, f"it had ended: {end.outcome}; {another}")
    return Settled(
        record=entry.record,
        outcome="nothing-to-do",
        active=end.active,
        file_format=end.file_format if end.outcome == "finished" else {},
        notes=tuple(notes),
    )


def _anothers(record: Record, where: Iterable[str]) -> str:
    """Which marker has the name of an operation's and is not its own, in words; empty: none."""
    for marker in of_its_name(record, where):
        if marker.problem:
            return f"the marker {marker.path} cannot be read: {marker.problem}"
        if not marker.is_of(record):
            return (
                f"the marker {marker.path} is of another operation of the same name; settle that one "
                f"first: `{resume_by(marker.path)}`"
            )
    return ""


def _removing(path: str) -> Step:
    return Step(does=Does.MARK, by="file", what="remove-marker", arguments={"path": path})


def _decided(entry: Entry, found: Outlook, take: Take) -> Outlook:
    if found.way is not Way.UNKNOWN:
        raise CannotTake(entry.record.id, found.why)
    files, plan = candidates(entry.record), entry.record.merge
    number = 0 if take == "active" else 1
    if number >= len(files):
        raise CannotTake(entry.record.id, f"{' and '.join(files)} alone can be right")
    if plan is not None and len(files) == 1:
        done = names_its_new(plan)
    else:
        done = (plan is None) == (take == "active")
    why = f"somebody has decided that {files[number]} is right; before: {found.why}"
    creates = entry.record.creates
    pairs = tuple((one.overlay, one.disk.layers[0].path) for one in creates) or (files,)
    active = tuple(pair[number] for pair in pairs)
    gone = [path for path in active if not os.path.exists(path)]
    other = [pair[1 - number] for pair in pairs if len(pair) > 1]
    if gone and other and all(map(os.path.exists, other)):
        raise CannotTake(entry.record.id, f"{' and '.join(gone)} cannot be right: nothing is there")
    done = done and not gone
    # Nothing is removed: whoever decides may be wrong.
    return Outlook(way=Way.DONE if done else Way.UNKNOWN, why=why, active=active)


def _decided_without(entry: Entry, found: Outlook, take: Take, why: str) -> Outlook:
    """
    What a person has decided of a guest that is out of reach: its host may have died for good.

    Args:
        entry: The operation.
        found: What is so if the guest is gone.
        take: The decision.
        why: Why nobody knows.

    Raises:
        CannotTake: It runs after all, or the files say something else.
    """
    record = entry.record
    users = [path for path in sorted(record.own) if in_use_by_qemu(path)]
    if users or lives(record):
        raise CannotTake(record.id, f"its guest runs ({', '.join(users) or 'its QEMU'}), and {why}")
    if found.way is Way.NAME_AGAIN and take == "active":
        return found  # that host's memory may have had what was to be on the disk
    open_ = Outlook(way=Way.UNKNOWN, why=why, active=candidates(record))
    decided = _decided(entry, open_, take)
    if found.way is not Way.UNKNOWN and decided.active != found.active:
        raise CannotTake(record.id, f"{' and '.join(found.active)} is right: {found.why}")
    return decided


def _planned(record: Record, found: Outlook) -> Settled:
    way = _ENDS[found.way]
    return Settled(
        record=record,
        outcome=way,
        active=found.active,
        file_format=_formats(record) if way == "finished" else {},
        notes=(found.why,),
    )


def told(error: QmpsnapError) -> str:
    """What happened and what to do, as one note."""
    return f"{error}. {error.way_out}" if error.way_out else str(error)


def unknown(record: Record, why: str) -> Settled:
    """What cannot be known now, and why."""
    return Settled(
        record=record, outcome="unknown", file_format={}, notes=(why,), active=candidates(record)
    )


def _carried_out(
    store: Store, entry: Entry, guest: Guest | None, found: Outlook, wanted: Wanted
) -> Settled:
    record = entry.record
    guest = None if found.by_files else guest
    door = guest if guest is not None else cast(Guest, _NoGuest())
    recorder = Recorder(door, store, record.request, record.wishes, goes_on=entry)
    if found.way is Way.UNKNOWN and wanted.take is None:
        return unknown(record, found.why)
    outcome: Settlement = _ENDS[found.way] if found.way is not Way.UNKNOWN else "rolled-back"
    notes: list[str] = [found.why]
    results: tuple[Result, ...] = ()
    active = found.active
    try:
        results = _acted(recorder, called(record, found.disks), guest, found, wanted)
    except Unknown as error:
        recorder.stays_open()
        return unknown(record, f"{found.why}; {error}")
    except (Failed, Refused) as error:
        recorder.stays_open()
        again = _after_failure(store, entry, guest)
        if found.way is Way.ADOPT and again is not None and again.way in (Way.FINISH, Way.DONE):
            # It ended by itself, after it was seen and before it was taken up.
            entry = replace(_known(store, entry, only_plan=False), record=record)
            return _carried_out(store, entry, guest, again, wanted)
        if again is None or again.way is not Way.TAKE_BACK:
            return unknown(record, f"{found.why}; {error}")
        outcome, active = "rolled-back", again.active
        notes.append(str(error))
    if results:
        active = tuple(one.disk.layers[0].path or one.disk.layers[0].file for one in results)
        notes += [note for one in results for note in one.notes]
    formats = {name: form for one in results for name, form in one.file_format.items()}
    if outcome == "finished" and not results:
        formats = _formats(record)
    recorder.unmark()
    end = conclusion_of(cast(Outcome, outcome), time.time(), results)
    recorder.concludes(
        replace(
            end,
            resumed=True,
            active=active,
            file_format=formats,
            message=found.why,
            notes=tuple(dict.fromkeys(notes)),
        ),
        is_undone=outcome == "rolled-back",
    )
    return Settled(
        record=record,
        outcome=outcome,
        active=active,
        file_format=formats,
        notes=tuple(dict.fromkeys((*notes, *recorder.notes))),
        results=tuple(replace(one, operation=record.id) for one in results),
    )


def _after_failure(store: Store, entry: Entry, guest: Guest | None) -> Outlook | None:
    """Where an attempt to go on has left it: the job that was adopted may have failed."""
    try:
        return outlook(entry, guest, partial(left_over_among, store))
    except QmpsnapError:
        return None


def _acted(
    door: Recorder, record: Record, guest: Guest | None, found: Outlook, wanted: Wanted
) -> tuple[Result, ...]:
    """Do what is to be done; the results, where there is a guest to read them from."""
    plan, wishes = record.merge, record.wishes
    options = wishes.options or DEFAULT_OPTIONS
    match found.way:
        case Way.ADOPT if plan is not None:
            done = finish.take_up(
                door,
                plan,
                options=options,
                allow=wishes.allow,
                remove=wishes.remove,
                progress=wanted.progress,
                tell=wanted.tell,
                begins=partial(_begins, door, plan),
            )
            return (done,)
        case Way.FINISH if plan is not None:
            return (finish.finish(door, plan, options=options, remove=wishes.remove),)
        case Way.FINISH:
            return snapshot.finish(door, record.creates)
        case Way.POINT:
            overlays = tuple(Overlay(is_there=True) for _ in record.creates)
            steps = door.compose.snapshot(door.read(), record.creates, overlays, door.state())
            door.take(steps.switch)
        case Way.TAKE_BACK if guest is None:
            _discard(door, record)
        case Way.TAKE_BACK if plan is None:
            snapshot.take_back(door, record.creates, record.made_here)
        case Way.TAKE_BACK:
            cleared_alone(door, record.disks)
        case Way.NAME_AGAIN if plan is not None:
            door.take(_naming_again(plan))
            if guest is not None:
                _define_again(door, plan)
        case _:
            pass
    return ()


def _begins(door: Recorder, plan: MergePlan, ready: Prepared) -> None:
    """
    Go on with a job where its disk is the one of the plan: the name may be another volume's.

    Raises:
        GraphChanged: It is.
    """
    now = ready.plan
    if (now.top.path, now.written.path) != (plan.top.path, plan.written.path):
        raise GraphChanged(f"{plan.disk.disk} is another disk by now: {now.disk.chain_text}")
    door.begins(ready)


def _discard(door: Recorder, record: Record) -> None:
    """Remove the overlays that were made, and that nobody has written to: `outlook` has looked."""
    overlays = tuple(Overlay(is_there=not made) for made in record.made_here)
    for step in discard_steps(record.creates, overlays):
        if step is not None:
            door.take(step)


def _naming_again(plan: MergePlan) -> Step:
    """What a merge has taken out of the header, as it stood there or as it should have."""
    arguments = {
        "path": above(plan).path,
        "backing": old_name(plan),
        "backing-format": plan.dropped[0].format,
    }
    return Step(does=Does.REDEFINE, by="file", what="record-backing", arguments=arguments)


def _define_again(door: Recorder, plan: MergePlan) -> None:
    """
    Let the definition say the same as the header; libvirt believes it first.

    After the header: killed in between, the definition still tells the next `resume` what is to be
    done. It may name the old chain already, where libvirt died before it had saved the new one.
    """
    now, below = door.read().disk(plan.disk.disk), plan.dropped[0]
    # Of an encrypted file the header tells that it is there, and the definition alone its secret.
    is_told = any((one.path, one.secret) == (below.path, below.secret) for one in now.layers)
    step = None if is_told else door.compose.below_again(plan)
    if step is not None:
        door.take(step)


def _formats(record: Record) -> dict[str, str]:
    """By the rule: a create makes qcow2, and a merge leaves the formats of the files as they are."""
    if record.merge is not None:
        return {layer.file: layer.format for layer in record.merge.reported}
    return {plan.file: "qcow2" for plan in record.creates}


class _NoGuest:
    """In the place of a guest that is gone: files alone can be changed."""

    def take(self, step: Step) -> object:
        """See `Door.take`."""
        take_file(step)
        return None
