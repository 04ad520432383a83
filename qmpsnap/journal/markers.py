"""
Markers beside the images: three states that neither the files nor libvirt's definition can tell.

    switch   a snapshot's switch was sent, and is not proven: the guest may write to the overlay
    pivot    an active commit's pivot was sent, and is not proven: the old overlay looks valid
    pull     a pull may have ended, and is not flushed: the header no longer names the base

Each is written and synced before the act, and removed after the proof. A marker may forbid, whoever
wrote it; acted on is one that belongs to root, to us or to the owner of all its images.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.markers import PREFIX, MarkerFile, marker_path, markers_in
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.record import Act, Entry, Record, Unreadable, dumps, loads
from qmpsnap.journal.sound import flaw_of
from qmpsnap.operations.names import tidy
from qmpsnap.operations.step import Does, Step

State = Literal["switch", "pivot", "pull"]
_VERSION: Final = 1
_ROOT: Final = 0
_SAYS: Final = (
    "An operation of qmpsnap was interrupted, or is under way. Do not start a guest from these "
    "images, and change none of them, before `qmpsnap resume` with the path of this file has settled "
    "it."
)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a marker."""

    qmpsnap: int
    says: str
    state: State
    record: Record


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """One that was found."""

    path: str
    id: str
    owner: int | None
    written: Written | None
    """None where it cannot be read."""
    problem: str = ""
    """Why it cannot."""

    def is_of(self, record: Record) -> bool:
        """Whether it is known to be a marker of an operation; the same id does not tell."""
        return self.written is not None and self.written.record.is_same_as(record)

    @property
    def doubt(self) -> str:
        """
        Why it is not to be acted on, by who owns it and where its files lie; empty: it is.

        Of root's or our own, what is worked on lies in folders that it lies in; of another one, all
        that it names lies in its own folder, and belongs to its owner.
        """
        if self.written is None:
            return f"it cannot be read: {self.problem}"
        record = self.written.record
        paths, own = _named_in(record), {tidy(os.path.dirname(self.path))}
        if self.owner not in {_ROOT, os.geteuid()}:
            if _folders_of(paths) == own and _owners(paths) == {self.owner}:
                return ""
            return (
                f"it belongs to user {self.owner}, who does not own all of its files, or it names "
                "files of another folder"
            )
        own.update(
            tidy(folder)
            for folder in folders(record)
            if os.path.lexists(marker_path(folder, self.id))
        )
        others = _folders_of(paths - (record.paths - record.own)) - own
        if not others:
            return ""
        return f"it works on files of another folder, where it does not lie: {', '.join(sorted(others))}"


def _named_in(record: Record) -> frozenset[str]:
    """All files that a record names anywhere: in a forged one the parts may not agree."""
    layers = [layer for plan in record.plans for layer in plan.disk.layers]
    layers += [plan.active for plan in record.creates]
    if record.merge is not None:
        merge = record.merge
        layers += [one for one in (merge.top, merge.base, merge.above) if one is not None]
        layers += [*merge.dropped, *merge.remaining]
    return record.paths.union(record.works_on, (layer.path for layer in layers))


def _folders_of(paths: Iterable[str]) -> set[str]:
    return {tidy(os.path.dirname(path)) for path in paths}


def _owners(paths: Iterable[str]) -> set[int | None]:
    """Who owns files, as far as they are there; of a link, who owns what it leads to as well."""
    found: set[int | None] = set()
    for path in paths:
        try:
            found.add(os.lstat(path).st_uid)
            found.add(os.stat(path).st_uid)
        except FileNotFoundError:
            continue
        except OSError:
            found.add(None)
    return found


class OperationOpen(Refused):
    """An earlier operation on these files has not been settled."""

    msg = "operation {self.operation} on {self.what} is open: {self.reason}"
    remedy = "Settle it first: `{self.command}`. Nothing was touched."

    operation: str
    what: str
    reason: str
    command: str
    """What settles it."""


class MarkerUntrusted(Refused):
    """A marker that may have been put there by anybody."""

    msg = "the marker {self.path} is not acted on: {self.reason}"
    remedy = (
        "It forbids work on these files all the same. Find out who wrote it; when no operation is "
        "open, remove it."
    )

    path: str
    reason: str


def state_of(record: Record) -> State:
    """Which of the three an operation can be left in."""
    if record.kind in ("create", "revert"):
        return "switch"
    return "pivot" if record.kind == "active-commit" else "pull"


