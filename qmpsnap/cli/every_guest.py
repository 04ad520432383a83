"""All guests of a libvirt connection, and how each of them is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from qmpsnap.cli.connection import Road
from qmpsnap.cli.units import Seconds
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.findings.look import look
from qmpsnap.monitor.virt import LibvirtUnreachable, host_of, libvirt_module

F = TypeVar("F", bound=Callable[..., Any])


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """One guest that libvirt knows."""

    name: str
    uuid: str
    running: bool
    handle: Any
    """The `virDomain`."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one guest's thread came back with."""

    seen: Seen
    found: tuple[Finding, ...]
    uuid: str | None
    """None where QEMU was given none."""


def listed(road: Road) -> tuple[Any, list[Domain]]:
    """
    Connect to libvirt, and list its guests; closing the connection is the caller's.

    Raises:
        LibvirtMissing, LibvirtUnreachable: There is none to be had.
    """
    connection = road.connection()
    libvirt = libvirt_module()
    try:
        return connection, _domains(connection, libvirt)
    except libvirt.libvirtError as error:
        connection.close()
        raise LibvirtUnreachable(road.uri, str(error)) from error


def _domains(connection: Any, libvirt: Any) -> list[Domain]:
    return [
        Domain(name=one.name(), uuid=one.UUIDString(), running=running, handle=one)
        for running, flag in (
            (True, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE),
            (False, libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE),
        )
        for one in connection.listAllDomains(flag)
    ]


def by_libvirt(road: Road, domain: Domain) -> Callable[[], Answer]:
    """Look at a guest of libvirt, when it is called."""

    def work() -> Answer:
        with road.under_libvirt(domain.handle) as host:
            seen, found = look(host.read, name=domain.name, host=host_of(road.uri))
        return Answer(seen=seen, found=found, uuid=domain.uuid)

    return work


def many_options(function: F) -> F:
    """Add `--jobs` and `--timeout` to a command that looks at many guests."""
    for option in (
        click.option(
            "--timeout",
            metavar="SECONDS",
            type=Seconds(0.1, 3600),
            default=30.0,
            show_default=True,
            help="Give each guest this long; one that does not answer does not hold up the others.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, 64),
            default=8,
            show_default=True,
            help="How many guests to look at at the same time.",
        ),
    ):
        function = option(function)
    return function
