"""
Transcripts: what was said to and by one QEMU, as JSON lines, to be recorded and replayed.

    {"qmpsnap-transcript": 1, "qemu": "7.2.22", "libvirt": null}
    {"execute": "query-jobs", "return": []}
    {"execute": "qom-get", "arguments": {…}, "error": {"class": "GenericError", "desc": "…"}}
    {"event": "JOB_STATUS_CHANGE", "data": {…}, "timestamp": {…}}
    {"xml": "<domain …>"}

A replayed query is answered by the first unused line with the same command and arguments, and by
the last used one when none is left. A command of which the transcript holds no exchange at all
is answered as by a QEMU that lacks it (`CommandNotFound`), and so is an argument that no exchange
of this command has (`Parameter '…' is unexpected`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Final, TextIO

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.monitor.base import (
    DEFAULT_TIMEOUT_S,
    WATCHED_EVENTS,
    CommandFailed,
    Event,
    Monitor,
    Query,
    one_by_one,
)

VERSION: Final = 1
VERSION_KEY: Final = "qmpsnap-transcript"


class BadTranscript(Refused):
    """A file that is not a transcript that this version understands."""

    msg = "{self.name}, line {self.line}: {self.reason}"
    remedy = "Record it anew with `qmpsnap record`."

    name: str
    line: int
    reason: str


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One command and its answer: what it returned, or QMP's error class and description."""

    command: str
    arguments: Mapping[str, object]
    value: object = None
    error: tuple[str, str] | None = None


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """A whole recording, in the order seen."""

    qemu: str | None
    libvirt: str | None
    exchanges: tuple[Exchange, ...]
    events: tuple[Event, ...]
    xml: tuple[str, ...]
    """Live domain XMLs of a libvirt guest; empty on the direct road."""


def parse(text: str, name: str) -> Transcript:
    """
    Parse a transcript.

    Args:
        text: The JSON lines.
        name: What to call the file in an error.

    Raises:
        BadTranscript: A line is no JSON or of no known kind, or the version is another one.
    """
    lines = [line for line in enumerate(text.split("\n"), start=1) if line[1].strip()]
    documents = [(number, _object(line, name, number)) for number, line in lines]
    if not documents or documents[0][1].get(VERSION_KEY) != VERSION:
        raise BadTranscript(name, 1, f"it does not begin with {VERSION_KEY} {VERSION}")
    exchanges, events, xml = [], [], []
    for number, document in documents[1:]:
        match document:
            case {"execute": str(), **rest}:
                exchanges.append(_exchange(document, rest, name, number))
            case {"event": str(event), **rest}:
                data = rest.get("data")
                events.append(Event(event, data if isinstance(data, dict) else {}))
            case {"xml": str(domain)}:
                xml.append(domain)
            case _:
                raise BadTranscript(name, number, "neither an exchange, an event nor an XML")
    header = documents[0][1]
    return Transcript(
        qemu=_text_or_none(header.get("qemu")),
        libvirt=_text_or_none(header.get("libvirt")),
        exchanges=tuple(exchanges),
        events=tuple(events),
        xml=tuple(xml),
    )


def _object(line: str, name: str, number: int) -> dict[str, object]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTranscript(name, number, f"not JSON ({error})") from error
    if not isinstance(document, dict):
        raise BadTranscript(name, number, "not a JSON object")
    return document


def _exchange(
    document: Mapping[str, object], rest: Mapping[str, object], name: str, number: int
) -> Exchange:
    arguments = rest.get("arguments", {})
    if not isinstance(arguments, dict):
        raise BadTranscript(name, number, "the arguments are not an object")
    command = str(document["execute"])
    match rest:
        case {"error": {"class": str(error_class), "desc": str(description)}}:
            return Exchange(command=command, arguments=arguments, error=(error_class, description))
        case {"return": value}:
            return Exchange(command=command, arguments=arguments, value=value)
        case _:
            raise BadTranscript(name, number, "an exchange without a return or an error")


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


class ReplayMonitor:
    """Answers as the recorded QEMU did. It never touches a guest or a file."""

    def __init__(self, transcript: Transcript) -> None:
        """Begin at the start of the transcript."""
        self._unused = list(transcript.exchanges)
        self._used: list[Exchange] = []
        self._commands = {exchange.command for exchange in transcript.exchanges}
        self.events: SimpleQueue[Event] = SimpleQueue()
        for event in transcript.events:
            if event.name in WATCHED_EVENTS:
                self.events.put(event)

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """See `Monitor.execute`; never waits."""
        if command not in self._commands:
            raise CommandFailed(
                command, "CommandNotFound", f"The command {command} has not been found"
            )
        wanted = (command, dict(arguments or {}))
        exchange = self._next(wanted)
        if exchange is None:
            raise CommandFailed(command, "GenericError", self._why_not(*wanted))
        if exchange.error is not None:
            raise CommandFailed(command, *exchange.error)
        return exchange.value

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        """See `Monitor.execute_all`; never waits."""
        return one_by_one(self.execute, queries)

    def _next(self, wanted: tuple[str, dict[str, object]]) -> Exchange | None:
        for exchange in self._unused:
            if (exchange.command, dict(exchange.arguments)) == wanted:
                self._unused.remove(exchange)
                self._used.append(exchange)
                return exchange
        for exchange in reversed(self._used):
            if (exchange.command, dict(exchange.arguments)) == wanted:
                return exchange
        return None

    def _why_not(self, command: str, arguments: Mapping[str, object]) -> str:
        known = [
            exchange.arguments
            for exchange in (*self._unused, *self._used)
            if exchange.command == command
        ]
        for name in arguments:
            if not any(name in given for given in known):
                return f"Parameter '{name}' is unexpected"
        return "the transcript has it with other arguments only"

    def close(self) -> None:
        """Nothing is open."""


class Recorder:
    """A monitor that writes down what passes through it."""

    def __init__(
        self, monitor: Monitor, file: TextIO, *, qemu: str | None, libvirt: str | None
    ) -> None:
        """
        Begin a transcript.

        Args:
            monitor: The real one; closing it stays with the caller.
            file: Open for writing.
            qemu: Version of the QEMU.
            libvirt: Version of libvirt; None on the direct road.
        """
        self._monitor = monitor
        self._file = file
        self._write({VERSION_KEY: VERSION, "qemu": qemu, "libvirt": libvirt})

    @property
    def events(self) -> SimpleQueue[Event]:
        """The real monitor's."""
        return self._monitor.events

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """See `Monitor.execute`."""
        (reply,) = self.execute_all([(command, arguments or {})], timeout)
        if isinstance(reply, CommandFailed):
            raise reply
        return reply

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        """See `Monitor.execute_all`."""
        replies = self._monitor.execute_all(queries, timeout)
        for (command, arguments), reply in zip(queries, replies, strict=True):
            line: dict[str, object] = {"execute": command}
            if arguments:
                line["arguments"] = dict(arguments)
            if isinstance(reply, CommandFailed):
                error = {"class": reply.error_class, "desc": reply.description}
                self._write({**line, "error": error})
            else:
                self._write({**line, "return": reply})
        return replies

    def xml(self, text: str) -> None:
        """Write down a live domain XML."""
        self._write({"xml": text})

    def close(self) -> None:
        """Nothing of ours is open."""

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
