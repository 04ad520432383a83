"""
A guest in each state that QEMU knows, on each road.

Nothing runs in these guests but the BIOS and, where they are to write, a boot sector. What a guest
would do otherwise (crash, sleep, switch itself off, forget its watchdog) is done to its ports from
outside, by QEMU's qtest protocol (softmmu/qtest.c).

By QMP, `prelaunch` is the state of the guests of all other tests; `internal-error` needs KVM or a
device that fails, `colo` a second QEMU, and in `save-vm` and `restore-vm` QEMU answers nobody: for
these, tests/unit/test_run_state.py. libvirt ends a QEMU whose guest has shut down, so there is no
`shutdown`; and `paused` is the state of its guests in all other tests.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX
from tempfile import TemporaryDirectory
from typing import Any

from lxml.builder import E, ElementMaker  # type: ignore[import-not-found]

from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import direct_rig, libvirt_rig
from tests.rig.waiting import until

SIZE = 2 * 1024 * 1024
WRITTEN_SECTOR = 2048
_BOOT = (
    (
        bytes.fromhex("31c0 8ed8")  # xor ax,ax; mov ds,ax
        + bytes.fromhex("b80043 be207c cd13")  # ax=4300h, extended write; si=packet; int 13h
        + bytes.fromhex("f4 ebfd")  # for ever: hlt
    ).ljust(0x20, b"\0")
    + bytes.fromhex("1000 0100 007c 0000")
    + WRITTEN_SECTOR.to_bytes(8, "little")
)
BOOT_SECTOR = _BOOT.ljust(510, b"\0") + b"\x55\xaa"
"""Writes itself to a sector of the disk that it was booted from, once, and rests."""


class Ports:
    """The ports of a guest, by its qtest socket."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    @property
    def arguments(self) -> list[str]:
        """For QEMU. Without a log of its own it would write to the guest's."""
        return ["-qtest", f"unix:{self._path},server=on,wait=off", "-qtest-log", "/dev/null"]

    def write(self, *commands: str) -> None:
        """Do `outb PORT VALUE`, `outw …` or `outl …`, one after the other."""
        with closing(socket.socket(AF_UNIX)) as connected:
            connected.connect(self._path)
            with connected.makefile("rw") as lines:
                for command in commands:
                    print(command, file=lines, flush=True)
                    while (answer := lines.readline().strip()).startswith("IRQ"):
                        pass
                    assert answer == "OK", answer


CRASH = ("outb 0x505 1",)
"""pvpanic; docs/specs/pvpanic.txt."""
HANG = ("outb 0x443 0xf",)
"""ib700, zero seconds; hw/watchdog/wdt_ib700.c."""
_PM = ("outl 0xcf8 0x80000b40", "outl 0xcfc 0x601", "outl 0xcf8 0x80000b80", "outb 0xcfc 1")
"""Ports 0x600 on for power management, as the BIOS does it by and by; hw/acpi/piix4.c."""
SLEEP = ("outw 0x604 0x2400",)
SWITCH_OFF = ("outw 0x604 0x2000",)


@dataclass
class Steered:
    """A guest and what can be done to it."""

    rig: Rig
    ports: Ports
    go_on: Callable[[], object]
    pause: Callable[[], object]
    end: Callable[[], object]
    """End QEMU as the road does it."""

    def word(self) -> str | None:
        """The state, by the tool's own road."""
        with self.rig.host() as host:
            return host.state().run

    def power(self, what: tuple[str, ...]) -> None:
        """Sleep or switch off, whatever the BIOS is at; it does not run meanwhile."""
        self.pause()
        self.ports.write(*_PM)
        self.go_on()
        self.ports.write(*what)

    def reach(self, state: str) -> None:
        """Bring a new guest into a state, and see that it is there."""
        self.go_on()
        if state == "paused":
            self.pause()
        elif state == "suspended":
            self.power(SLEEP)
        elif state == "guest-panicked":
            self.ports.write(*CRASH)
        elif state == "watchdog":
            self.ports.write(*HANG)
        elif state == "shutdown":
            self.rig.guest.qmp("system_reset")  # with -no-reboot
        until(lambda: self.word() == state)


MakeMachine = Callable[..., AbstractContextManager[Steered]]
CHAIN = ((f"{BASE}.s2", "qcow2"), (f"{BASE}.s1", "qcow2"), (BASE, "raw"))


