"""
What is kept of an operation: values that come back from the journal as they went in.

A plan is kept whole, so that it can be gone on with, by the same code, in another process.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.answers import FAILED
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergeKind, MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.step import Step
from qmpsnap.operations.where import Where

Kind = Literal["create", "revert"] | MergeKind
Outcome = Literal["finished", "rolled-back", "nothing-to-do", "failed"]
Request = tuple[CreateRequest, ...] | DeleteRequest | NamedDeleteRequest
T = TypeVar("T")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file as it was before the first act.

    Never with the number of its file system: that changes with boot, host and mount.
    """

    path: str
    inode: int
    born: int | None
    """Nanoseconds after 1970; None where the file system does not tell."""
    size: int
    device: int | None = None
    """`st_rdev` of a block device, which counts alone."""
    header: str | None = None
    """SHA-256 of the header of a qcow2 file that nobody writes."""
    written: int | None = None
    """`st_mtime_ns`; None in what an earlier version wrote down."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller wanted it."""

    options: MergeOptions | None = None
    allow: tuple[Guard, ...] = ()
    remove: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An operation before its first act."""

    id: str
    token: str | None = None
    """The caller's own name for it, which the status update carries."""
    kind: Kind
    guest: str | None
    """Its name."""
    where: Where
    creating: tuple[CreateRequest, ...] = ()
    """What was asked for, as it was asked; of this and the next two there is one."""
    deleting: DeleteRequest | None = None
    deleting_named: NamedDeleteRequest | None = None
    disks: tuple[str, ...] = ()
    """The disks it works on."""
    before: dict[str, str] = msgspec.field(default_factory=dict)
    """Format by bare name of every layer of these, as they were."""
    creates: tuple[CreatePlan, ...] = ()
    made_here: tuple[bool, ...] = ()
    """For each of these, whether the overlay was not there before."""
    merge: MergePlan | None = None
    wishes: Wishes = Wishes()
    works_on: tuple[str, ...] = ()
    """See the function; libvirt's hook reads it here. Empty: written down by an earlier version."""
    files: tuple[Seen, ...] = ()
    by: str = ""
    """Who did it; see `who`."""
    host: str = ""
    begun: float
    """Seconds after 1970, as in all times here."""
    marked: str = ""
    """What its markers are named by, if not by its id; see `named_apart`."""

    def is_same_as(self, other: Record) -> bool:
        """
        Whether two records are of one operation.

        Their ids do not tell: a caller may give its token on two hosts, and each begins one.
        """
        return (self.begun, self.host, self.kind, self.where.process, self.works_on) == (
            other.begun,
            other.host,
            other.kind,
            other.where.process,
            other.works_on,
        )

    @property
    def marker_name(self) -> str:
        """What names its markers."""
        return self.marked or self.id

    def named_apart(self, id_: str) -> Record:
        """By an id of its own, in a journal that has another operation of its id."""
        return replace(self, id=id_, marked=self.marker_name)

    @property
    def request(self) -> Request:
        """What was asked for."""
        return self.deleting or self.deleting_named or self.creating

    @property
    def plans(self) -> tuple[CreatePlan | MergePlan, ...]:
        """What was to be done."""
        return self.creates if self.merge is None else (self.merge,)

    @property
    def paths(self) -> frozenset[str]:
        """All files of its chains; templates that other chains rest on may be among them."""
        found = {plan.overlay for plan in self.creates}
        return frozenset(
            found.union(layer.path for plan in self.plans for layer in plan.disk.layers)
        )

    @property
    def own(self) -> frozenset[str]:
        """Those of them that it may change, or that its own guest alone may have."""
        return frozenset(self.works_on) or self.paths

    @property
    def slim(self) -> Record:
        """What is still told of it when it has ended: all but the plans."""
        return replace(self, creates=(), made_here=(), merge=None, files=())


def works_on(plans: Iterable[CreatePlan | MergePlan], *, remove: bool) -> tuple[str, ...]:
    """
    The files that operations may change or remove, and those that only their guest can have open.

    What a pull reads, and what lies below a commit or a snapshot, other guests may read as well.
    """
    found: set[str] = set()
    for plan in plans:
        found.add(plan.disk.layers[0].path)
        if isinstance(plan, CreatePlan):
            found.add(plan.overlay)
            found.update(layer.path for layer in plan.kept)
            continue
        found.update(one.path for one in (plan.top, plan.written, plan.above) if one is not None)
        if remove or plan.kind != "pull":
            found.update(layer.path for layer in plan.dropped)
    return tuple(sorted(found))


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act, as it was intended."""

    number: int
    at: float
    does: str
    by: str
    what: str
    arguments: dict[str, Any]
    answer: str | None = None
    """What it answered, in short, an error behind `FAILED`; None: not known, because nothing was
    written after it."""

    @property
    def is_done(self) -> bool:
        """Whether it is known to have been carried out."""
        return self.answer is not None and not self.answer.startswith(FAILED)

    @property
    def error(self) -> str | None:
        """The class of the error that it ended with; None where there was none, or it is not known."""
        if self.answer is None or not self.answer.startswith(FAILED):
            return None
        return self.answer.removeprefix(FAILED).partition(":")[0]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a revert has taken out of a chain, and left as it was."""

    files: tuple[str, ...]
    """Paths, the one that was active first."""
    over: tuple[str, ...]
    """What they lie over, as paths: changed, they would be worth nothing."""
    first: Seen | None = None
    """The one that was active, as it was left; an earlier version has not looked."""


