"""Record what one reading of a guest asks and hears, for `--replay` and for bug reports."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TextIO

from qmpsnap.graph import xml
from qmpsnap.guests.libvirt.guest import stays_small
from qmpsnap.guests.reader import MAX_STALL_S, Reader
from qmpsnap.monitor.base import CommandFailed, Monitor, reading
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.transcript import Recorder


def record_socket(
    monitor: Monitor, file: TextIO, *, max_stall_s: float | None = MAX_STALL_S
) -> None:
    """
    Record a guest on its QMP socket.

    Raises:
        GuestWouldStall, LostWhileReading, TornReading, MalformedReply, CommandFailed: It could not be read.
    """
    with reading():
        recorder = Recorder(monitor, file, qemu=_version(monitor), libvirt=None)
        _record_schema(recorder)
        reader = Reader(recorder, max_stall_s=max_stall_s)
        reader.details(reader.read())


def record_domain(domain: Any, file: TextIO, *, max_stall_s: float | None = MAX_STALL_S) -> None:
    """
    Record a guest of libvirt: its live XML, and QMP through passthrough.

    Raises:
        PassthroughOff, GuestNotRunning, GuestWouldStall, LostWhileReading, TornReading,
        MalformedXml, MalformedReply, CommandFailed: It could not be read.
    """
    monitor = PassthroughMonitor(domain)
    with reading():
        number = domain.connect().getLibVersion()
        libvirt = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
        recorder = Recorder(monitor, file, qemu=_version(monitor), libvirt=libvirt)
        text = domain.XMLDesc(0)
        recorder.xml(text)
        _record_schema(recorder)
        Reader(recorder, max_stall_s=max_stall_s).read(nested_ok=stays_small(xml.parse(text)))


def _record_schema(recorder: Recorder) -> None:
    """No reading needs it; whoever looks into a bug may."""
    with suppress(CommandFailed):
        recorder.execute("query-qmp-schema")


def _version(monitor: Monitor) -> str | None:
    match monitor.execute("query-version"):
        case {"qemu": {"major": int(major), "minor": int(minor), "micro": int(micro)}}:
            return f"{major}.{minor}.{micro}"
        case _:
            return None
