"""Which guest is meant, and the road to it: its QMP socket, or libvirt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from qmpsnap.cli.output import complain
from qmpsnap.errors import QmpsnapError
from qmpsnap.hosts.direct import DirectHost
from qmpsnap.hosts.libvirt import LibvirtHost
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import find_domain, open_connection
from qmpsnap.operations.host import Host

DEFAULT_URI = "qemu:///system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """The global options."""

    qmp: str | None = None
    connect: str | None = None
    passthrough: bool = True

    @property
    def uri(self) -> str:
        """The libvirt URI: given, from the environment as for virsh, or the system's."""
        return self.connect or os.environ.get("LIBVIRT_DEFAULT_URI") or DEFAULT_URI

    @contextmanager
    def open(self, guest: str | None) -> Iterator[Host]:
        """
        Connect to a guest for the length of a block.

        Args:
            guest: Name or UUID; None on the direct road, where the socket says it all.

        Raises:
            Unreachable: It cannot be reached; one of its subclasses says why.
        """
        if self.qmp is not None:
            monitor = SocketMonitor.connect(self.qmp)
            try:
                yield DirectHost(monitor)
            finally:
                monitor.close()
            return
        connection = open_connection(self.uri)
        try:
            host = LibvirtHost(find_domain(connection, guest or ""), passthrough=self.passthrough)
            try:
                yield host
            finally:
                host.close()
        finally:
            connection.close()


class GuestCommand(click.Command):
    """A command that takes GUEST first, except on the direct road, where it is left out."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Leave GUEST out of parsing and usage alike."""
        params = super().get_params(ctx)
        road = ctx.find_object(Road)
        if road is not None and road.qmp is not None:
            return [param for param in params if param.name != "guest"]
        return params

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors become a message (JSON with `-o json`) and an exit code."""
        ctx.params.setdefault("guest", None)  # callbacks take it in any case
        try:
            return super().invoke(ctx)
        except QmpsnapError as error:
            complain(error, ctx.params.get("output"))
            return ctx.exit(error.exit_code)
