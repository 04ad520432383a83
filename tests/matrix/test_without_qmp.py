"""Where libvirt does not let QMP through, or QEMU does not answer: the XML alone, and why."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.passthrough import MonitorBusy, PassthroughMonitor
from qmpsnap.monitor.virt import find_domain, libvirt_module, open_connection
from tests.layouts_libvirt.layout import File, Layout, Snapshot, disk
from tests.layouts_libvirt.running import Running, running
from tests.rig.processes import pid_of
from tests.rig.rig import Said
from tests.rig.waiting import HANG_S

Cli = Callable[..., Said]

_LAYOUT: Final = Layout(
    name="without-qmp",
    files=(File(name="base"),),
    disks=disk("vda", "raw", "base"),
    steps=(Snapshot("vda", "s1"),),
    truth={"vda": (("s1", "qcow2"), ("base", "raw"))},
)


@pytest.fixture
def guest(connection: Any) -> Iterator[Running]:
    """A raw disk with a snapshot."""
    with running(connection, _LAYOUT) as guest:
        yield guest


def _assert_by_xml(said: Said, reason: str) -> None:
    assert said.code == 0, said
    layers = said.json["disks"][0]["layers"]
    assert [(layer["file"], layer["format"]) for layer in layers] == [*_LAYOUT.truth["vda"]]
    assert {layer["verdict"] for layer in layers} == {"stated"}
    (note,) = said.json["notes"]
    assert reason in note


def test_a_read_only_socket(guest: Running, cli: Cli, uri: str) -> None:
    said = cli("chain", guest.domain.name(), "-o", "json", uri=f"{uri}-ro")
    _assert_by_xml(said, "read-only")


def test_a_read_only_connection(guest: Running, uri: str) -> None:
    connection = open_connection(f"{uri}-ro", read_only=True)
    host = LibvirtGuest(find_domain(connection, guest.domain.name()))
    report = host.read()
    host.close()
    connection.close()
    assert "read-only" in report.notes[0]
    assert [layer.format for layer in report.disks[0].layers] == ["qcow2", "raw"]


@contextmanager
def _stopped(guest: Running) -> Iterator[None]:
    pid = pid_of(guest.domain)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_qemu_that_is_stopped(guest: Running, cli: Cli) -> None:
    name = guest.domain.name()
    with _stopped(guest):
        _assert_by_xml(cli("chain", name, "-o", "json"), "no answer")
    said = cli("chain", name, "-o", "json")
    assert {layer["verdict"] for layer in said.json["disks"][0]["layers"]} == {"agreed"}
    assert said.json["notes"] == []


def test_a_host_asks_again_when_qemu_goes_on(guest: Running) -> None:
    host = LibvirtGuest(guest.domain)
    with _stopped(guest):
        assert host.read().notes
    assert not host.read().notes
    host.close()


@contextmanager
def _held(guest: Running, uri: str) -> Iterator[None]:
    """QEMU is stopped, and another client waits for its answer."""
    other = open_connection(uri)
    domain = find_domain(other, guest.domain.name())
    command = libvirt_module("libvirt_qemu").qemuMonitorCommand
    request = '{"execute": "query-status"}'
    holds = threading.Thread(target=command, args=(domain, request, 0), daemon=True)
    with _stopped(guest):
        holds.start()
        holds.join(1)
        assert holds.is_alive()
        yield
    holds.join(HANG_S)
    assert not holds.is_alive()
    other.close()


def test_another_client_holds_the_monitor(guest: Running, cli: Cli, uri: str) -> None:
    with _held(guest, uri):
        _assert_by_xml(cli("chain", guest.domain.name(), "-o", "json"), "no answer")


def test_libvirt_itself_gives_up_after_30_s(guest: Running, uri: str) -> None:
    monitor = PassthroughMonitor(guest.domain)
    with _held(guest, uri), pytest.raises(MonitorBusy, match="another command holds"):
        monitor.execute("query-status", timeout=60)
