"""
A pain that users of other tools have, and the guard that keeps ours from it: shown both ways.

    test_is_answered                     with the guard: refused, reported as it is, or done right
    test_hurts_without_the_guard         the guard is taken out, and the very same assertions
                                         fail; then the harm is looked at

A guard is taken out by putting the way of the tools that have the pain in its place; nothing
else differs between the two. docs/explanation/pains.md names every class here.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pkgutil import resolve_name
from typing import Any, ClassVar, Generic, TypeVar

import pytest

World = TypeVar("World")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One function or property of the tool, and what stands in its place when it is taken out."""

    where: str
    """Full name, for example `qmpsnap.guests.qmp.guest.QmpGuest.pivot`."""
    instead: Callable[..., Any]
    """What a tool that has the pain does there; of a property, its getter."""


@contextmanager
def without(guard: Guard) -> Iterator[None]:
    """
    Take a guard out for the length of a block.

    It must be used there: a guard that has moved elsewhere would be in all the while.
    """
    used = False

    @wraps(guard.instead)
    def instead(*arguments: Any, **named: Any) -> Any:
        nonlocal used
        used = True
        return guard.instead(*arguments, **named)

    owner, _, name = guard.where.rpartition(".")
    is_property = isinstance(inspect.getattr_static(resolve_name(owner), name), property)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.where, property(instead) if is_property else instead)
        yield
    assert used, f"{guard.where} was never asked"


class Pain(ABC, Generic[World]):
    """Base of the tests. The fixture `world` is what they happen in: mostly a guest."""

    guard: ClassVar[Guard]
    others: ClassVar[tuple[Guard, ...]] = ()
    """Where several guards keep the harm away, each alone: the other ones."""
    guarded = True
    """False while the guard is out, and what is waited for never comes."""

    @abstractmethod
    def answered(self, world: World) -> None:
        """Do what hurts elsewhere, and assert what comes of it here."""

    @abstractmethod
    def hurts(self, world: World) -> None:
        """Assert the harm that is there afterwards when the guard was out."""

    def test_is_answered(self, world: World) -> None:
        self.answered(world)

    def test_hurts_without_the_guard(self, world: World) -> None:
        self.guarded = False
        with ExitStack() as out:
            for guard in (self.guard, *self.others):
                out.enter_context(without(guard))
            with pytest.raises((AssertionError, pytest.fail.Exception)):
                self.answered(world)
        self.hurts(world)