class Mixed(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit that was begun and is not done may have written to."""

    files: tuple[Seen, ...]
    """Those whose older states are mixed with newer data: the base, and what reads through it."""
    into: str
    """Path of the base."""
    of: str
    """Path of the uppermost file that was to go into it."""


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation came to. Each has one, once."""

    outcome: Outcome
    ended: float
    file_format: dict[str, str] = msgspec.field(default_factory=dict)
    after: dict[str, str] = msgspec.field(default_factory=dict)
    """Format by bare name of every layer of its disks afterwards."""
    active: tuple[str, ...] = ()
    """Active file of each disk afterwards."""
    elsewhere: tuple[str, ...] = ()
    """Files of its disks that lie in another folder than the active ones."""
    removed: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    left: tuple[Seen, ...] = ()
    """
    Files that a merge took out of the chain, or that a create did not bring in, and that are still
    there: their headers count no more.
    """
    touched: tuple[Seen, ...] = ()
    """
    Files that it wrote to and that read as before: their headers name another backing file, or they
    hold what was pulled. An image that rests on them is not left over for being older.
    """
    mixed: Mixed | None = None
    """None as well once a later commit of the same is done."""
    consistency: str | None = None
    frozen_s: float | None = None
    error: str | None = None
    """The id of the error it ended with."""
    message: str | None = None
    notes: tuple[str, ...] = ()
    resumed: bool = False
    """Whether another process than the first one ended it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as the journal has it."""

    record: Record
    acts: tuple[Act, ...] = ()
    conclusion: Conclusion | None = None
    """None: it is open."""
    marker: str | None = None
    """Path of the marker that it was found by; None: the journal has it."""

    @property
    def named(self) -> str:
        """What names it to `qmpsnap resume`."""
        return shlex.quote(self.marker or self.record.id)


class Unreadable(ValueError):
    """A text in the journal is not what this program writes."""


_LIMIT: Final = 64 * 1024 * 1024
"""Characters; a plan of a hundred layers has 200,000."""


def dumps(value: object) -> str:
    """A value as a text of ASCII: names of files may hold bytes that are no UTF-8."""
    return json.dumps(msgspec.to_builtins(value, enc_hook=str), separators=(",", ":"))


def loads(text: str, kind: type[T]) -> T:
    """
    Give a value back.

    Raises:
        Unreadable: It is not one.
    """
    try:
        if len(text) > _LIMIT:
            raise Unreadable("it is too long")
        return msgspec.convert(json.loads(text), type=kind)
    except (ValueError, msgspec.ValidationError, RecursionError, QmpsnapError) as error:
        raise Unreadable(str(error)) from error


def act_of(number: int, at: float, step: Step) -> Act:
    """An act to be written down."""
    given: Mapping[str, Any] = step.arguments
    return Act(
        number=number,
        at=at,
        does=step.does.value,
        by=step.by,
        what=step.what,
        arguments=cast("dict[str, Any]", msgspec.to_builtins(dict(given), enc_hook=str)),
    )


def conclusion_of(
    outcome: Outcome, now: float, done: Sequence[Result] = (), error: BaseException | None = None
) -> Conclusion:
    """What is kept of the results, or of the error, of an operation."""
    return Conclusion(
        outcome=outcome,
        ended=now,
        file_format={name: format_ for one in done for name, format_ in one.file_format.items()},
        after={layer.file: layer.format or "?" for one in done for layer in one.disk.layers},
        active=tuple(one.disk.layers[0].path or one.disk.layers[0].file for one in done),
        removed=tuple(path for one in done for path in one.removed),
        consistency=done[0].consistency if done else None,
        frozen_s=done[0].frozen_s if done else None,
        error=None if error is None else type(error).__name__,
        message=None if error is None else str(error),
        notes=tuple(dict.fromkeys(note for one in done for note in one.notes)),
    )


def who() -> str:
    """The user of this process; and who has become it by `sudo`."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER")
    return f"{name} ({before})" if before and before != name else name
