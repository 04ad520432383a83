"""
The job events of a libvirt guest, for as many listeners as there are in this process.

libvirt takes one registration of a connection for a guest and an event: the second one ends with
"event callback already tracked" (virObjectEventCallbackListAddID(), object_event.c). In Nova all
guests and all calls share one connection, so what is registered here is shared, too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final

from qmpsnap.monitor.base import WATCHED_EVENTS, Event
from qmpsnap.monitor.virt import LibvirtMissing, libvirt_module

LIBVIRT_BLOCK_JOB: Final = "LIBVIRT_BLOCK_JOB"
"""Event name for `VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2`; data: `disk` (target), `type` and `status`
(libvirt's numbers, `virDomainBlockJobType` and `virConnectDomainEventBlockJobStatus`)."""

Queue = SimpleQueue[Event]


@dataclass(eq=False, slots=True)
class _Registration:
    """What libvirt was asked for, and who hears it."""

    listeners: tuple[Queue, ...] = ()
    """Replaced as a whole: libvirt's thread reads it at any time."""
    undo: list[Callable[[], object]] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        for queue in self.listeners:
            queue.put(event)


_registered: Final[dict[tuple[int, str], _Registration]] = {}
"""By connection (libvirt's own object, of which there may be several in Python) and guest."""
_lock: Final = threading.Lock()


def listen(domain: Any, queue: Queue) -> Callable[[], None]:
    """
    Put the guest's job events into a queue from now on: libvirt's own, and QEMU's.

    libvirt's event says how a job ended and hides why; the text is only in QEMU's.

    Returns:
        What ends it; to be called once.

    Raises:
        libvirtError: Somebody else in this process has registered for the same on this
            connection, or it is gone.
    """
    connection = domain.connect()
    key = (int(connection.c_pointer()), str(domain.UUIDString()))
    with _lock:
        registration = _registered.get(key)
        if registration is None:
            registration = _Registration()
            _register(registration, connection, domain)
            _registered[key] = registration
        registration.listeners = (*registration.listeners, queue)

    def end() -> None:
        with _lock:
            left = tuple(one for one in registration.listeners if one is not queue)
            registration.listeners = left
            if left:
                return
            del _registered[key]
            for undo in reversed(registration.undo):
                # The connection may be gone, and the registration with it.
                with suppress(libvirt_module().libvirtError):
                    undo()

    return end


def _register(registration: _Registration, connection: Any, domain: Any) -> None:
    libvirt = libvirt_module()

    def on_block_job(
        _connection: object, _domain: object, disk: str, kind: int, status: int, _opaque: object
    ) -> None:
        data = {"disk": disk, "type": kind, "status": status}
        registration.tell(Event(LIBVIRT_BLOCK_JOB, data))

    def on_monitor_event(
        _connection: object,
        _domain: object,
        name: str,
        _seconds: int,
        _micros: int,
        details: str | None,
        _opaque: object,
    ) -> None:
        data = json.loads(details) if details else {}
        registration.tell(Event(name, data if isinstance(data, dict) else {}))

    block_job = connection.domainEventRegisterAny(
        domain, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, on_block_job, None
    )
    registration.undo.append(lambda: connection.domainEventDeregisterAny(block_job))
    with suppress(libvirt.libvirtError, LibvirtMissing):
        # Not to be had everywhere; without it a failed job has no reason.
        qemu = libvirt_module("libvirt_qemu")
        monitor_event = qemu.qemuMonitorEventRegister(
            connection,
            domain,
            f"^({'|'.join(WATCHED_EVENTS)})$",
            on_monitor_event,
            None,
            qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
        )
        registration.undo.append(lambda: qemu.qemuMonitorEventDeregister(connection, monitor_event))
