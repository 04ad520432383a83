"""A real Linux on both roads, booted once for each; the tests stand in `test_quiesce.py`."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.guests.agent.agent import Agent, AgentSocket, DomainAgent
from qmpsnap.guests.agent.quiescer import DomainQuiescer
from qmpsnap.guests.agent.thawer import DONE, watch
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import find_domain, libvirt_module
from qmpsnap.operations.guest import Guest
from tests.rig import libvirt_machine, linux, qemu_machine
from tests.rig.disks import raw_disk
from tests.rig.rig import MIB, Said, run_cli
from tests.rig.waiting import HANG_S

AGENT = "org.qemu.guest_agent.0"
SERIALS = {"vda": "1", "vdb": "2"}

Ask = Callable[[str, Mapping[str, object], int], Any]
SOON_S = 5
"""For an agent that is asked again where it does not answer: it may not be there yet."""


@dataclass
class Linux:
    """A running Linux with two disks, `volume-1` and `volume-2` in `folder` as their bases."""

    folder: Path
    road: list[str]
    """Global options of the command line."""
    names: list[str]
    asked: Ask
    """Send a command to the guest agent, and wait so many seconds."""
    connect: Callable[[], AbstractContextManager[Guest]]
    pause: Callable[[], object]
    go_on: Callable[[], object]

    def cli(self, command: str, *arguments: str) -> Said:
        """Run the command line in this process."""
        return run_cli([*self.road, command, *self.names, *arguments])

    def ask(self, command: str, arguments: Mapping[str, object]) -> Any:
        """Send a command to an agent that is there and not frozen."""
        return self.asked(command, arguments, int(HANG_S))

    def status(self, within_s: float = HANG_S) -> str:
        """What the agent says: `thawed` or `frozen`."""
        return str(self.asked("guest-fsfreeze-status", {}, int(within_s)))

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for something in the guest; the test's own time limit ends it."""
        while True:
            with suppress(Exception):  # it boots, or its agent is busy
                if true():
                    return
            time.sleep(0.05)

    def sh(self, script: str) -> str:
        """Run a script in the guest; returns what it printed."""
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self.ask("guest-exec", arguments)["pid"]
        while True:
            state = self.ask("guest-exec-status", {"pid": pid})
            if state["exited"]:
                assert state["exitcode"] == 0, state
                return base64.b64decode(state.get("out-data", "")).decode()

    def files(self) -> list[str]:
        """Overlays and temporary files in the folder."""
        return sorted(one.name for one in self.folder.iterdir() if one.name.startswith("v"))

    def nodes(self) -> set[str]:
        """Nodes that the tool has open, and layers: none may be left that is no layer."""
        with self.connect() as host:
            guest = host.read()
        return set(guest.open_files)


def _boot_arguments(folder: Path) -> list[str]:
    boot = linux.boot()
    return [
        *("-m", "128", "-kernel", str(boot.kernel), "-initrd", str(boot.initrd)),
        *("-append", linux.COMMAND_LINE, "-serial", f"file:{folder}/serial.log"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT}"),
    ]


@contextmanager
def direct(folder: Path) -> Iterator[Linux]:
    """A QEMU of our own."""
    for number in SERIALS.values():
        linux.ext4(folder / f"volume-{number}", 16 * MIB)
    disks = [
        raw_disk(folder / f"volume-{serial}", name, serial) for name, serial in SERIALS.items()
    ]
    with qemu_machine.run(disks, directory=folder, machine_args=_boot_arguments(folder)) as guest:
        guest.qmp("cont")
        agent = str(folder / "agent")

        def ask(command: str, arguments: Mapping[str, object], timeout: int) -> Any:
            with closing(AgentSocket.connect(agent)) as connected:
                return connected.ask(command, timeout, arguments)

        @contextmanager
        def connect() -> Iterator[Guest]:
            with closing(SocketMonitor.connect(guest.qmp_path)) as monitor:
                yield QmpGuest(monitor, agent=agent)

        road = ["--qmp", guest.qmp_path, "--agent", agent]
        yield _booted(
            Linux(
                folder,
                road,
                [],
                ask,
                connect,
                lambda: guest.qmp("stop"),
                lambda: guest.qmp("cont"),
            )
        )


@contextmanager
def under_libvirt(folder: Path, connection: Any) -> Iterator[Linux]:
    """A guest of libvirt's driver in this process."""
    for number in SERIALS.values():
        linux.ext4(folder / f"volume-{number}", 16 * MIB)
    boot = linux.boot()

    def alter(domain: Any) -> None:
        domain.find("memory").text = "128"
        system = domain.find("os")
        for tag, text in (
            ("kernel", str(boot.kernel)),
            ("initrd", str(boot.initrd)),
            ("cmdline", linux.COMMAND_LINE),
        ):
            system.append(E(tag, text))
        domain.find("devices").append(E.channel(E.target(type="virtio", name=AGENT), type="unix"))

    disks = [
        libvirt_machine.LibvirtDisk(folder / f"volume-{serial}", "raw", name, serial)
        for name, serial in SERIALS.items()
    ]
    name = "linux"
    with libvirt_machine.run(connection, disks, name, directory=folder, alter=alter) as guest:
        guest.domain.resume()

        def ask(command: str, arguments: Mapping[str, object], timeout: int) -> Any:
            line = json.dumps({"execute": command, "arguments": dict(arguments)})
            text = libvirt_module("libvirt_qemu").qemuAgentCommand(guest.domain, line, timeout, 0)
            return json.loads(text)["return"]

        @contextmanager
        def connect() -> Iterator[Guest]:
            with closing(LibvirtGuest(find_domain(connection, name))) as host:
                yield host

        yield _booted(
            Linux(
                folder,
                ["--connect", connection.getURI()],
                [name],
                ask,
                connect,
                guest.domain.suspend,
                guest.domain.resume,
            )
        )


def _booted(guest: Linux) -> Linux:
    guest.wait_until(lambda: guest.status(SOON_S) == "thawed")
    return guest


@pytest.fixture(scope="module")
def direct_linux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linux]:
    """On the direct road, for all tests."""
    with direct(tmp_path_factory.mktemp("d")) as guest:
        yield guest


@pytest.fixture(scope="module")
def libvirt_linux(tmp_path_factory: pytest.TempPathFactory, connection: Any) -> Iterator[Linux]:
    """Under libvirt, for all tests."""
    with under_libvirt(tmp_path_factory.mktemp("l"), connection) as guest:
        yield guest


class InProcess:
    """
    The helper, for libvirt's driver in this process, which no other process can talk to.

    It does what the helper process does, on a thread.
    """

    def __init__(self, seconds: float, agent: Agent) -> None:
        read, self._write = os.pipe()
        self._thread = threading.Thread(target=watch, args=(seconds, read, agent))
        self._thread.start()
        self._read = read

    def release(self) -> None:
        os.write(self._write, DONE)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def leave(self) -> None:
        os.close(self._write)


@pytest.fixture(autouse=True)
def _helper_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(quiescer: Any, seconds: float) -> InProcess:
        return InProcess(seconds, DomainAgent(quiescer._domain))

    monkeypatch.setattr(DomainQuiescer, "_start_helper", start)


@pytest.fixture(params=["direct", "libvirt"])
def guest(request: pytest.FixtureRequest, borrowed: Any) -> Iterator[Linux]:
    """Each of them, thawed, with a hook that does nothing."""
    found: Linux = request.getfixturevalue(f"{request.param}_linux")
    found.sh("rm -f /run/delay /run/hooks; touch /run/hooks")
    yield found
    found.wait_until(lambda: found.status(SOON_S) == "thawed")
