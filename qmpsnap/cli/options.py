"""Options of a merge: guards (`--allow`, `--force`), `--verify`, and how its job is to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, TypeVar

import click

from qmpsnap.cli.output import Format
from qmpsnap.cli.units import BytesPerSecond, Seconds
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.options import MergeOptions, OnError

F = TypeVar("F", bound=Callable[..., Any])

_ALSO: Final = {"other-folder": Guard.FOREIGN_LAYER}
"""Other names of guards."""

allow_option = click.option(
    "--allow",
    multiple=True,
    type=click.Choice([*(one.value for one in Guard), *_ALSO]),
    help="Do what would be refused for this reason; may be given several times.",
)
force_option = click.option(
    "--force", is_flag=True, help="Go on where there may be too little space: --allow space."
)
verify_option = click.option(
    "--verify",
    is_flag=True,
    help="Read what the merge must not change before and after it, and compare.",
)


def guards(names: Iterable[str], *, force: bool = False) -> frozenset[Guard]:
    """The guards that were named."""
    return frozenset(_ALSO.get(name) or Guard(name) for name in names) | (
        {Guard.SPACE} if force else set()
    )


plan_option = click.option(
    "--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing."
)


def plan_as(function: F) -> F:
    """Add `--plan`, and `-o` for it alone; the command takes `plan`: how to show it, or None."""

    @plan_option
    @click.option(
        "-o",
        "--output",
        type=click.Choice([one.value for one in Format]),
        help="How --plan is shown.  [default: table]",
    )
    @wraps(function)
    def command(*args: Any, only_plan: bool, output: str | None, **others: Any) -> Any:
        if output is not None and not only_plan:
            raise click.UsageError("-o goes with --plan here")
        return function(*args, plan=(output or Format.TABLE) if only_plan else None, **others)

    return command  # type: ignore[return-value]


def merge_options(function: F) -> F:
    """Add `--bandwidth`, `--on-error` and `--timeout`; the command takes them as `options`."""

    @click.option(
        "--bandwidth",
        metavar="BYTES",
        type=BytesPerSecond(),
        help="Copy at most so many bytes a second; may end in K, M or G. `job set-speed` changes "
        "it while the job runs.",
    )
    @click.option(
        "--on-error",
        type=click.Choice([one.value for one in OnError]),
        default=OnError.FAIL.value,
        show_default=True,
        help="When there is no space, or on an I/O error: fail ends, the chain as it was. pause "
        "(not under libvirt) waits for `job resume`.",
    )
    @click.option(
        "--timeout",
        metavar="SECONDS",
        type=Seconds(0, min_open=True),
        help="Cancel after so long, the chain as it was; when it is changing the chain just then, "
        "wait for the end of that.",
    )
    @wraps(function)
    def command(
        *args: Any, bandwidth: int | None, on_error: str, timeout: float | None, **others: Any
    ) -> Any:
        wishes = MergeOptions(bandwidth=bandwidth, on_error=OnError(on_error), timeout_s=timeout)
        return function(*args, options=wishes, **others)

    return command  # type: ignore[return-value]
