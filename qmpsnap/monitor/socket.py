"""
A QMP UNIX socket, through qemu.qmp.

qemu.qmp is asyncio; everything else here blocks (libvirt-python, Nova, Cinder, the command
line). So this module, and only this one, runs an event loop, on one daemon thread that all
socket monitors of the process share, and offers plain blocking calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import stat
import struct
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Self, TypeVar

from qemu.qmp import EventListener, Message, QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.protocol import ConnectError, Runstate, StateError
from qemu.qmp.qmp_client import ExecuteError, GreetingError, NegotiationError

from qmpsnap.errors import Unreachable
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    DEFAULT_TIMEOUT_S,
    WATCHED_EVENTS,
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    Query,
)
from qmpsnap.monitor.once import once

CONNECT_TIMEOUT_S: Final = 5.0
"""A monitor socket serves one client at a time; a second one connects and then just waits for
the greeting. Five seconds tell the two apart."""

CANCEL_TIMEOUT_S: Final = 5.0
"""How long after Ctrl-C a command may take to let go."""

REPLY_LIMIT: Final = 64 * 1024 * 1024
"""Bytes. qemu.qmp drops the connection over a longer reply; its own default of 10 MiB is less
than the 36 MB that 32 disks of 64 layers were seen to give. As values in Python a hostile one takes
some twenty times as much."""

# qemu.qmp logs what it raises; without a handler that would be printed to stderr twice.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False

_ENDINGS: Final = (QMPError, OSError, EOFError, ValueError, RecursionError, MemoryError)
"""What the library raises when a session ends: a server that hung up, a broken socket, and from
json ValueError for bytes that are not text, RecursionError for a reply that is nested too deep,
MemoryError for one that does not fit here."""

_LINE_LIMIT: Final = 64 * 1024
"""Bytes of an event or a greeting; the longest that is known has a few hundred."""
_AGAIN_S: Final = 0.01
"""Seconds between two looks at a line that has begun; QEMU writes it at once."""

_UCRED: Final = struct.Struct("3i")
"""`struct ucred`, unix(7): pid, uid, gid."""

T = TypeVar("T")


class CannotConnect(Unreachable):
    """The socket is not there, nobody listens on it, or it may not be opened."""

    msg = "cannot connect to the QMP socket {self.path}: {self.reason}"
    remedy = "{self.advice}"

    path: str
    reason: str
    advice: str


class NotQmp(Unreachable):
    """Somebody listens, and does not speak QMP."""

    msg = "{self.path} does not speak QMP: {self.reason}"
    remedy = "Give the socket of a QEMU started with `-qmp unix:PATH,server=on,wait=off`."

    path: str
    reason: str


@once
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="qmpsnap-qmp", daemon=True).start()
    return loop


def _run(work: Coroutine[object, object, T]) -> T:
    """
    Run a coroutine on the loop thread; Ctrl-C in the caller cancels it, and waits for its end.

    What a cancelled coroutine raises in the end is taken here, or asyncio would print it.
    """
    answer: Future[T] = Future()

    async def deliver() -> None:
        try:
            answer.set_result(await work)
        except BaseException as error:  # handed to the caller's thread
            answer.set_exception(error)

    running = asyncio.run_coroutine_threadsafe(deliver(), _loop())
    try:
        return answer.result()
    finally:
        if not answer.done():
            running.cancel()
            wait([answer], CANCEL_TIMEOUT_S)


class _Sink(EventListener):
    """Hands events to a plain queue; the library's own listeners keep them as a history."""

    def __init__(self, queue: SimpleQueue[Event]) -> None:
        super().__init__(WATCHED_EVENTS)
        self._sink = queue

    async def put(self, event: Message) -> None:
        """Called by the client for every event of the connection."""
        if self.accept(event):
            data = event.get("data")
            self._sink.put(Event(str(event["event"]), data if isinstance(data, Mapping) else {}))


