"""`doctor`: what is installed, reachable and allowed here, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import click
import msgspec

from qmpsnap.cli.command import Command
from qmpsnap.cli.connection import Road
from qmpsnap.cli.output import output_option, show
from qmpsnap.cli.protection import protections
from qmpsnap.cli.tables import Table
from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.offline.block_layer import PROGRAM as OFFLINE_QEMU
from qmpsnap.journal.file import DEFAULT, Journal
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.schema import read_features
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import LibvirtMissing, libvirt_module, open_connection

FINDINGS: Final = 3
_NOVA: Final = "qmpsnap.openstack.nova.doctor"
"""Loaded when it is asked for, as a command is: Nova is not everywhere."""


class State(StrEnum):
    """How one check came out."""

    OK = "ok"
    NOTE = "note"
    """Something is not there that only some need."""
    PROBLEM = "problem"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the answer."""

    name: str
    state: State
    found: str
    remedy: str = ""


@click.command(
    cls=Command, examples=("doctor", "doctor -c qemu:///system", "doctor --nova -o json")
)
@click.option("--nova", is_flag=True, help="Look at this host's nova-compute and our driver too.")
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Nova's configuration; where nova-compute looks for it otherwise. May be repeated.",
)
@output_option
@click.pass_context
def doctor(ctx: click.Context, nova: bool, config_files: tuple[str, ...], output: str) -> None:
    """
    Tell what is installed, reachable and allowed here, and what to do about the rest.

    With --qmp or --connect it also looks at that QEMU or libvirt, with --nova at nova-compute's
    configuration: whether the driver is loaded, who sends updates again, what its user may see. The
    journal and the updates are then nova-compute's. Exit code 3 when something that is needed is
    missing, or an update will never be sent by itself.
    """
    if config_files and not nova:
        raise click.UsageError("--config-file names Nova's configuration: it needs --nova")
    checks = list(_checks(ctx.obj, config_files if nova else None))
    document = {
        "schema": "qmpsnap.doctor/1",
        "checks": [
            {"name": one.name, "state": one.state.value, "found": one.found, "remedy": one.remedy}
            for one in checks
        ],
    }
    rows = [(one.state.value, one.name, one.found, one.remedy or "") for one in checks]
    columns = ("", "CHECK", "FOUND", "WHAT TO DO")
    shown = Table(columns, rows, heading=2, prose=columns)
    show(document, output, lambda _: [shown])
    if any(one.state is State.PROBLEM for one in checks):
        ctx.exit(FINDINGS)


def _checks(road: Road, nova: tuple[str, ...] | None) -> Iterator[Check]:
    yield Check(
        name="qmpsnap",
        state=State.OK,
        found=f"{version('qmpsnap')}, Python {platform.python_version()}, "
        f"qemu.qmp {version('qemu.qmp')}",
    )
    yield _program("qemu-img", State.PROBLEM, "Install it: Debian's qemu-utils, Fedora's qemu-img.")
    remedy = "Guests that are off need it, and `qmpsnap demo`: Debian's qemu-system-x86."
    yield _program(OFFLINE_QEMU, State.NOTE, remedy)
    yield _program(
        "nbdcopy", State.NOTE, "Only `delete --verify` needs it: Debian's libnbd-bin, as Fedora's."
    )
    remedy = "Only `chain -o svg` needs it: Debian's graphviz."
    yield _program("dot", State.NOTE, remedy, asked="-V")
    journal: Journal | None = DEFAULT
    if nova is not None:
        found, journal = import_module(_NOVA).looked_at(nova)
        yield from found
    for one in protections(libvirt=road.qmp is None, journal=journal):
        yield Check(name=one.name, state=State(one.state), found=one.found, remedy=one.remedy)
    if road.qmp is not None:
        yield from _socket(road.qmp)
    else:
        yield from _libvirt(road)


def _program(name: str, when_missing: State, remedy: str, *, asked: str = "--version") -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name=name, state=when_missing, found="not found", remedy=remedy)
    try:
        said = subprocess.run(
            [path, asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=name, state=when_missing, found=str(error), remedy=remedy)
    first = (said.stdout or said.stderr).partition("\n")[0]  # dot says it on stderr
    return Check(name=name, state=State.OK, found=first or f"exit code {said.returncode}")


def _socket(path: str) -> Iterator[Check]:
    try:
        monitor = SocketMonitor.connect(path)
    except QmpsnapError as error:
        yield Check(name="QMP", state=State.PROBLEM, found=str(error), remedy=error.way_out)
        return
    try:
        features = read_features(monitor)
        yield Check(name="QMP", state=State.OK, found=f"{path} answers")
        mask = features.has("block-commit", "backing-mask-protocol")
        yield Check(
            name="backing-mask-protocol",
            state=State.OK if mask else State.NOTE,
            found="yes" if mask else "no (QEMU before 9.0)",
            remedy=""
            if mask
            else "Merges into a file that is open without a raw node are refused.",
        )
    except QmpsnapError as error:
        yield Check(name="QMP", state=State.PROBLEM, found=str(error), remedy=error.way_out)
    finally:
        monitor.close()


def _libvirt(road: Road) -> Iterator[Check]:
    # Without --connect nobody asked for libvirt, so what is missing is only worth a note.
    asked = road.connect is not None or "LIBVIRT_DEFAULT_URI" in os.environ
    bad = State.PROBLEM if asked else State.NOTE
    try:
        libvirt = libvirt_module()
    except LibvirtMissing as error:
        yield Check(name="libvirt-python", state=bad, found="not found", remedy=error.way_out)
        return
    try:
        own = version("libvirt-python")
    except PackageNotFoundError:  # a distribution may leave out what would tell
        own = "of a version that is not told"
    found = f"{own}, over libvirt {_dotted(libvirt.getVersion())}"
    yield Check(name="libvirt-python", state=State.OK, found=found)
    try:
        connection = open_connection(road.uri)
    except QmpsnapError as error:
        yield Check(name=road.uri, state=bad, found=str(error), remedy=error.way_out)
        return
    try:
        found = f"libvirt {_dotted(connection.getLibVersion())}, QEMU {_dotted(connection.getVersion())}"
        yield Check(name=road.uri, state=State.OK, found=found)
        running = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        if not running:
            yield Check(name="passthrough", state=State.NOTE, found="no running guest to try it on")
            return
        yield _passthrough(running[0])
    except libvirt.libvirtError as error:
        yield Check(name=road.uri, state=bad, found=str(error), remedy="Check libvirt's log.")
    finally:
        connection.close()


def _passthrough(domain: object) -> Check:
    name = "passthrough"
    try:
        PassthroughMonitor(domain).execute("query-version")
    except QmpsnapError as error:
        return Check(name=name, state=State.NOTE, found=str(error), remedy=error.way_out)
    return Check(name=name, state=State.OK, found="allowed: formats will be exact")


def _dotted(number: int) -> str:
    """libvirt's version numbers: major * 1,000,000 + minor * 1000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
