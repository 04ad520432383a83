"""Options of a merge: `--allow` and `--force` for the guards, `--verify`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from qmpsnap.operations.guards import Guard

allow_option = click.option(
    "--allow",
    multiple=True,
    type=click.Choice([one.value for one in Guard]),
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
    return frozenset(Guard(name) for name in names) | ({Guard.SPACE} if force else set())