def make_files(folder: Path, state: str) -> tuple[tuple[str, str], ...]:
    """Make the files of a guest that is to be brought into a state; returns its chain."""
    images.create_raw(folder / BASE, SIZE)
    if state == "booting":
        with (folder / BASE).open("r+b") as file:
            file.write(BOOT_SECTOR)
    if state != "away":
        return CHAIN[2:]
    images.create_qcow2(folder / f"{BASE}.s1", SIZE, BASE, "raw")
    images.create_qcow2(folder / f"{BASE}.s2", SIZE, f"{BASE}.s1", "qcow2")
    return CHAIN


def migrate_away(rig: Rig, to: Path) -> None:
    """
    Give the guest to a file; its images are the file's from then on.

    Not by `exec:`, which libvirt's sandbox does not let QEMU do.
    """
    with TemporaryDirectory(prefix="qs-", dir="/tmp") as folder, socket.socket(AF_UNIX) as listener:
        listener.bind(f"{folder}/to")
        listener.listen()
        rig.guest.qmp("migrate", {"uri": f"unix:{folder}/to"})
        connected, _ = listener.accept()
        with connected, connected.makefile("rb") as coming, to.open("wb") as file:
            shutil.copyfileobj(coming, file)
        until(lambda: state_of(rig) == "postmigrate")


def state_of(rig: Rig) -> str:
    """QEMU's own word."""
    status = rig.guest.qmp("query-status")
    assert isinstance(status, dict)
    return str(status["status"])


_DEVICES = {
    "guest-panicked": ["-device", "pvpanic", "-action", "panic=pause"],
    "watchdog": ["-device", "ib700", "-action", "watchdog=pause"],
    "suspended": ["-global", "PIIX4_PM.disable_s3=0"],
    "shutdown": ["-no-reboot", "-no-shutdown"],
}
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


def direct_machines(share: Path) -> MakeMachine:
    """Make guests on their own QMP sockets."""

    @contextmanager
    def make(state: str, *arguments: str) -> Iterator[Steered]:
        share.mkdir(exist_ok=True)
        files = [(share / name, format_) for name, format_ in make_files(share, state)]
        with _ports() as ports:
            disk = qcow2_chain(files, DISK, SERIAL)
            machine_args = [*_DEVICES.get(state, []), *arguments, *ports.arguments]
            with direct_rig(share, disk, machine_args) as rig:
                rig.road += ["--agent", str(share / "nobody")]
                yield Steered(
                    rig=rig,
                    ports=ports,
                    go_on=lambda: rig.guest.qmp("cont"),
                    pause=lambda: rig.guest.qmp("stop"),
                    end=lambda: rig.guest.quit(),  # type: ignore[attr-defined]
                )

    return make


def libvirt_machines(connection: Any, share: Path) -> MakeMachine:
    """Make guests of libvirt."""

    @contextmanager
    def make(state: str, *arguments: str) -> Iterator[Steered]:
        share.mkdir(exist_ok=True)
        active, format_ = make_files(share, state)[0]
        with _ports() as ports:

            def alter(domain: Any) -> None:
                _alter(domain, state, [*arguments, *ports.arguments])

            with libvirt_rig(connection, share, format_, file=active, alter=alter) as rig:
                assert isinstance(rig.guest, LibvirtMachine)
                domain = rig.guest.domain
                yield Steered(
                    rig=rig,
                    ports=ports,
                    go_on=domain.resume,
                    pause=domain.suspend,
                    end=domain.destroy,
                )

    return make


@contextmanager
def _ports() -> Iterator[Ports]:
    """In a folder of its own: the path of a socket has at most 107 bytes."""
    with TemporaryDirectory(prefix="qs-", dir="/tmp") as folder:
        yield Ports(Path(folder, "qtest"))


def _alter(domain: Any, state: str, arguments: list[str]) -> None:
    devices = domain.find("devices")
    domain.append(E.features(E.acpi()))  # without it libvirt leaves power management out
    if state == "guest-panicked":
        devices.append(E.panic(model="isa"))
        domain.append(E.on_crash("preserve"))
    if state == "watchdog":
        devices.append(E.watchdog(model="ib700", action="pause"))
    if state == "suspended":
        domain.append(E.pm(E("suspend-to-mem", enabled="yes")))
    qemu = ElementMaker(namespace=_QEMU, nsmap={"qemu": _QEMU})
    domain.append(qemu.commandline(*(qemu.arg(value=one) for one in arguments)))
