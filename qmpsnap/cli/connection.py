"""Which guest is meant, and the road to it: its QMP socket, or libvirt."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from qmpsnap.cli.output import say
from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.guests.connect import connect, connect_qmp, from_domain, libvirt_uri
from qmpsnap.guests.files.markers import markers_in
from qmpsnap.guests.reader import MAX_STALL_S
from qmpsnap.monitor.virt import find_domain, host_of, open_connection

if TYPE_CHECKING:
    from qmpsnap.guests.files.measure import Measure
    from qmpsnap.guests.libvirt.guest import LibvirtGuest
    from qmpsnap.guests.offline.guest import OfflineGuest
    from qmpsnap.guests.qmp.guest import QmpGuest
    from qmpsnap.monitor.socket import SocketMonitor


class NoTranscript(Refused):
    """The transcript cannot be opened."""

    msg = "the transcript {self.path} cannot be used: {self.reason}"
    remedy = "Check the name and its permissions."

    path: str
    reason: str


class Road(msgspec.Struct, frozen=True, kw_only=True):
    """The global options."""

    qmp: str | None = None
    connect: str | None = None
    replay: str | None = None
    passthrough: bool = True
    agent: str | None = None
    """Socket of the guest agent, on the direct road."""
    max_stall_s: float = MAX_STALL_S
    """How long a reading may stop a guest, by estimate."""

    @property
    def uri(self) -> str:
        """The libvirt URI: given, from the environment as for virsh, or the system's."""
        return libvirt_uri(self.connect)

    @property
    def source(self) -> str:
        """Where a guest is looked for, in words: a socket, a transcript or a URI."""
        return self.qmp or self.replay or self.uri

    @property
    def is_local(self) -> bool:
        """Whether the guest's files can be on this host: not those of a recording, or elsewhere."""
        return self.replay is None and (self.qmp is not None or not host_of(self.uri))

    @property
    def names_guest(self) -> bool:
        """Whether a guest is named; a socket and a transcript say which one it is."""
        return self.qmp is None and self.replay is None

    def read(self, guest: str | None) -> Disks:
        """
        Read a guest, or the transcript of one.

        Raises:
            Unreachable: It cannot be reached; one of its subclasses says why.
            BadTranscript, NoTranscript: The transcript cannot be used.
        """
        with self.looking(guest) as (read, _host):
            return read()

    @contextmanager
    def looking(self, guest: str | None) -> Iterator[tuple[Callable[[], Disks], str]]:
        """
        Give a way to read a guest, again and again, that changes nothing in it, and its host.

        The host is empty for this one.

        Raises:
            Unreachable: It cannot be reached; one of its subclasses says why.
            BadTranscript, NoTranscript: The transcript cannot be used.
        """
        if self.replay is not None:
            from qmpsnap.guests.replay import ReplayGuest
            from qmpsnap.monitor.transcript import parse

            yield ReplayGuest(parse(_text_of(self.replay), self.replay)).read, ""
        elif self.qmp is not None:
            from qmpsnap.monitor.socket import SocketMonitor

            with closing(SocketMonitor.connect(self.qmp)) as monitor:
                yield self.onlooker(monitor).read, ""
        else:
            with self.open(guest) as host:
                yield host.read, host_of(self.uri)

    def onlooker(self, monitor: SocketMonitor) -> QmpGuest:
        """Read the guest on a socket, and do nothing else."""
        from qmpsnap.guests.qmp.guest import QmpGuest

        return QmpGuest(monitor, pid=monitor.pid, max_stall_s=self.max_stall_s, partly=True)

    def under_libvirt(self, domain: Any) -> LibvirtGuest | OfflineGuest:
        """Use a guest of libvirt; the `connect` of its own is for a libvirtd that restarts."""
        return from_domain(
            domain,
            passthrough=self.passthrough,
            max_stall_s=self.max_stall_s,
            connect=self.connection,
        )

    def connection(self) -> Any:
        """
        Open the libvirt connection; closing it is the caller's.

        Raises:
            LibvirtMissing, LibvirtUnreachable: There is none to be had.
        """
        return open_connection(self.uri)

    def record(self, guest: str | None, path: str) -> None:
        """
        Write a transcript of one reading to a file.

        Raises:
            Unreachable: The guest cannot be reached.
            NoTranscript: The file cannot be written.
        """
        from qmpsnap.guests.record import record_domain, record_socket
        from qmpsnap.guests.replay import OnlyRecorded
        from qmpsnap.monitor.socket import SocketMonitor

        if self.replay is not None:
            raise OnlyRecorded("record")
        text = io.StringIO()
        if self.qmp is not None:
            with closing(SocketMonitor.connect(self.qmp)) as monitor:
                record_socket(monitor, text, max_stall_s=self.max_stall_s)
        else:
            with closing(open_connection(self.uri)) as connection:
                domain = find_domain(connection, guest or "")
                record_domain(domain, text, max_stall_s=self.max_stall_s)
        try:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        except OSError as error:
            raise NoTranscript(path, error.strerror or str(error)) from error

    def open(self, guest: str | None) -> QmpGuest | LibvirtGuest | OfflineGuest:
        """
        Connect to a guest; `with` closes it.

        Args:
            guest: Name or UUID; None on the direct road, where the socket says it all.

        Raises:
            Unreachable: It cannot be reached; one of its subclasses says why.
        """
        if self.replay is not None:
            from qmpsnap.guests.replay import OnlyRecorded

            raise OnlyRecorded("this command")
        if self.qmp is not None:
            return connect_qmp(self.qmp, agent=self.agent, max_stall_s=self.max_stall_s)
        return connect(
            self.uri,
            guest=guest or "",
            passthrough=self.passthrough,
            max_stall_s=self.max_stall_s,
        )


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise NoTranscript(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise NoTranscript(path, str(error)) from error


def measured(road: Road, disks: Iterable[Disk]) -> dict[str, Measure]:
    """Measure the files of disks, where they are on this host."""
    from qmpsnap.guests.files.measure import measured

    return measured(path for one in disks for path in one.paths) if road.is_local else {}


def _open_operations(report: Disks) -> tuple[str, ...]:
    """Notes of operations whose markers lie beside a guest's files; mostly there are none."""
    paths = [path for disk in report.disks for path in disk.paths if path is not None]
    if not any(markers_in(folder) for folder in {os.path.dirname(path) for path in paths}):
        return ()
    from qmpsnap.journal.markers import forbidding, resume_by

    return tuple(
        f"operation {marker.id} on these files is under way, or was interrupted ({marker.path}): "
        f"`{resume_by(marker.path)}` settles it"
        for marker in forbidding(report.disks)
    )


def read_guest(road: Road, guest: str | None) -> Disks:
    """Read a guest, and say what there is to note about the reading."""
    report = road.read(guest)
    if road.replay is None and (road.qmp is not None or not host_of(road.uri)):
        report = replace(report, notes=(*report.notes, *_open_operations(report)))
    for note in report.remarks:
        say(f"note: {note}")
    return report
