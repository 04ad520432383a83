"""What the disks of a guest must hold, layer by layer: kept beside the guest, never read from it."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from qmpsnap.guests.files import qemu_img
from tests.rig import images

SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Written:
    """A write that the guest has asked for."""

    offset: int
    length: int
    pattern: int


@dataclass(frozen=True, slots=True)
class Content:
    """What something reads as, where some writes may have come too late for it."""

    sure: bytes
    perhaps: tuple[Written, ...] = ()

    def explains(self, seen: bytes) -> bool:
        """Tell whether each sector is the sure one, or one that a later write has made of it."""
        if len(seen) != len(self.sure):
            return False
        for start in range(0, len(seen), SECTOR):
            sector = seen[start : start + SECTOR]
            if sector == self.sure[start : start + SECTOR]:
                continue
            if len(set(sector)) != 1 or not any(
                one.pattern == sector[0] and one.offset <= start < one.offset + one.length
                for one in self.perhaps
            ):
                return False
        return True


@dataclass(slots=True)
class Layer:
    """One file of a chain."""

    file: str
    format: str
    content: Content | None
    """What it reads as, with all below it. None when a merge into it was broken off: it then holds
    a part of what lies above. Of the active layer the disk's own content counts."""


@dataclass(slots=True)
class Disk:
    """A disk: its chain, active layer first, and what the guest sees."""

    id: str
    serial: str
    folder: Path
    layers: list[Layer]
    content: bytearray
    raw_node: bool = True
    """Whether QEMU has a raw node over a raw base."""
    made: int = 0
    """Snapshots taken so far; numbers their names."""
    unflushed: list[Written] = field(default_factory=list)
    """What was asked for since the last flush, or may not have succeeded."""
    flushed: bytes = b""
    """What the guest saw at the last flush."""

    @property
    def files(self) -> list[str]:
        """Bare names, active layer first."""
        return [layer.file for layer in self.layers]

    @property
    def active(self) -> Layer:
        """The layer that the guest writes to."""
        return self.layers[0]

    def path(self, file: str) -> Path:
        """Where a layer lies."""
        return self.folder / file

    def next_name(self) -> str:
        """A name that no snapshot of this disk has had."""
        self.made += 1
        return f"s{self.made}"

    def on_disk(self) -> None:
        """Note a flush: nothing that was written before may be lost from now on."""
        self.flushed = bytes(self.content)
        self.unflushed.clear()

    def put_on(self, file: str, frozen: Content | None = None) -> None:
        """Note that `file` has become the active layer; the one before has `frozen` for ever."""
        self.active.content = frozen or Content(bytes(self.content))
        self.layers.insert(0, Layer(file, "qcow2", None))

    def back_to(self, file: str, layer: int) -> None:
        """Note that `file` has become the active layer, over an older one; what lay above is kept."""
        held = self.layers[layer].content
        assert held is not None
        self.layers[:layer] = [Layer(file, "qcow2", None)]
        self.content[:] = held.sure
        self.on_disk()

    def merged(self, top: int, base: int) -> None:
        """Note a commit of layer `top` into layer `base`."""
        self.layers[base].content = self.layers[top].content
        del self.layers[top:base]

    def pulled(self, base: int | None) -> None:
        """Note a pull into the active layer down to layer `base`; None for the whole chain."""
        del self.layers[1 : len(self.layers) if base is None else base]

    def spoiled(self, top: int, base: int) -> None:
        """Note a commit that was broken off: the layers below `top` hold a part of its data."""
        for layer in self.layers[top + 1 : base + 1]:
            layer.content = None

    @property
    def after_a_crash(self) -> Content:
        """What the disk may read as when QEMU is killed now."""
        return Content(self.flushed, tuple(self.unflushed))


