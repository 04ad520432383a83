"""`demo`: the whole story on real guests, for somebody who has just met this tool."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from typing import Final

import click

from qmpsnap.cli import views
from qmpsnap.cli.command import Command
from qmpsnap.cli.output import say, screen, show_text, write
from qmpsnap.cli.text import INDENT, fold, printable
from qmpsnap.demo import machine, story
from qmpsnap.formats.layers import Disk
from qmpsnap.monitor.virt import LibvirtMissing, LibvirtUnreachable

NEXT: Final = (
    "qmpsnap doctor                      what is installed and reachable here",
    "qmpsnap guests                      the guests of libvirt, with their disks",
    "qmpsnap chain web1                  one guest: every layer, and who states its format",
    "qmpsnap create web1 vda try --plan  what a snapshot would send; nothing is done",
    "qmpsnap watch web1                  its chains and jobs, while others work on it",
    "qmpsnap verify web1                 whether all who know agree",
    "man qmpsnap                         all the rest",
)


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

    def command(self, words: Sequence[str], acts: Sequence[str]) -> None:
        self._print(f"$ {printable(shlex.join(words))}")
        self._print(f"sends: {printable(', '.join(acts))}", INDENT)

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
    with machine.directly() as direct:
        story.tell(direct, _Shown())
    write("")
    _headline("The same under libvirt (qemu:///embed)")
    write("(libvirt looks at this QEMU first; that takes some seconds)")
    roads = "both roads"
    try:
        with machine.under_libvirt() as guest:
            story.tell(guest, _Shown())
    except (LibvirtMissing, LibvirtUnreachable) as error:
        say(f"left out: {error}")
        say(error.way_out)
        roads = "the direct road"
    write("")
    write(
        f"Done on {roads} in {time.monotonic() - started:.1f} s. "
        "Every format was stated by the running QEMU; none was guessed."
    )
    write("")
    _headline("What to try next")
    show_text(lambda here: [one for line in NEXT for one in fold(line, here.width, INDENT)])
