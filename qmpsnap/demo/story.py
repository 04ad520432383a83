"""
The story of `qmpsnap demo`, told on any running guest: two snapshots, a forgery, two merges.

The guest's disk starts as one raw file. Into it the guest writes a qcow2 header that names a file
of somebody else, as CVE-2014-3641 and CVE-2024-32498 had it; a tool that looks into the file
believes it, and the running QEMU knows better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from qmpsnap import status
from qmpsnap.demo import images
from qmpsnap.demo.guest import Machine
from qmpsnap.errors import Failed
from qmpsnap.formats.layers import Disk
from qmpsnap.operations import merge, outcome, snapshot
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.status import Operation

KIB: Final = 1024
SIZE: Final = 8 * KIB * KIB
"""Bytes of the volume."""
DISK: Final = "vda"
SERIAL: Final = "1234"
VOLUME: Final = f"volume-{SERIAL}"
FIRST, SECOND = f"{VOLUME}.first", f"{VOLUME}.second"


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

    def chain(self, disk: Disk) -> None:
        """How the disk's chain is now."""

    def status(self, body: dict[str, object]) -> None:
        """What the volume service would be sent."""

    def probing(self, believed: str, disk: Disk) -> None:
        """What a probing tool believes of the base, beside what is known."""


def make_volume(folder: Path) -> Path:
    """Make the raw volume of the story; returns its path."""
    path = folder / VOLUME
    images.create_raw(path, SIZE)
    return path


def tell(guest: Machine, host: Guest, folder: Path, narrator: Narrator) -> None:
    """
    Tell the story on a guest whose disk `DISK` is the volume in `folder`.

    Raises:
        ContentChanged: An operation changed what the guest reads.
        QmpsnapError: An operation failed.
    """
    story = _Story(guest, host, folder, narrator)
    story.write_and_forge()
    story.snapshot(FIRST)
    guest.write(DISK, 2048 * KIB, 256 * KIB, 0x22)
    story.snapshot(SECOND)
    guest.write(DISK, 3072 * KIB, 256 * KIB, 0x33)
    guest.write(DISK, 2048 * KIB, 64 * KIB, 0x44)
    story.delete(
        f"delete the snapshot in the middle: commit {FIRST} into {VOLUME}",
        DeleteRequest(disk=SERIAL, file_to_merge=FIRST, merge_target_file=VOLUME),
    )
    story.probe()
    story.delete(
        f"delete the last snapshot: {SECOND} pulls everything below it",
        DeleteRequest(disk=SERIAL, file_to_merge=None, merge_target_file=None),
    )


class _Story:
    def __init__(self, guest: Machine, host: Guest, folder: Path, narrator: Narrator) -> None:
        self._guest = guest
        self._host = host
        self._folder = folder
        self._narrator = narrator

    def write_and_forge(self) -> None:
        victim = self._folder / "somebody-elses-file"
        victim.write_text("not for this guest\n" * KIB)
        self._narrator.step(f"a guest runs; its disk is the raw file {VOLUME}")
        self._guest.write(DISK, 1024 * KIB, 512 * KIB, 0x11)
        header = images.foreign_qcow2_header(SIZE, backing=bytes(victim), data_file=None)
        self._guest.write_bytes(DISK, 0, header)
        self._narrator.say(
            "It writes data, and at the start of its disk the header of a qcow2 image "
            f"that is backed by {victim.name}."
        )
        self.probe()

    def probe(self) -> None:
        believed = images.what_probing_believes(self._folder / VOLUME)
        self._narrator.probing(believed, self._disk())

    def snapshot(self, overlay: str) -> None:
        self._narrator.step(f"take a snapshot: {overlay} goes on top")
        before = self._guest.read_sha256(DISK)
        name = overlay.rpartition(".")[2]
        request = CreateRequest(disk=SERIAL, new_file=overlay, snapshot=name)
        done = snapshot.create(self._host, request)
        self._show(Operation.CREATE, done, before)

    def delete(self, step: str, request: DeleteRequest) -> None:
        self._narrator.step(step)
        before = self._guest.read_sha256(DISK)
        done = merge.delete(self._host, request)
        self._show(Operation.DELETE, done, before)

    def _show(self, operation: Operation, done: outcome.Result, before: str) -> None:
        self._narrator.chain(done.disk)
        self._narrator.status(status.success(operation, done.file_format))
        after = self._guest.read_sha256(DISK)
        if after != before:
            raise ContentChanged(operation.value, after, before)
        self._narrator.say(f"The guest reads the same before and after: sha256 {after[:16]}…")

    def _disk(self) -> Disk:
        return next(disk for disk in self._host.read().disks if disk.serial == SERIAL)
