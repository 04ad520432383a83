"""
Which of many points something dies at: all of them at night, a seeded share otherwise.

Only the density differs. The points around what an operation is about are always among them.
"""

from __future__ import annotations

import datetime
import math
import os
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

SHARE: Final = int(os.environ.get("QMPSNAP_KILL_SHARE", "10"))
"""One point in so many; 1: all."""
_TODAY: Final = "today"


def _seed(asked: str | None) -> str:
    """
    What choices begin with.

    The same every time, so that what was green for a commit is green for it tomorrow. Nights try
    all, or what the day says: `today`.
    """
    if asked == _TODAY:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return asked or "2026-11-27"


SEED: Final = _seed(os.environ.get("QMPSNAP_KILL_SEED"))
T = TypeVar("T")


def header() -> str:
    """What is printed once, so that a failure can be had again."""
    return f"kill points: one in {SHARE}, QMPSNAP_KILL_SEED={SEED}"


def sample(
    points: Sequence[T], key: str, always: Callable[[T], bool], share: int = SHARE
) -> tuple[T, ...]:
    """
    Choose points, in their order.

    Args:
        points: All of them.
        key: What they are points of: the same key and seed choose the same.
        always: Whether a point is chosen in any case.
        share: One in so many of the others, and at least one.
    """
    others = [number for number, point in enumerate(points) if not always(point)]
    chance = random.Random(f"{SEED} {key}")
    chosen = set(chance.sample(others, math.ceil(len(others) / share)))
    return tuple(point for number, point in enumerate(points) if number in chosen or always(point))
