"""`watch`: a guest's chains and jobs as they change, by its events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, runtime_checkable

import click
import msgspec

from qmpsnap.cli import documents, views
from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import Format, screen, write
from qmpsnap.cli.tables import Screen
from qmpsnap.cli.text import printable
from qmpsnap.cli.units import moment
from qmpsnap.errors import Refused, Unreachable
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.pace import Pace, Rates
from qmpsnap.operations.job.states import ENDING, JobReport

JOB_S: Final = 1.0
"""Seconds between two looks at a job that runs: of how far it is, there is no event."""
LINE_S: Final = 5.0
"""Seconds between two lines on how far a job is."""


class NothingHappens(Refused):
    """The guest is off."""

    msg = "the guest {self.guest!r} is off: it has no jobs, and nobody tells of its chain"
    remedy = "Start it, or look at it with `qmpsnap chain`."

    guest: str


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """A guest at one moment."""

    at: float
    """Seconds after 1970."""
    guest: str | None = None
    disks: tuple[Disk, ...] = ()
    jobs: tuple[JobReport, ...] = ()
    rates: dict[str, Rates] = msgspec.field(default_factory=dict)


Show = Callable[[Now], None]


@runtime_checkable
class Stirring(Guest, Protocol):
    """A guest that tells when something happens: one that runs."""

    def listen(self) -> None:
        """Hear of all jobs from now on."""

    def stirred(self, timeout: float) -> bool:
        """Sleep until something happens to any job, or the time is over; whether it did."""


@click.command(
    cls=Command, examples=("watch web1", "--qmp /run/web1.watch.qmp watch", "watch web1 -o json")
)
@click.argument("guest")
@click.argument("disk", required=False)
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="How often to look at the chains besides: QEMU tells of jobs, and of no snapshot.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice([Format.TABLE.value, Format.JSON.value]),
    default=Format.TABLE.value,
    show_default=True,
    help="json: one document a line, whenever something has changed.",
)
@click.pass_obj
def watch(road: Road, guest: str | None, disk: str | None, every: float, output: str) -> None:
    """
    Show a guest's chains and block jobs as they change, until Ctrl-C.

    On a terminal the same lines are drawn again; in a pipe, and without styles (NO_COLOR,
    TERM=dumb), there is a line for each change. It changes nothing.

    A QMP socket takes one client at a time: give this one a socket of its own.
    """
    with road.open(guest) as host, _shown(output) as show:
        try:
            watched(host, disk, every, show)
        except KeyboardInterrupt:
            return


def watched(host: Guest, disk: str | None, every: float, show: Show) -> None:
    """
    Look again whenever something happens, for ever.

    Args:
        host: The guest.
        disk: The one disk that is shown; None: all.
        every: Seconds after which the chains are looked at all the same.
        show: Called with each look.

    Raises:
        NothingHappens: The guest is off.
        Unreachable: It has ended.
    """
    if not isinstance(host, Stirring):
        raise NothingHappens(host.read().guest or "")
    host.listen()
    paces: dict[str, Pace] = {}
    disks: Disks | None = None
    looked = 0.0
    known: frozenset[str] = frozenset()
    stirred = True
    while True:
        jobs = host.jobs()
        ids = frozenset(job.id for job in jobs)
        if disks is None or stirred or ids != known or time.monotonic() - looked >= every:
            disks, looked = _read(host, disks), time.monotonic()
        known = ids
        now = time.monotonic()
        paces = {job.id: paces.get(job.id, Pace()).seen(job.view, now) for job in jobs}
        rates = {name: rate for name, pace in paces.items() if (rate := pace.rates) is not None}
        chosen = disks.disks if disk is None else (disks.disk(disk),)
        show(Now(at=time.time(), guest=disks.guest, disks=chosen, jobs=jobs, rates=rates))
        runs = any(job.view.status not in ENDING for job in jobs)
        stirred = host.stirred(min(JOB_S, every) if runs else every)


def _read(host: Guest, last: Disks | None) -> Disks:
    """Read the chains; where that would endanger the guest just now, those of the last time."""
    try:
        return host.read()
    except Unreachable:
        raise
    except Refused:
        if last is None:
            raise
        return last


@contextmanager
def _shown(output: str) -> Iterator[Show]:
    """How each look is shown: drawn over the last one, or as lines, or as JSON."""
    here = screen()
    if output == Format.JSON:
        yield Changes(as_json).show
    elif here.width is None or not here.styled:
        yield Changes(as_lines).show
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(markup=False, emoji=False, highlight=False)
        with Live(console=console, auto_refresh=False) as live:

            def draw(now: Now) -> None:
                lines = view(now, screen())
                live.update(Text.from_ansi("\n".join(lines), no_wrap=True), refresh=True)

            yield draw


class Changes:
    """Says what is new."""

    def __init__(self, tell: Callable[[Now | None, Now], Sequence[str]]) -> None:
        self._tell = tell
        self._last: Now | None = None
        self._told = float("-inf")

    def show(self, now: Now) -> None:
        """Say what has changed since it last said something; of progress, every few seconds."""
        last = self._last
        if last is not None and _still(last) == _still(now):
            has_moved = [job.view for job in last.jobs] != [job.view for job in now.jobs]
            if not has_moved or now.at - self._told < LINE_S:
                return
        lines = self._tell(last, now)
        self._last, self._told = now, now.at
        if lines:
            write("\n".join(lines))


def _still(now: Now) -> object:
    """What of a moment is told at once when it changes."""
    jobs = [(job.id, job.type, job.view.status, job.view.error) for job in now.jobs]
    return [_chain(disk) for disk in now.disks], jobs


def as_lines(last: Now | None, now: Now) -> list[str]:
    """A line for each chain and job that is not as it was."""
    clock = moment(now.at)
    before = {} if last is None else {disk.disk: _chain(disk) for disk in last.disks}
    lines = [
        f"{disk.disk}: {_chain(disk)}"
        for disk in now.disks
        if before.get(disk.disk) != _chain(disk)
    ]
    gone = set(before) - {disk.disk for disk in now.disks}
    lines += [f"{name}: is gone" for name in sorted(gone)]
    jobs = {} if last is None else {job.id: job for job in last.jobs}
    lines += [
        _job_line(job, now.rates.get(job.id)) for job in now.jobs if jobs.pop(job.id, None) != job
    ]
    left = set(jobs) - {job.id for job in now.jobs}
    lines += [f"job {name}: is gone" for name in sorted(left)]
    return [f"{clock} {printable(line)}" for line in lines]


def _job_line(job: JobReport, rates: Rates | None) -> str:
    cells = views.job_cells(job, rates)
    words = [str(cell) for cell in cells[3:] if cell not in (None, "")]
    disk = f" of {job.disk}" if job.disk and job.disk != job.id else ""
    return f"job {job.id} ({job.type}{disk}): {', '.join(words)}"


def as_json(_last: Now | None, now: Now) -> list[str]:
    """`qmpsnap.watch/1`: all that there is, in one line."""
    return [json.dumps(document(now))]


def document(now: Now) -> dict[str, object]:
    """One line of `qmpsnap.watch/1`."""
    return {
        "schema": "qmpsnap.watch/1",
        "at": moment(now.at),
        "guest": now.guest,
        "disks": [
            {
                "disk": disk.disk,
                "layers": [
                    {"file": one.file, "path": one.path, "format": one.format}
                    for one in disk.layers
                ],
            }
            for disk in now.disks
        ],
        "jobs": documents.jobs(now.jobs, now.rates)["jobs"],
    }


def view(now: Now, here: Screen) -> list[str]:
    """All that there is, for a terminal."""
    head = printable(f"{now.guest or 'the guest'}, {moment(now.at)}")
    shown = [here.paint(head, "bold"), *views.chain(now.disks, here)]
    shown += [views.jobs(now.jobs, now.rates)] if now.jobs else ["no block job"]
    return [line for one in shown for line in ([one] if isinstance(one, str) else one.lines(here))]


def _chain(disk: Disk) -> str:
    layers = reversed(disk.layers)
    return " <- ".join(f"{one.file} ({one.format or '?'})" for one in layers) or "empty"
