"""What goes on beside Nova's calls: how often it looks."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.journal.file import Journal


@pytest.mark.parametrize(
    ("in_s", "at_least", "at_most"),
    [(None, 60.0, 60.0), (-5.0, 1.0, 1.0), (0.2, 1.0, 1.0), (9.0, 5.0, 9.0), (900.0, 60.0, 60.0)],
)
def test_until_the_next_round(
    tmp_path: Path, in_s: float | None, at_least: float, at_most: float
) -> None:
    """An update that another thread is at work on is due, and left: that is no reason to spin."""
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    at = None if in_s is None else time.time() + in_s
    outbox: Any = SimpleNamespace(send=lambda: SimpleNamespace(next_at=at))
    keeper = keepers.Keeper(Journal(tmp_path / "none"), outbox, lambda _where: nullcontext())
    assert at_least <= keeper._round() <= at_most
