"""`audit`: all guests of a libvirt connection, and every QMP socket given, at the same time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from qmpsnap.cli.findings import Audited, NotAudited, findings_output, tell
from qmpsnap.cli.output import say
from qmpsnap.cli.road import GuestCommand, Road, host_of
from qmpsnap.errors import QmpsnapError
from qmpsnap.findings import finding as rules
from qmpsnap.findings.across_guests import across_guests
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.hosts.libvirt import LibvirtHost
from qmpsnap.hosts.looking import LookingHost, look
from qmpsnap.hosts.together import together
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.passthrough import GuestNotRunning
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import LibvirtUnreachable, libvirt_module

log = logging.getLogger(__name__)

UNREACHABLE: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What one guest's thread came back with."""

    seen: Seen
    found: tuple[Finding, ...]
    uuid: str | None
    """None where QEMU was given none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """One guest to look at."""

    name: str
    source: str
    look: Callable[[], _Answer]


@click.command(cls=GuestCommand)
@click.option(
    "--socket",
    "sockets",
    metavar="PATH",
    multiple=True,
    help="A QMP socket to audit as well; may be given several times.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="How many guests to look at at the same time.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Give each guest this long; one that does not answer does not hold up the others.",
)
@findings_output
@click.pass_context
def audit(
    ctx: click.Context,
    guest: str | None,
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
    failures: list[tuple[str, Exception]] = []
    not_audited: list[NotAudited] = []
    targets = [_by_socket(path) for path in paths]
    with _domains(road, bool(paths), timeout, failures) as domains:
        for domain in domains:
            if domain.running:
                targets.append(_by_libvirt(road, domain))
            else:
                not_audited.append(
                    NotAudited(guest=domain.name, source=road.uri, reason="not running")
                )
        results = together([one.look for one in targets], threads=jobs, limit_s=timeout)
    audited = [Audited(guest=None, source=source, seen=None) for source, _ in failures]
    found = [_unreadable(source, None, error) for source, error in failures]
    known: dict[tuple[str, str | None], str] = {}
    # libvirt's guests first: where one has a socket as well, libvirt's view of it counts.
    pairs = sorted(zip(targets, results, strict=True), key=lambda pair: pair[0].source != road.uri)
    for target, result in pairs:
        if isinstance(result, GuestNotRunning):
            not_audited.append(
                NotAudited(guest=target.name, source=target.source, reason="not running")
            )
            continue
        if isinstance(result, Exception):
            found.append(_unreadable(target.source, target.name, result))
            audited.append(Audited(guest=target.name, source=target.source, seen=None))
            continue
        if result.uuid is not None:
            same = known.setdefault((result.uuid, result.seen.guest), target.source)
            if same != target.source:
                say(f"note: {target.source} is a guest that was read by {same} as well")
                continue
        found += result.found
        audited.append(Audited(guest=result.seen.guest, source=target.source, seen=result.seen))
    found += across_guests([one.seen for one in audited if one.seen is not None])
    code = tell(output, audited, found, not_audited)
    reached = not audited or any(one.seen is not None for one in audited)
    ctx.exit(code if reached else UNREACHABLE)


def _distinct(paths: Sequence[str]) -> list[str]:
    """One of each; a socket serves one client at a time."""
    return list({os.path.realpath(path): path for path in paths}.values())


def _unreadable(source: str, guest: str | None, error: Exception) -> Finding:
    message, remedy = str(error), rules.GUEST_UNREADABLE.remedy
    if isinstance(error, QmpsnapError):
        remedy = error.way_out or remedy
    else:
        # A fault of this tool must not hide what is wrong with the other guests.
        log.error("%s: %s", guest or source, error, exc_info=error)
        message = f"{type(error).__name__}: {error}"
    return Finding(
        rule=rules.GUEST_UNREADABLE, guest=guest or source, message=message, remedy=remedy
    )


def _by_socket(path: str) -> _Target:
    def work() -> _Answer:
        with closing(SocketMonitor.connect(path)) as monitor:
            seen, found = look(LookingHost(monitor, pid=monitor.pid).read, name=path)
            return _Answer(seen=seen, found=found, uuid=_uuid(monitor))

    return _Target(name=path, source=path, look=work)


_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"


def _uuid(monitor: SocketMonitor) -> str | None:
    try:
        reply = monitor.execute("query-uuid")
    except CommandFailed:
        return None
    uuid = reply.get("UUID") if isinstance(reply, dict) else None
    return uuid if isinstance(uuid, str) and uuid != _NO_UUID else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domain:
    """One guest that libvirt knows."""

    name: str
    uuid: str
    running: bool
    handle: Any


@contextmanager
def _domains(
    road: Road, has_sockets: bool, timeout: float, failures: list[tuple[str, Exception]]
) -> Iterator[list[_Domain]]:
    """Connect to libvirt for the length of a block, if it is asked for, and list its guests."""
    if road.connect is None and has_sockets:
        yield []
        return
    (answer,) = together([lambda: _listed(road)], threads=1, limit_s=timeout)
    if isinstance(answer, Exception):
        failures.append((road.uri, answer))
        yield []
        return
    connection, domains = answer
    with closing(connection):
        yield domains


def _listed(road: Road) -> tuple[Any, list[_Domain]]:
    connection = road.connection()
    libvirt = libvirt_module()
    try:
        return connection, _domains_of(connection, libvirt)
    except libvirt.libvirtError as error:
        connection.close()
        raise LibvirtUnreachable(road.uri, str(error)) from error


def _domains_of(connection: Any, libvirt: Any) -> list[_Domain]:
    return [
        _Domain(name=one.name(), uuid=one.UUIDString(), running=running, handle=one)
        for running, flag in (
            (True, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE),
            (False, libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE),
        )
        for one in connection.listAllDomains(flag)
    ]


def _by_libvirt(road: Road, domain: _Domain) -> _Target:
    def work() -> _Answer:
        with closing(LibvirtHost(domain.handle, passthrough=road.passthrough)) as host:
            seen, found = look(host.read, name=domain.name, host=host_of(road.uri))
        return _Answer(seen=seen, found=found, uuid=domain.uuid)

    return _Target(name=domain.name, source=road.uri, look=work)
