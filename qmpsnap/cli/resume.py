"""`resume`: interrupted operations. None is recorded yet, so no id is known."""

from __future__ import annotations

import click

from qmpsnap.cli.command import Command


@click.command(
    cls=Command,
    examples=("job resume web1 vda",),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def resume(ids: tuple[str, ...]) -> None:
    """Finish or undo interrupted operations. A block job goes on with `qmpsnap job resume`."""
    raise click.UsageError(
        f"{ids[0]!r} is not the id of an operation; a block job goes on with `qmpsnap job resume`"
    )
