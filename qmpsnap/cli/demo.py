"""`demo`: the whole story on real guests, for somebody who has just met this tool."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click

from qmpsnap.cli import views
from qmpsnap.cli.command import Command
from qmpsnap.cli.output import say, screen, show_text, write
from qmpsnap.cli.text import INDENT, fold, printable
from qmpsnap.demo import libvirt_guest, qemu_guest, story
from qmpsnap.demo.disks import raw_disk
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import LibvirtMissing, LibvirtUnreachable


class _Shown:
    """Tells the story on stdout."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self, text: str) -> None:
        self._steps += 1
        write("")
        _headline(f"{self._steps}. {printable(text)}")

    def say(self, text: str) -> None:
        self._print(printable(text))

    def chain(self, disk: Disk) -> None:
        show_text(lambda here: views.chain((disk,), here))

    def status(self, body: dict[str, object]) -> None:
        self._print("To the volume service: " + printable(json.dumps(body)))

    def probing(self, believed: str, disk: Disk) -> None:
        base = disk.layers[-1]
        witnesses = views.witnesses(base)
        self._print(f"a tool that looks into the file believes: {printable(believed)}", INDENT)
        self._print(f"qmpsnap knows: {base.format} (by {witnesses})", INDENT)

    def _print(self, text: str, indent: str = "") -> None:
        show_text(lambda here: fold(text, here.width, indent))


def _headline(text: str) -> None:
    write(screen().paint(text, "bold"))


@click.command(cls=Command, examples=("demo",))
def demo() -> None:
    """
    Show the whole story on a real QEMU: create, write, forge, delete, each step shown.

    Starts throw-away guests of its own in a temporary folder; needs no root. The second half runs
    the same under libvirt, inside this process, where libvirt is installed.
    """
    started = time.monotonic()
    _headline("On QEMU's own QMP socket")
    _directly()
    write("")
    _headline("The same under libvirt (qemu:///embed)")
    both = _under_libvirt()
    write("")
    roads = "both roads" if both else "the direct road"
    write(
        f"Done on {roads} in {time.monotonic() - started:.1f} s. "
        "Every format was stated by the running QEMU; none was guessed."
    )


def _directly() -> None:
    with tempfile.TemporaryDirectory(prefix="qmpsnap-demo-") as name:
        folder = Path(name)
        disk = raw_disk(story.make_volume(folder), story.DISK, story.SERIAL)
        with qemu_guest.run([disk], directory=folder) as guest:
            monitor = SocketMonitor.connect(guest.qmp_path)
            try:
                story.tell(guest, QmpGuest(monitor), folder, _Shown())
            finally:
                monitor.close()


def _under_libvirt() -> bool:
    """Tell the story again; False, and why, where there is no libvirt."""
    # Two folders: libvirt's own must have a short path without blanks, and outlive the guest.
    with (
        tempfile.TemporaryDirectory(prefix="qmpsnap-demo-") as name,
        tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp", ignore_cleanup_errors=True) as root,
    ):
        folder = Path(name)
        disk = libvirt_guest.LibvirtDisk(story.make_volume(folder), "raw", story.DISK, story.SERIAL)
        try:
            with libvirt_guest.embedded_connection(root) as connection:
                write("(libvirt looks at this QEMU first; that takes some seconds)")
                with libvirt_guest.run(connection, [disk], "demo", folder) as guest:
                    host = LibvirtGuest(guest.domain)
                    try:
                        story.tell(guest, host, folder, _Shown())
                    finally:
                        host.close()
        except (LibvirtMissing, LibvirtUnreachable) as error:
            say(f"left out: {error}")
            say(error.way_out)
            return False
    return True
