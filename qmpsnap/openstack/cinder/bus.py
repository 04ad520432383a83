"""
Waking the volume service over Cinder's own message bus.

Nothing is carried by it: the answer lies in the ledger. A message that is lost costs a delay, until
the slow poll comes round.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import oslo_messaging as messaging
from cinder import rpc

TOPIC: Final = "qmpsnap"
log = logging.getLogger(__name__)


def wake(context: Any, host: str, snapshot: str, *, clustered: bool) -> None:
    """
    Tell a back end's volume service that an answer on this snapshot has come.

    Args:
        context: Cinder's request context.
        host: `volume.host`, with or without its pool.
        snapshot: Its id.
        clustered: Whether several hosts share the back end: any of them may be the one that waits.
    """
    # pool = the part behind '#'; a service listens as host@backend.
    server = host.split("#")[0]
    try:
        client = rpc.get_client(messaging.Target(topic=TOPIC, version="1.0"))
        prepared = client.prepare(fanout=True) if clustered else client.prepare(server=server)
        prepared.cast(context, "answered", snapshot_id=snapshot)
    except Exception:
        # The answer is stored; the volume service finds it when it looks by itself.
        log.warning("cannot wake %s for snapshot %s", server, snapshot, exc_info=True)


class Endpoint:
    """What is called over the bus."""

    target = messaging.Target(version="1.0")

    def __init__(self, answered: Callable[[str], None]) -> None:
        self._answered = answered

    def answered(self, context: Any, snapshot_id: str) -> None:
        """Somebody has an answer on this snapshot."""
        self._answered(str(snapshot_id))


class Alarm:
    """Events by snapshot id, set by the bus; whoever waits looks again when its own is set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, threading.Event] = {}
        self.any = threading.Event()
        """Set by every message, also by one that nobody waits for."""
        self._server: Any = None

    def listen(self, host: str | None) -> None:
        """Start to listen, once; without a bus (a unit test), or a host, the poll has to do."""
        with self._lock:
            if self._server is not None or not host or not rpc.initialized():
                return
            target = messaging.Target(topic=TOPIC, server=host)
            self._server = rpc.get_server(target, [Endpoint(self.ring)])
        self._server.start()

    def ring(self, snapshot: str) -> None:
        """Wake whoever waits for this snapshot."""
        with self._lock:
            event = self._waiting.get(snapshot)
        if event is not None:
            event.set()
        self.any.set()

    def expect(self, snapshot: str) -> threading.Event:
        """The event of this snapshot; to be had before compute is asked."""
        with self._lock:
            return self._waiting.setdefault(snapshot, threading.Event())

    def forget(self, snapshot: str) -> None:
        """Nobody waits any longer."""
        with self._lock:
            self._waiting.pop(snapshot, None)
