"""The options of both creates that say whether the guest is frozen for the snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qmpsnap.cli.units import Seconds
from qmpsnap.operations.quiesce import LIMIT_S, Policy, Quiesce

F = TypeVar("F", bound=Callable[..., Any])


def quiesce_options(function: F) -> F:
    """Add `--quiesce` and `--freeze-timeout` to a command."""
    for option in (
        click.option(
            "--freeze-timeout",
            type=Seconds(min=0, min_open=True, max=3600),
            metavar="SECONDS",
            default=LIMIT_S,
            show_default=True,
            help="How long the guest may take to freeze, and how long it may then stay frozen.",
        ),
        click.option(
            "--quiesce",
            type=click.Choice([one.value for one in Policy]),
            default=Policy.NEVER.value,
            show_default=True,
            help="Freeze the guest's filesystems for the moment, by its guest agent. try: without "
            "an agent, a crash-consistent snapshot and a note. require: without one, none.",
        ),
    ):
        function = option(function)
    return function


def quiesce(policy: str, limit_s: float) -> Quiesce:
    """The values of the two options."""
    return Quiesce(policy=Policy(policy), limit_s=limit_s)
