"""
The story of `qmpsnap demo`, told on any running guest: a forgery, two snapshots, two merges.

Each step shows the command that does the same, and the acts that it takes: those of its plan.

The guest's disk starts as one raw file. Into it the guest writes a qcow2 header that names a file
of somebody else, as CVE-2014-3641 and CVE-2024-32498 had it; a tool that looks into the file
believes it, and the running QEMU knows better.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Protocol

from qmpsnap import status
from qmpsnap.demo import forgery
from qmpsnap.demo.machine import DISK, SERIAL, SIZE, VOLUME, Machine
from qmpsnap.errors import Failed
from qmpsnap.formats.layers import Disk
from qmpsnap.operations import merge, outcome, snapshot
from qmpsnap.operations.forecast import Forecast, forecast_create, forecast_delete
from qmpsnap.operations.requests import CreateRequest, Method, NamedDeleteRequest
from qmpsnap.status import Operation

KIB: Final = 1024
MIB: Final = 1024 * KIB
FIRST, SECOND = "first", "second"
SECRET: Final = "not for this guest"


class ContentChanged(Failed):
    """What the guest reads is not what it wrote. This must never be seen."""

    msg = "after {self.step} the guest reads {self.found}, and should read {self.expected}"
    remedy = "This is a bug of qmpsnap or of this QEMU: please report it with this output."

    step: str
    found: str
    expected: str


class Narrator(Protocol):
    """Whoever shows the story to somebody."""

    def step(self, text: str) -> None:
        """A new step begins."""

    def say(self, text: str) -> None:
        """One sentence."""

    def command(self, words: Sequence[str], acts: Sequence[str]) -> None:
        """The command that does what comes next, and what it sends."""

    def chain(self, disk: Disk) -> None:
        """How the disk's chain is now."""

    def status(self, body: dict[str, object]) -> None:
        """What the volume service would be sent."""

    def probing(self, believed: str, disk: Disk) -> None:
        """What a probing tool believes of the base, beside what is known."""


def tell(machine: Machine, narrator: Narrator) -> None:
    """
    Tell the story on a new guest.

    Raises:
        ContentChanged: The guest reads something else than it wrote.
        QmpsnapError: An operation failed.
    """
    story = _Story(machine, narrator)
    story.write_and_forge()
    story.harm()
    story.snapshot(FIRST)
    story.write(2048, 256, 0x22)
    story.snapshot(SECOND)
    story.write(3072, 256, 0x33)
    story.write(2048, 64, 0x44)
    story.delete(
        f"delete the snapshot {FIRST}, the older one",
        FIRST,
        why=f"It is committed: what was written after it goes down into {VOLUME}. A newer snapshot "
        "rests on it, and only a commit leaves that one with its name.",
    )
    story.probe()
    story.delete(
        f"delete the snapshot {SECOND}, the last one",
        SECOND,
        "pull",
        why=f"It is pulled: what is older comes up into {VOLUME}.{SECOND}, which stays. That can be "
        "asked for because nothing else rests below. Without --method it would be a commit, which "
        "gives the volume its own file again, unless a pull moves at least 64 MiB less.",
    )


class _Story:
    def __init__(self, machine: Machine, narrator: Narrator) -> None:
        self._machine = machine
        self._guest = machine.guest
        self._narrator = narrator
        self._wrote = bytearray(SIZE)

    def write(self, kib: int, length_kib: int, pattern: int) -> None:
        self._write(kib * KIB, bytes([pattern]) * (length_kib * KIB))

    def write_and_forge(self) -> None:
        victim = self._machine.folder / "somebody-elses-file"
        victim.write_text(f"{SECRET}\n" * KIB)
        self._narrator.step(f"a guest runs; its disk is the raw file {VOLUME}")
        self.write(1024, 512, 0x11)
        header = forgery.foreign_qcow2_header(SIZE, backing=bytes(victim), data_file=None)
        self._write(0, header)
        self._narrator.say(
            "It writes data, and at the start of its disk the header of a qcow2 image "
            f"that is backed by {victim.name}."
        )
        self.probe()

    def probe(self) -> None:
        believed = forgery.what_probing_believes(self._machine.folder / VOLUME)
        self._narrator.probing(believed, self._disk())

    def harm(self) -> None:
        """What comes of believing the header, on a copy."""
        read = forgery.what_believing_reads(self._machine.folder / VOLUME)
        shows = read.startswith(SECRET.encode())
        keeps = read[MIB : MIB + KIB] == self._wrote[MIB : MIB + KIB]
        said = "On a copy, whoever acts on that belief "
        said += f'hands the guest a file of the host ("{SECRET}")' if shows else "reads zeros"
        said += "." if keeps else ", and no longer finds what the guest has written."
        self._narrator.say(said)

    def snapshot(self, name: str) -> None:
        self._narrator.step(f"take a snapshot: {VOLUME}.{name} goes on top")
        request = CreateRequest(disk=DISK, new_file=None, snapshot=name)
        self._command(forecast_create(self._guest, (request,)), "create", DISK, name)
        self._show(Operation.CREATE, snapshot.create(self._guest, request))

    def delete(self, step: str, name: str, method: Method = "auto", *, why: str) -> None:
        self._narrator.step(step)
        request = NamedDeleteRequest(disk=DISK, snapshot=name, method=method)
        asked = () if method == "auto" else ("--method", method)
        self._command((forecast_delete(self._guest, request),), "delete", DISK, name, *asked)
        self._narrator.say(why)
        self._show(Operation.DELETE, merge.delete(self._guest, request))

    def _command(self, forecasts: Sequence[Forecast], name: str, *arguments: str) -> None:
        machine = self._machine
        words = ("qmpsnap", *machine.named, name, *machine.guest_name, *arguments)
        acts = [step.what for forecast in forecasts for step in forecast.steps]
        self._narrator.command(words, acts)

    def _write(self, offset: int, data: bytes) -> None:
        self._machine.write(offset, data)
        self._wrote[offset : offset + len(data)] = data
        self._check("a write")

    def _show(self, operation: Operation, done: outcome.Result) -> None:
        self._narrator.chain(done.disk)
        self._narrator.status(status.success(operation, done.file_format))
        found = self._check(operation.value)
        self._narrator.say(f"The guest reads the same before and after: sha256 {found[:16]}…")

    def _check(self, step: str) -> str:
        """Hash what the guest reads, which must be what it wrote."""
        found, wrote = (sha256(one).hexdigest() for one in (self._machine.read(), self._wrote))
        if found != wrote:
            raise ContentChanged(step, found, wrote)
        return found

    def _disk(self) -> Disk:
        return next(disk for disk in self._guest.read().disks if disk.serial == SERIAL)
