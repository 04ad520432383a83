"""The options of both creates that say whether the guest is frozen for the snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from qmpsnap.operations.quiesce import LIMIT_S, Policy, Quiesce

F = TypeVar("F", bound=Callable[..., Any])


def _number(_context: click.Context, _option: click.Parameter, value: float) -> float:
    """Refuse what no range refuses."""
    if math.isnan(value):
        raise click.BadParameter("it is not a number")
    return value


def quiesce_options(function: F) -> F:
    """Add `--quiesce` and `--freeze-timeout` to a command."""
    for option in (
        click.option(
            "--freeze-timeout",
            type=click.FloatRange(min=0, min_open=True, max=3600),
            callback=_number,
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
