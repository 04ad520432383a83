"""
The way to a guest: its QMP socket, or libvirt, where it may be off.

    connect       by a libvirt URI and a name; the connection is the guest's own
    from_domain   a virDomain of a connection that somebody else has open
    connect_qmp   by the path of a QMP socket

Every guest is a context manager. One that is not closed is closed at the end of the program. Each
may be used by one thread at a time; several guests may be used by several threads at once, also
those of one libvirt connection.

The roads are imported when they are taken: a command that talks to one socket does without libvirt.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from qmpsnap.guests.reader import MAX_STALL_S
from qmpsnap.monitor.virt import find_domain, is_active, open_connection

if TYPE_CHECKING:
    from qmpsnap.guests.libvirt.guest import LibvirtGuest
    from qmpsnap.guests.offline.guest import OfflineGuest
    from qmpsnap.guests.qmp.guest import QmpGuest
    from qmpsnap.monitor.socket import SocketMonitor

DEFAULT_URI: Final = "qemu:///system"


def libvirt_uri(uri: str | None = None) -> str:
    """The libvirt URI: the one that is given, else `$LIBVIRT_DEFAULT_URI` as virsh, else the system's."""
    return uri or os.environ.get("LIBVIRT_DEFAULT_URI") or DEFAULT_URI


def connect(
    uri: str | None = None,
    *,
    guest: str,
    passthrough: bool = True,
    max_stall_s: float | None = MAX_STALL_S,
    events: bool = True,
) -> LibvirtGuest | OfflineGuest:
    """
    Connect to a guest of libvirt.

    Args:
        uri: Of libvirt, such as `qemu:///system`; None as `libvirt_uri` says.
        guest: Its name or UUID.
        passthrough: Whether to ask QEMU itself, which taints the domain; False to do with the
            domain XML alone, which proves less.
        max_stall_s: Seconds that a reading may stop the guest, by estimate; what would take longer
            is done with the XML alone. None: as long as it takes.
        events: Whether to hear libvirt's events. A thread is started for them, once in a process,
            where the program has registered no event loop with libvirt; that must happen before.
            False: no thread, and jobs are watched by asking several times a second.

    Returns:
        A `LibvirtGuest` where it runs, an `OfflineGuest` where it is off.

    Raises:
        LibvirtMissing: libvirt-python is not installed.
        LibvirtUnreachable: libvirt does not answer.
        GuestNotFound: It knows no such guest.
    """

    def again() -> Any:
        return open_connection(libvirt_uri(uri), pump_events=events)

    connection = again()
    try:
        domain = find_domain(connection, guest)
        return _guest_of(domain, passthrough, max_stall_s, connect=again, closes=connection)
    except BaseException:
        connection.close()
        raise


def from_domain(
    domain: Any,
    *,
    passthrough: bool = True,
    max_stall_s: float | None = MAX_STALL_S,
    connect: Callable[[], Any] | None = None,
) -> LibvirtGuest | OfflineGuest:
    """
    Use a guest of a libvirt connection that is open already.

    No event loop is registered. Where the program has none, or has opened the connection before it
    registered one, libvirt tells nobody of its events, and jobs are watched by asking.

    Args:
        domain: A `virDomain`.
        passthrough: As `connect` takes it.
        max_stall_s: As `connect` takes it.
        connect: Opens another connection to the same libvirt (`libvirt.open`), for when this one
            breaks in the middle of an operation; None: then the outcome is unknown.

    Returns:
        A `LibvirtGuest` where it runs, an `OfflineGuest` where it is off.

    Raises:
        LibvirtUnreachable: The connection, or the guest, is gone.
    """
    return _guest_of(domain, passthrough, max_stall_s, connect=connect)


def _guest_of(
    domain: Any,
    passthrough: bool,
    max_stall_s: float | None,
    *,
    connect: Callable[[], Any] | None,
    closes: Any = None,
) -> LibvirtGuest | OfflineGuest:
    if not is_active(domain):
        from qmpsnap.guests.offline.guest import OfflineGuest

        return OfflineGuest(domain, closes=closes).close_at_exit()
    from qmpsnap.guests.libvirt.guest import LibvirtGuest

    running = LibvirtGuest(
        domain, passthrough=passthrough, max_stall_s=max_stall_s, connect=connect, closes=closes
    )
    # Without a connection of its own it has nothing open but events of somebody else's.
    return running if closes is None else running.close_at_exit()


def connect_qmp(
    path: str | os.PathLike[str],
    *,
    agent: str | None = None,
    max_stall_s: float | None = MAX_STALL_S,
) -> QmpGuest:
    """
    Connect to a QEMU without libvirt.

    Args:
        path: Its QMP socket (`-qmp unix:PATH,server=on,wait=off`), which serves one client at a
            time.
        agent: The socket of its guest agent's channel, to freeze its filesystems.
        max_stall_s: Seconds that a reading may stop the guest, by estimate; one that would take
            longer is refused. None: as long as it takes.

    Raises:
        CannotConnect: Nobody listens there, or another client has the place.
        NotQmp: What answers is no QMP server.
    """
    from qmpsnap.guests.qmp.guest import QmpGuest
    from qmpsnap.monitor.socket import SocketMonitor

    def again() -> SocketMonitor:
        return SocketMonitor.connect(path)

    monitor = again()
    guest = QmpGuest(
        monitor,
        agent=agent,
        pid=monitor.pid,
        socket=os.fspath(path),
        connect=again,
        max_stall_s=max_stall_s,
        owns=True,
    )
    return guest.close_at_exit()
