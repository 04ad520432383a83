"""
What a shell completes: guests, disks, snapshots and jobs, as they are now.

Only looks that leave no trace: of libvirt's guests the XML and the headers are read, not QEMU, which
would taint the guest. What does not answer in time completes nothing, and nothing is said: there is
a person at a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from qmpsnap.cli.global_options import given

if TYPE_CHECKING:
    from qmpsnap.cli.connection import Road
    from qmpsnap.formats.layers import Disks

    StringType = click.ParamType[str]
else:
    StringType = click.ParamType

LIMIT_S: Final = 3.0
"""How long somebody at a prompt waits."""


class Name(StringType):
    """A name that is looked up when a shell asks, and is any text else."""

    def __init__(self, of: str) -> None:
        self.name = of

    def convert(
        self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> Any:
        """As it is."""
        return value

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin like this, as far as they can be had."""
        from qmpsnap.cli.parallel import in_parallel

        road = _road(ctx)
        (found,) = in_parallel([lambda: _LOOKUPS[self.name](road, ctx)], threads=1, limit_s=LIMIT_S)
        names = () if isinstance(found, Exception) else found
        return [CompletionItem(one) for one in names if one.startswith(incomplete)]


def _road(ctx: click.Context) -> Road:
    from qmpsnap.cli.connection import Road

    options = given(ctx)
    return Road(
        qmp=options.get("qmp"),
        connect=options.get("connect"),
        replay=options.get("replay"),
        passthrough=False,
    )


def _guests(road: Road, _ctx: click.Context) -> Sequence[str]:
    from contextlib import closing

    with closing(road.connection()) as connection:
        return sorted(domain.name() for domain in connection.listAllDomains())


def _read(road: Road, ctx: click.Context) -> Disks:
    return road.read(ctx.params.get("guest"))


def _disks(road: Road, ctx: click.Context) -> Sequence[str]:
    return [one.disk for one in _read(road, ctx).disks]


def _snapshots(road: Road, ctx: click.Context) -> Sequence[str]:
    from qmpsnap.operations.names import snapshots

    disk = _read(road, ctx).disk(str(ctx.params.get("disk")))
    return [one.name for one in snapshots(disk)]


def _jobs(road: Road, ctx: click.Context) -> Sequence[str]:
    """Under libvirt a job is called by its disk."""
    if road.qmp is None:
        return _disks(road, ctx)
    with road.open(None) as guest:
        return [one.id for one in guest.jobs()]


_LOOKUPS: Final[dict[str, Callable[[Road, click.Context], Sequence[str]]]] = {
    "guest": _guests,
    "disk": _disks,
    "snapshot": _snapshots,
    "job": _jobs,
}


def complete_arguments(command: click.Command) -> None:
    """Have the arguments of a command completed that name something."""
    for param in command.params:
        of = {"guest": "guest", "disk": "disk", "also": "disk", "job": "job"}.get(param.name or "")
        if param.name == "name" and command.name in ("delete", "revert"):
            of = "snapshot"
        if of is not None:
            param.type = Name(of)