def steps_for(record: Record) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What writes the markers of an operation, and what removes them. Pure."""
    name = record.marker_name
    within = replace(record, id=name, marked="")
    written = Written(qmpsnap=_VERSION, says=_SAYS, state=state_of(record), record=within)
    text = dumps(written)
    paths = [marker_path(folder, name) for folder in folders(record)]
    return (
        tuple(_step("write-marker", path=path, text=text) for path in paths),
        tuple(_step("remove-marker", path=path) for path in paths),
    )


def _step(what: str, **arguments: object) -> Step:
    return Step(does=Does.MARK, by="file", what=what, arguments=arguments)


def folders(record: Record) -> tuple[str, ...]:
    """
    Where the markers of an operation lie: beside each file that a guest may be started from.

    And beside each that it works on, or one of them would not be acted on; see `Marker.doubt`.
    """
    paths = [path for plan in record.creates for path in (plan.overlay, plan.active.path)]
    if record.merge is not None:
        merge = record.merge
        paths += [one.path for one in (merge.top, merge.written, merge.disk.layers[0])]
    paths += record.works_on
    return tuple(dict.fromkeys(os.path.dirname(path) for path in paths))


def beside(paths: Iterable[str]) -> tuple[Marker, ...]:
    """All markers in the folders of some files."""
    where = dict.fromkeys(os.path.dirname(path) for path in paths)
    return tuple(_marker(file) for folder in where for file in markers_in(folder))


def _marker(file: MarkerFile) -> Marker:
    written: Written | None = None
    problem = file.problem
    if file.text is not None:
        try:
            written = loads(file.text, Written)
        except Unreadable as error:
            problem = str(error)
    id_ = os.path.basename(file.path).removeprefix(PREFIX)
    if written is not None:
        is_other = (written.record.id, written.record.marked) != (id_, "")
        problem = (
            f"it is the marker of {written.record.id}" if is_other else flaw_of(written.record)
        )
        written = None if problem else written
    return Marker(path=file.path, id=id_, owner=file.owner, written=written, problem=problem)


def of_its_name(record: Record, where: Iterable[str]) -> tuple[Marker, ...]:
    """The markers in some folders that have the name of an operation's; see `Marker.is_of`."""
    found = beside(f"{folder}/x" for folder in where)
    return tuple(marker for marker in found if marker.id == record.marker_name)


def forbidding(disks: Sequence[Disk]) -> tuple[Marker, ...]:
    """The markers that forbid work on some disks as they are; see `concerning`."""
    paths = [path for disk in disks for path in disk.paths if path is not None]
    active = {path for disk in disks for path in disk.paths[:1] if path is not None}
    return concerning(paths, active)


def concerning(paths: Iterable[str], works_on: Collection[str]) -> tuple[Marker, ...]:
    """
    The markers that forbid work on some chains, by the names or identities of their files.

    One that cannot be read forbids it for all files of its folder. Of a file that both only read,
    a template, neither takes anything away.

    Args:
        paths: All files of the chains.
        works_on: Those that may be changed, or that only one guest may have open.
    """
    wanted = tuple(paths)
    return tuple(
        marker
        for marker in beside(wanted)
        if marker.written is None or _is_about(marker.written.record, wanted, works_on)
    )


def _is_about(record: Record, paths: tuple[str, ...], works_on: Collection[str]) -> bool:
    its = {tidy(path) for path in record.own}
    ours = {tidy(path) for path in works_on}
    names = {tidy(path) for path in paths}
    if its & names or ours & {tidy(path) for path in record.paths}:
        return True
    now = [(tidy(path), one) for path in paths if (one := seen(path)) is not None]
    return any(
        is_same(before, one)
        for before in record.files
        for path, one in now
        if path in ours or tidy(before.path) in its
    )


def entry_of(marker: Marker) -> Entry:
    """
    The operation of a marker, when the journal is gone: the act that it was written for may be done.

    The way to its guest is taken from one of root's or our own only; else it has to be given.

    Raises:
        MarkerUntrusted: It forbids, and nobody acts on it.
    """
    doubt = marker.doubt
    if marker.written is None or doubt:
        raise MarkerUntrusted(marker.path, doubt)
    record = marker.written.record
    if marker.owner not in (_ROOT, os.geteuid()):
        # libvirt runs programs that a URI names, and a socket may be anybody's.
        record = replace(record, where=replace(record.where, at=""))
    does = {"switch": Does.SWITCH, "pivot": Does.COMMIT, "pull": Does.START}[marker.written.state]
    act = Act(number=1, at=record.begun, does=does.value, by="?", what="?", arguments={})
    return Entry(record=record, acts=(act,), marker=marker.path)


def check_unmarked(
    paths: Iterable[str], works_on: Collection[str], but: Record | None = None
) -> None:
    """
    See that no marker forbids work on some chains.

    Args:
        paths: See `concerning`.
        works_on: See there.
        but: The operation whose own marker does not count.

    Raises:
        OperationOpen: One does.
    """
    for marker in concerning(paths, works_on):
        if but is None or not marker.is_of(but):
            reason = f"the marker {marker.path} lies beside it"
            if marker.problem:
                reason += f", and cannot be read ({marker.problem})"
            written = marker.written
            what = "these files" if written is None else what_of(written.record)
            raise OperationOpen(marker.id, what, reason, resume_by(marker.path))


def resume_by(path: str) -> str:
    """The command that settles the operation of a marker, whether or not this journal knows it."""
    return f"qmpsnap resume {shlex.quote(path)}"


def open_operation(record: Record, reason: str) -> OperationOpen:
    """The error for an operation that the journal has as open."""
    return OperationOpen(record.id, what_of(record), reason, f"qmpsnap resume {record.id}")


def what_of(record: Record) -> str:
    """What an operation works on, for messages."""
    return f"{', '.join(record.disks)} of {record.guest or record.where.at}"
