"""What can happen to a guest: steps, and the choice of one by chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.chaos.model import Disk

MAX_LAYERS: Final = 12

Form = Literal["people", "nova"]
Ready = Literal["no", "right", "wrong"]
Mistake = Literal["no snapshot", "upwards", "not in the chain", "nothing to pull", "taken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happens; its representation is Python, to be done again."""

    disk: int
    """Position of the disk that it is about."""
    written: int | None = None
    """Position of the disk that the guest writes to all the time; None for none."""
    seed: int = 0
    """What the guest writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Step):
    """The guest writes, and nothing else happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(Step):
    """A snapshot."""

    form: Form
    ready: Ready = "no"
    """Whether the volume service has made the overlay already, and with which backing format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Step):
    """Layer `top` into layer `base`; with `top` 0 an active commit."""

    top: int
    base: int
    form: Form = "nova"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull(Step):
    """Everything above layer `base` into the active file; None: the whole chain."""

    base: int | None
    form: Form = "nova"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert(Step):
    """Back to what layer `to` holds, with the guest off."""

    to: int
    form: Form = "people"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Step):
    """A merge that another client cancels when the tool looks at it for the n-th time."""

    merge: Commit | Pull
    look: int
    soft: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible(Step):
    """Something that cannot be."""

    mistake: Mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Step):
    """The guest ends in an orderly way, and starts again from its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash(Step):
    """QEMU is killed, and the guest starts again from its files."""

    flush: bool
    """Whether the guest has flushed before."""


def choose(chance: random.Random, disks: Sequence[Disk]) -> Step:
    """Choose what happens next, from what is possible."""
    number = chance.randrange(len(disks))
    depth = len(disks[number].layers)
    seed = chance.randrange(1 << 30)
    written = chance.choices([number, chance.randrange(len(disks)), None], weights=[70, 15, 15])[0]
    merge = _merge(chance, number, depth)
    weights = {
        "create": 12 if depth < 4 else 6 if depth < MAX_LAYERS else 0,
        "merge": 0 if depth == 1 else 2 + depth,
        "cancel": 0 if depth == 1 else 3,
        "write": 1,
        "impossible": 1,
        "restart": 1,
        "crash": 1,
    }
    match chance.choices(list(weights), list(weights.values()))[0]:
        case "create":
            form: Form = chance.choice(("people", "nova"))
            readies: tuple[Ready, ...] = ("no", "right", "wrong") if form == "nova" else ("no",)
            ready = chance.choice(readies)
            return Create(disk=number, written=written, seed=seed, form=form, ready=ready)
        case "merge" if merge:
            return _with(merge, written, seed)
        case "cancel" if merge:
            return Cancelled(
                disk=number,
                written=written,
                seed=seed,
                merge=merge,
                look=chance.randint(1, 2),
                soft=chance.random() < 0.5,
            )
        case "impossible":
            mistakes: list[Mistake] = ["no snapshot", "not in the chain", "nothing to pull"]
            mistakes += ["upwards", "taken"] if depth > 1 else []
            return Impossible(
                disk=number, written=written, seed=seed, mistake=chance.choice(mistakes)
            )
        case "restart":
            return Restart(disk=number)
        case "crash":
            flush = chance.random() < 0.5
            return Crash(disk=number, written=written, seed=seed, flush=flush)
        case _:
            return Write(disk=number, written=number, seed=seed)


def _merge(chance: random.Random, disk: int, depth: int) -> Commit | Pull | None:
    if depth == 1:
        return None
    match chance.choice(("commit", "commit", "active", "by name", "pull", "pull to")):
        case "commit" if depth > 2:
            top = chance.randrange(1, depth - 1)
            return Commit(disk=disk, top=top, base=chance.randrange(top + 1, depth))
        case "active":
            return Commit(disk=disk, top=0, base=chance.randrange(1, depth))
        case "pull to" if depth > 2:
            return Pull(disk=disk, base=chance.randrange(2, depth))
        case "pull":
            form: Form = "people" if depth == 2 and chance.random() < 0.5 else "nova"
            return Pull(disk=disk, base=None, form=form)
        case _:
            top = chance.randrange(depth - 1)
            return Commit(disk=disk, top=top, base=top + 1, form="people")


def _with(merge: Commit | Pull, written: int | None, seed: int) -> Step:
    if isinstance(merge, Commit):
        return Commit(
            disk=merge.disk,
            written=written,
            seed=seed,
            top=merge.top,
            base=merge.base,
            form=merge.form,
        )
    return Pull(disk=merge.disk, written=written, seed=seed, base=merge.base, form=merge.form)