class _Client(QMPClient):
    """
    qemu.qmp's client without its log.

    It writes each message out for it, indented, which the standard library does in Python, whether
    or not anybody logs: of 91 KiB that took longer than QEMU and all else together (0.0.6).
    """

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class SocketMonitor:
    """One QEMU through its own QMP socket."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Not yet connected; use `connect()`."""
        self._path = os.fspath(path)
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._has_begun = False
        self.pid = 0
        """Process that made the socket: mostly QEMU itself, else whoever handed it over."""

    @classmethod
    def connect(cls, path: str | os.PathLike[str], timeout: float = CONNECT_TIMEOUT_S) -> Self:
        """
        Connect to the UNIX socket at `path` and negotiate.

        Raises:
            CannotConnect: No such socket, nobody listening, no permission, or the monitor's one
                place is taken by another client.
            NotQmp: What answered is not a QMP server.
        """
        monitor = cls(path)
        _run(monitor._open(timeout))
        return monitor

    async def _open(self, timeout: float) -> None:
        # Made here, not in __init__: the client belongs to the loop it is used on.
        self._client = _Client("qmpsnap", readbuflen=REPLY_LIMIT)
        self._client.events.event_filter = lambda _event: False  # it cannot be taken out
        # Listening before the first command is sent: a 1 MiB job is over in less than 2 ms.
        self._client.register_listener(_Sink(self.events))
        try:
            async with asyncio.timeout(timeout):
                await self._connect()
        except TimeoutError:
            if self._has_begun:
                raise NotQmp(
                    self._path, f"its first line has no end within {timeout:g} s"
                ) from None
            raise CannotConnect(
                self._path,
                f"no greeting within {timeout:g} s",
                "Another client holds this monitor (QEMU serves one at a time): end it, or give "
                "QEMU a second `-qmp` socket.",
            ) from None
        except (ConnectError, OSError, ValueError) as error:
            raise _translated(self._path, error) from error
        except AssertionError as error:
            # qemu.qmp 0.0.6, when the server hangs up right after the negotiation.
            with suppress(*_ENDINGS):
                await self._client.disconnect()
            raise NotQmp(self._path, "it hung up right after the negotiation") from error
        self._ending = asyncio.Lock()
        self._closing = False
        self._watch = asyncio.create_task(self._notice_end())

    async def _connect(self) -> None:
        """Connect with a socket of our own: it can be asked who listens at its other end."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(peer, self._path)
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            self.pid, _, _ = _UCRED.unpack(credentials)
            await self._skip_events(peer)
            await self._client.connect(peer)
        except BaseException:
            peer.close()
            raise

    async def _skip_events(self, peer: socket.socket) -> None:
        """
        Take events out that come before the greeting, which the library does not understand.

        QEMU sends every event to a monitor that is connected and has not been opened yet: to it
        that one is past its negotiation. At the start of a guest without `-S` that is RESUME. And
        what the client before us did not fetch is sent to us (monitor_qapi_event_emit() and
        monitor_flush(), monitor/monitor.c; seen once with QEMU 7.2).

        Raises:
            NotQmp: A line has no end. The library would take in all of it: 200 MB took it 50 s.
        """
        loop = asyncio.get_running_loop()
        while True:
            readable = asyncio.Event()
            loop.add_reader(peer, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(peer)
            line, end, _ = peer.recv(_LINE_LIMIT, socket.MSG_PEEK).partition(b"\n")
            if not end:
                if len(line) >= _LINE_LIMIT:
                    reason = f"its first line has no end within {_LINE_LIMIT} bytes"
                    raise NotQmp(self._path, reason)
                if _has_hung_up(peer):
                    return
                self._has_begun = True
                await asyncio.sleep(_AGAIN_S)
            elif _is_event(line):
                peer.recv(len(line) + len(end))
            else:
                return

    async def _notice_end(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        if not self._closing:
            await self._disconnect()
            self.events.put(Event(CONNECTION_LOST))

    async def _disconnect(self) -> None:
        """
        Fetch what ended the session, once: after `quit`, or when QEMU died, the library raises it.

        Two calls at a time, or a cancelled one, leave an exception behind that nobody fetches,
        and asyncio prints it.
        """
        async with self._ending:
            with suppress(*_ENDINGS):
                await self._client.disconnect()

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """See `Monitor.execute`."""
        return _run(self._execute(command, arguments or {}, timeout))

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        """See `Monitor.execute_all`."""
        return _run(self._execute_all(queries, timeout))

    async def _execute_all(self, queries: Sequence[Query], timeout: float) -> list[object]:
        # Each coroutine sends its command before it waits, so they are sent in this order.
        replies = await asyncio.gather(
            *(self._execute(command, arguments, timeout) for command, arguments in queries),
            return_exceptions=True,
        )
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, CommandFailed):
                raise reply
        return list(replies)

    async def _execute(
        self, command: str, arguments: Mapping[str, object], timeout: float
    ) -> object:
        try:
            async with asyncio.timeout(timeout):
                reply: object = await self._client.execute(command, dict(arguments))
        except TimeoutError:
            raise CommandTimedOut(command, timeout) from None
        except ExecuteError as error:
            raise CommandFailed(command, error.error_class, str(error)) from error
        except StateError as error:
            raise ConnectionLost(command, str(error)) from error
        except _ENDINGS as error:
            raise LostInMidCommand(command, str(error) or type(error).__name__) from error
        return reply

    def close(self) -> None:
        """End the connection; QEMU and its jobs go on."""
        _run(self._close())

    async def _close(self) -> None:
        self._closing = True
        await self._disconnect()
        await self._watch


def _has_hung_up(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, select.POLLRDHUP)
    return bool(poll.poll(0))


def _is_event(line: bytes) -> bool:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and "event" in message and "QMP" not in message


def _translated(path: str, error: ConnectError | OSError | ValueError) -> Unreachable:
    """Say in the caller's words why there is no session."""
    cause = error.exc if isinstance(error, ConnectError) else error
    match cause:
        case FileNotFoundError():
            advice = "Check the path, and that the guest is running."
            return CannotConnect(path, "no such socket", advice)
        case ConnectionRefusedError():
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
            if not is_socket:
                return CannotConnect(path, "not a socket", "Check the path.")
            advice = "Check that the guest is running."
            return CannotConnect(path, "nobody listens there", advice)
        case PermissionError():
            advice = "Run as the user that owns the socket, or as root."
            return CannotConnect(path, "permission denied", advice)
        case GreetingError() | NegotiationError() | QMPError() | UnicodeDecodeError():
            # qemu.qmp spreads its messages over lines.
            return NotQmp(path, " ".join(str(cause).split()))
        case EOFError() | asyncio.IncompleteReadError():
            return NotQmp(path, "it closed the connection without a greeting")
        case _:
            advice = "Give the path of a UNIX socket that a QEMU listens on."
            return CannotConnect(path, str(cause) or type(cause).__name__, advice)
