"""`apply`: a plan that was shown before, if it would come out the same now."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
from msgspec.structs import replace

from qmpsnap.cli.command import Changing
from qmpsnap.cli.connection import Road
from qmpsnap.cli.interruptible import expecting
from qmpsnap.cli.journaling import journal_option
from qmpsnap.cli.output import output_option
from qmpsnap.cli.progress import shown
from qmpsnap.cli.snapshots import tell
from qmpsnap.errors import Refused
from qmpsnap.journal import keep
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.knowing import known_by
from qmpsnap.journal.record import Seen, Unreadable, loads
from qmpsnap.operations import planned
from qmpsnap.operations.forecast import Forecast, forecast_create, forecast_delete
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.options import BadOption
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.planned import Asked, PlanDiffers, ShownDisk, check_asked, check_same_plan
from qmpsnap.operations.requests import BadFileName, BadRequest

SCHEMA: Final = "qmpsnap.plan/1"
_LIMIT: Final = 16 * 1024 * 1024
"""Bytes; the plan of a chain of a hundred layers has 100,000."""
_ROOT: Final = 0


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the chain that a plan was made from, as in `journal.record.Seen`."""

    path: str
    inode: int
    born: int | None = None
    device: int | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a plan; further keys are for people."""

    schema: str
    operation: str
    disks: tuple[ShownDisk, ...]
    files: tuple[_Known, ...] = ()
    """Empty in what an earlier version has written."""
    request: Asked | None = None


class BadPlan(Refused):
    """A file that is no plan of this program, or one that cannot be applied."""

    msg = "{self.source} is not a plan that can be applied: {self.reason}"
    remedy = "Write one: `qmpsnap create … --plan -o json > PLAN`, or that of a `delete`."
    exit_code = 2

    source: str
    reason: str


@click.command(
    cls=Changing,
    examples=(
        "apply plan.json",
        "apply --connect qemu+ssh://compute7/system plan.json",
    ),
)
@click.argument("plan", metavar="PLAN", type=click.Path(allow_dash=True))
@journal_option
@output_option
@click.pass_obj
def apply(road: Road, plan: str, journal: Journal | None, output: str) -> None:
    """
    Carry out a plan that `--plan -o json` has written, if nothing has moved.

    PLAN is the file; `-` reads standard input. The request in it is planned again. If the chain is
    still the one that it was made from, and the same steps come out, it is done; otherwise it is
    refused, and the difference is told. Steps are never taken from the file.

    The guest is reached as it was for the plan, or by the global options where they are given.
    """
    source = "standard input" if plan == "-" else plan
    made = _parsed(source, _text(plan))
    asked = made.request
    if asked is None:
        raise BadPlan(source, "it does not hold the request that it was made for")
    try:
        check_asked(asked)
    except (BadFileName, BadRequest) as error:
        raise BadPlan(source, str(error)) from error
    with expecting(_road(source, road, asked), asked.way.guest) as host, shown() as screen:
        looked = known_by(host, journal)
        check_same_plan(made.disks, [planned.shown(one) for one in _again(looked, asked)])
        _check_files(made.files)

        def check(ready: keep.Prepared) -> None:
            """Nobody has come in between since; all acts are still to come."""
            check_same_plan(made.disks, planned.shown_ready(ready), steps=False)
            _check_files(made.files)

        done: tuple[Result, ...]
        if asked.create:
            done = keep.created(
                journal, host, asked.create, asked.quiesce, allow=asked.allow, check=check
            )
        else:
            done = (
                keep.deleted(
                    journal,
                    host,
                    asked.delete or asked.delete_by_name,  # type: ignore[arg-type]
                    screen.progress,
                    options=asked.options,
                    tell=screen.tell,
                    allow=asked.allow,
                    verify=asked.verify,
                    remove=asked.remove,
                    check=check,
                ),
            )
    tell(
        f"the plan was carried out on {', '.join(one.disk.disk for one in done)}",
        made.operation,
        done,
        output,
    )


def _check_files(files: Collection[_Known]) -> None:
    """
    See that the files of a chain are those that they were, and not others of the same names.

    Raises:
        PlanDiffers: One is not.
    """
    for one in files:
        now = seen(one.path)
        before = Seen(path=one.path, inode=one.inode, born=one.born, size=0, device=one.device)
        if now is None or not is_same(before, now):
            raise PlanDiffers(f"{one.path} is another file than it was")


def _again(host: Guest, asked: Asked) -> tuple[Forecast, ...]:
    if asked.create:
        return forecast_create(host, asked.create, asked.quiesce, allow=asked.allow)
    request = asked.delete or asked.delete_by_name
    assert request is not None  # `check_asked` has seen to it
    return (
        forecast_delete(
            host, request, options=asked.options, allow=asked.allow, remove=asked.remove
        ),
    )


def _road(source: str, road: Road, asked: Asked) -> Road:
    """The way to the guest: as given now, or as it was."""
    way = asked.way
    if road.replay is not None:
        return road  # which says that nothing can be done
    if road.qmp is None and road.connect is None:
        if way.qmp is not None and os.path.isabs(way.qmp) and "\0" not in way.qmp:
            road = replace(road, qmp=way.qmp)
        elif way.connect is not None:
            road = replace(road, connect=_local(source, way.connect))
        else:
            raise BadPlan(source, "it does not say how its guest is reached: `--qmp`, `--connect`")
    return replace(
        road,
        agent=road.agent or way.agent,
        passthrough=road.passthrough and way.passthrough,
    )


def _local(source: str, uri: str) -> str:
    """
    A URI that may be taken from a file: others can run programs (`qemu+ext`), or lead anywhere.

    Raises:
        BadPlan: It is another one.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadPlan(source, f"the connection {uri!r}: {error}") from error
    if "+" in parts.scheme or parts.netloc:
        raise BadPlan(source, f"the connection {uri!r} has to be given by hand: `--connect`")
    return uri


def _parsed(source: str, text: str) -> _File:
    try:
        made = loads(text, _File)
    except (Unreadable, BadOption) as error:
        raise BadPlan(source, str(error)) from error
    if made.schema != SCHEMA:
        raise BadPlan(source, f"its schema is {made.schema!r}, not {SCHEMA}")
    return made


def _text(plan: str) -> str:
    """
    Read a plan that nobody else has written.

    Raises:
        BadPlan: It cannot be read, or somebody else may have written it.
    """
    try:
        if plan == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            # Of a pipe or a device nothing would come, for ever.
            descriptor = os.open(plan, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise BadPlan(plan, "it is not a file")
                if status.st_uid not in (_ROOT, os.geteuid()) or status.st_mode & stat.S_IWOTH:
                    raise BadPlan(plan, "somebody else may write to it")
                data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise BadPlan(plan, "it is too long")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise BadPlan(plan, str(error)) from error
