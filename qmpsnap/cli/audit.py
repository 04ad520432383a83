"""`audit`: all guests of a libvirt connection, and every QMP socket given, at the same time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

import click
import msgspec

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.every_guest import Answer, Domain, by_libvirt, listed, many_options
from qmpsnap.cli.findings import Audited, NotAudited, findings_output, tell
from qmpsnap.cli.output import say
from qmpsnap.cli.parallel import in_parallel
from qmpsnap.errors import QmpsnapError
from qmpsnap.findings import finding as rules
from qmpsnap.findings.across_guests import across_guests
from qmpsnap.findings.finding import Finding
from qmpsnap.findings.look import look
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.passthrough import GuestNotRunning
from qmpsnap.monitor.socket import SocketMonitor

log = logging.getLogger(__name__)

UNREACHABLE: Final = 7


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """One guest to look at."""

    name: str
    source: str
    look: Callable[[], Answer]


@click.command(
    cls=Command,
    examples=(
        "audit",
        "audit -c qemu+ssh://compute7/system -o sarif",
        "audit --socket /run/a.qmp --socket /run/b.qmp",
    ),
)
@click.option(
    "--socket",
    "sockets",
    metavar="PATH",
    multiple=True,
    help="A QMP socket to audit as well; may be given several times.",
)
@many_options
@findings_output
@click.pass_context
def audit(
    ctx: click.Context,
    sockets: tuple[str, ...],
    jobs: int,
    timeout: float,
    output: str,
) -> None:
    """
    Compare all witnesses for every running guest of a host, and tell what is wrong.

    Looks at all guests of --connect, at every --socket and at --qmp; without any of them, at the
    guests of the default libvirt URI. Files that one guest writes and another one uses are found
    as well. Reads only.

    Exit code 3 when there is an error or a warning, 0 when there is nothing or notes alone, 7
    when nothing could be reached. What each finding means is in docs/reference/findings.md.
    """
    road: Road = ctx.obj
    if road.replay is not None:
        raise click.UsageError("a transcript is one guest: `qmpsnap --replay TRANSCRIPT verify`")
    paths = _distinct([*([road.qmp] if road.qmp else []), *sockets])
    outcome = _Outcome()
    with _domains(road, bool(paths), timeout, outcome) as domains:
        # libvirt's guests first: where one has a socket as well, libvirt's view of it counts.
        targets = [
            _Target(name=one.name, source=road.uri, look=by_libvirt(road, one))
            for one in domains
            if one.running
        ]
        targets += [_by_socket(road, path) for path in paths]
        results = in_parallel([one.look for one in targets], threads=jobs, limit_s=timeout)
    for target, result in zip(targets, results, strict=True):
        outcome.take(target, result)
    read = [one.seen for one in outcome.audited if one.seen is not None]
    outcome.found += across_guests(read)
    code = tell(output, outcome.audited, outcome.found, outcome.not_audited)
    ctx.exit(UNREACHABLE if outcome.audited and not read else code)


class _Outcome:
    """What came of all guests."""

    def __init__(self) -> None:
        self.audited: list[Audited] = []
        self.not_audited: list[NotAudited] = []
        self.found: list[Finding] = []
        self._known: dict[tuple[str, str | None], str] = {}

    def take(self, target: _Target, result: Answer | Exception) -> None:
        """Add one guest's answer, or why there is none."""
        if isinstance(result, GuestNotRunning):  # it ended while others were looked at
            self.leave_out(target.name, target.source)
        elif isinstance(result, Exception):
            self.fail(target.name, target.source, result)
        elif not self._is_known(target, result):
            self.found += result.found
            self.audited.append(
                Audited(guest=result.seen.guest, source=target.source, seen=result.seen)
            )

    def _is_known(self, target: _Target, answer: Answer) -> bool:
        """Whether the same guest has answered by another way; then this answer does not count."""
        if answer.uuid is None:
            return False
        key = (answer.uuid, answer.seen.report.guest)
        by = self._known.setdefault(key, target.source)
        if by == target.source:
            return False
        say(f"note: {target.source} is a guest that was read by {by} as well")
        return True

    def leave_out(self, guest: str, source: str) -> None:
        """Take note of a guest that is off."""
        self.not_audited.append(NotAudited(guest=guest, source=source, reason="not running"))

    def fail(self, guest: str | None, source: str, error: Exception) -> None:
        """Take note of a guest, or a whole connection, that could not be read."""
        message, remedy = str(error), rules.GUEST_UNREADABLE.remedy
        if isinstance(error, QmpsnapError):
            remedy = error.way_out or remedy
        else:
            # A fault of this tool must not hide what is wrong with the other guests.
            log.error("%s: %s", guest or source, error, exc_info=error)
            message = f"{type(error).__name__}: {error}"
        self.audited.append(Audited(guest=guest, source=source, seen=None))
        self.found.append(
            Finding(
                rule=rules.GUEST_UNREADABLE, guest=guest or source, message=message, remedy=remedy
            )
        )


def _distinct(paths: Sequence[str]) -> list[str]:
    """One of each; a socket serves one client at a time."""
    return list({os.path.realpath(path): path for path in paths}.values())


def _by_socket(road: Road, path: str) -> _Target:
    def work() -> Answer:
        with closing(SocketMonitor.connect(path)) as monitor:
            seen, found = look(road.onlooker(monitor).read, name=path)
            return Answer(seen=seen, found=found, uuid=_uuid(monitor))

    return _Target(name=path, source=path, look=work)


_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"


def _uuid(monitor: SocketMonitor) -> str | None:
    try:
        reply = monitor.execute("query-uuid")
    except CommandFailed:
        return None
    uuid = reply.get("UUID") if isinstance(reply, dict) else None
    return uuid if isinstance(uuid, str) and uuid != _NO_UUID else None


@contextmanager
def _domains(
    road: Road, has_sockets: bool, timeout: float, outcome: _Outcome
) -> Iterator[list[Domain]]:
    """Connect to libvirt for the length of a block, if it is asked for, and list its guests."""
    if road.connect is None and has_sockets:
        yield []
        return
    (answer,) = in_parallel([lambda: listed(road)], threads=1, limit_s=timeout)
    if isinstance(answer, Exception):
        outcome.fail(None, road.uri, answer)
        yield []
        return
    connection, domains = answer
    for domain in domains:
        if not domain.running:
            outcome.leave_out(domain.name, road.uri)
    with closing(connection):
        yield domains
