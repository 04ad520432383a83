"""
The one place that imports libvirt: a connection, and the thread that pumps its events.

libvirt-python is an extra: it compiles against the host's libvirt, and the direct road does
without it. It carries no types, so what leaves this module is `Any` until it is parsed.
"""

from __future__ import annotations

import importlib
import sys
import threading
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from qmpsnap.errors import Unreachable
from qmpsnap.monitor.once import once


class LibvirtMissing(Unreachable):
    """The Python module is not installed, so no libvirt guest can be reached."""

    msg = "the Python module {self.module} is not installed, so libvirt guests cannot be reached"
    remedy = (
        "Install it where qmpsnap is: `pip install libvirt-python` (it compiles: gcc, pkg-config, "
        "libvirt-dev), or Debian's python3-libvirt where that environment sees the system's "
        "packages. Or talk to QEMU itself with `--qmp SOCKET`."
    )

    module: str


class LibvirtUnreachable(Unreachable):
    """libvirt does not answer at this URI."""

    msg = "cannot open a libvirt connection to {self.uri}: {self.reason}"
    remedy = (
        "Check the URI and that libvirt runs there, for example with `virsh -c {self.uri} list`."
    )

    uri: str
    reason: str


class GuestNotFound(Unreachable):
    """There is no guest of this name or UUID."""

    msg = "no guest {self.guest!r} at {self.uri}; there is: {self.known_text}"
    remedy = "Give one of these names."

    guest: str
    uri: str
    known: tuple[str, ...]

    @property
    def known_text(self) -> str:
        """The names, or a word for none."""
        return ", ".join(self.known) or "none"


@cache
def libvirt_module(name: str = "libvirt") -> Any:
    """
    Import `libvirt` or `libvirt_qemu`.

    Raises:
        LibvirtMissing: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LibvirtMissing(name) from error


def delivers_events() -> bool:
    """
    Whether an event loop is registered with libvirt that any thread may use; who runs it is unknown.

    libvirtaio's may be touched by its own thread alone (it calls asyncio's `call_soon`, which in
    debug mode raises elsewhere), and that thread must not wait for an event: so it counts as none.
    libvirt has no question for the others, but a timer can be added only where there is one
    (virEventAddTimeout(), virevent.c).
    """
    libvirt = libvirt_module()
    if _uses_libvirtaio():
        return False
    try:
        timer = libvirt.virEventAddTimeout(-1, lambda *_: None, None)
    except libvirt.libvirtError:
        return False
    libvirt.virEventRemoveTimeout(timer)
    return True


def _uses_libvirtaio() -> bool:
    module = sys.modules.get("libvirtaio")
    return module is not None and module.getCurrentImpl() is not None


@once
def hush() -> None:
    """
    Let libvirt print nothing by itself: by default it writes every error to stderr, handled or not.

    A program that has registered an event loop of its own may have a handler of its own as well.
    """
    if not (_uses_libvirtaio() or delivers_events()):
        libvirt_module().registerErrorHandler(lambda _context, _error: None, None)


@once
def start_event_pump() -> None:
    """
    Register libvirt's own event loop and run it on one thread, once a process.

    libvirtaio delivered block-job events half a second late when mixed with worker threads; a
    thread in `virEventRunDefaultImpl()` delivers them 0.6 ms after they happened. In a program that
    has registered an event loop of its own (Nova) that one delivers them, and nothing is done here.
    """
    if _uses_libvirtaio() or delivers_events():
        return
    libvirt = libvirt_module()
    libvirt.virEventRegisterDefaultImpl()

    def pump() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=pump, name="qmpsnap-libvirt", daemon=True).start()


def open_connection(uri: str, *, pump_events: bool = True, read_only: bool = False) -> Any:
    """
    Open a `virConnect`.

    Args:
        uri: For example `qemu:///system`, or `qemu:///embed?root=DIR` for libvirt's driver inside
            this process.
        pump_events: Whether to see to an event loop for libvirt, where the program has none.
        read_only: Open for reading only; libvirt then refuses passthrough.

    Raises:
        LibvirtMissing: libvirt-python is not installed.
        LibvirtUnreachable: Nothing answers at `uri`, or it may not be opened.
    """
    libvirt = libvirt_module()
    hush()
    if pump_events:
        start_event_pump()
    try:
        return libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise LibvirtUnreachable(uri, str(error)) from error


def find_domain(connection: Any, guest: str) -> Any:
    """
    Look a guest up by name, then by UUID.

    Raises:
        GuestNotFound: Neither matches; the error names the guests that there are.
    """
    libvirt = libvirt_module()
    for look_up in (connection.lookupByName, connection.lookupByUUIDString):
        try:
            return look_up(guest)
        except libvirt.libvirtError:
            continue
    try:
        known = tuple(sorted(domain.name() for domain in connection.listAllDomains()))
        uri = connection.getURI()
    except libvirt.libvirtError as error:
        raise LibvirtUnreachable("libvirt", str(error)) from error
    raise GuestNotFound(guest, uri, known)


def is_active(domain: Any) -> bool:
    """
    Whether a guest runs.

    Raises:
        LibvirtUnreachable: The connection, or the guest, is gone.
    """
    try:
        return bool(domain.isActive())
    except libvirt_module().libvirtError as error:
        raise LibvirtUnreachable("libvirt", str(error)) from error


def host_of(uri: str) -> str:
    """The host that a libvirt URI leads to; empty for this one."""
    host = urlsplit(uri).hostname or ""
    return "" if host in ("localhost", "127.0.0.1", "::1") else host