def difference(seen: bytes, expected: bytes) -> str:
    """The first sectors that differ, in words; empty when none does."""
    if seen == expected:
        return ""
    if len(seen) != len(expected):
        return f"{len(seen)} bytes instead of {len(expected)}"
    wrong = [
        start
        for start in range(0, len(seen), SECTOR)
        if seen[start : start + SECTOR] != expected[start : start + SECTOR]
    ]
    some = ", ".join(f"{start}: {seen[start]} not {expected[start]}" for start in wrong[:5])
    return f"{len(wrong)} sectors differ ({some})"


def read_file(path: Path, format: str) -> bytes:
    """What a layer reads as with all below it, by its header, while no guest has it open."""
    with images.raw_copy(str(path), format, Path(tempfile.gettempdir())) as copy:
        return copy.read_bytes()


def read_chain(layers: Sequence[tuple[Path, str]]) -> bytes:
    """What a chain reads as, every file and format of it given, active layer first."""
    tree: object = None
    for path, format in reversed(layers):
        node: dict[str, object] = {"driver": format}
        node["file"] = {"driver": "file", "filename": str(path)}
        tree = node if format == "raw" else {**node, "backing": tree}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "raw")
        source = f"json:{json.dumps(tree)}"
        subprocess.run(["qemu-img", "convert", "-O", "raw", source, str(copy)], check=True)
        return copy.read_bytes()


def build(
    folder: Path,
    number: int,
    *,
    depth: int,
    base: str,
    size: int,
    chance: random.Random,
    raw_node: bool = True,
    first: str | None = None,
) -> Disk:
    """
    Make the files of a disk, with some data in each.

    Args:
        folder: Where.
        number: Of the disk, from 0.
        depth: Layers.
        base: Format of the lowest.
        size: Bytes; a multiple of 64 KiB.
        chance: Where the data goes.
        raw_node: See `Disk`.
        first: Name of the lowest file; default is Cinder's.
    """
    serial = f"{number + 1}"
    disk = Disk(
        id=f"vd{'abc'[number]}",
        serial=serial,
        folder=folder,
        layers=[Layer(first or f"volume-{serial}", base, None)],
        content=bytearray(size),
        raw_node=raw_node,
    )
    path = disk.path(disk.active.file)
    if base == "raw":
        images.create_raw(path, size)
    else:
        images.create_qcow2(path, size)
    _fill(disk, chance)
    for _ in range(depth - 1):
        below = disk.active
        disk.put_on(f"volume-{serial}.{disk.next_name()}")
        images.create_qcow2(disk.path(disk.active.file), size, below.file, below.format)
        _fill(disk, chance)
    disk.on_disk()
    return disk


def _fill(disk: Disk, chance: random.Random) -> None:
    commands = []
    for _ in range(4):
        length = 4096 * chance.randint(1, 24)
        offset = SECTOR * chance.randrange((len(disk.content) - length) // SECTOR)
        pattern = chance.randint(1, 255)
        disk.content[offset : offset + length] = bytes([pattern]) * length
        commands.append(f"write -P {pattern} {offset} {length}")
    write_offline(disk.path(disk.active.file), disk.active.format, commands)


def write_offline(path: Path, format: str, commands: Sequence[str]) -> None:
    """Give commands of `qemu-io` for an image that no guest has open."""
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        ["qemu-io", "-f", format, *words, str(path)], check=True, capture_output=True, text=True
    )


class _Info(msgspec.Struct, rename="kebab"):
    filename: str
    format: str
    backing_filename_format: str | None = None


def by_headers(path: Path, format: str) -> list[tuple[str, str]]:
    """
    List a chain as the headers have it, which is what the next start opens.

    Returns:
        Bare name and format of each layer; the format as the header above says it, and as it
        was opened with.
    """
    said = qemu_img.run(
        "info", str(path), "-U", "-f", format, "--backing-chain", "--output=json", str(path)
    )
    layers = msgspec.json.decode(said, type=list[_Info])
    stated = [format, *(layer.backing_filename_format for layer in layers[:-1])]
    assert stated == [layer.format for layer in layers], f"a header states no format: {layers}"
    return [(Path(layer.filename).name, layer.format) for layer in layers]
