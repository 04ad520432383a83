"""`--no-journal`, of every command that changes a guest."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from qmpsnap.journal.file import DEFAULT

F = TypeVar("F", bound=Callable[..., Any])


def journal_option(function: F) -> F:
    """Add `--no-journal`; the command takes `journal`."""

    @click.option(
        "--no-journal",
        is_flag=True,
        help="Do it although nothing is written down: `resume` will not know of it.",
    )
    @wraps(function)
    def command(*args: Any, no_journal: bool, **others: Any) -> Any:
        return function(*args, journal=None if no_journal else DEFAULT, **others)

    return command  # type: ignore[return-value]
