"""
What a layout is: files, a QEMU over them, commands, and the truth about it.

Everything is written as if the folder were `/share`, the loop device `/dev/loop0` and the web
server `127.0.0.1:8080`; `running.py` puts the real ones in, and `tests/rig/fixtures.py` takes
them out again. The truth is written by hand, from what the files were made as and how QEMU was
told to open them, never from what the tool says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MIB: Final = 1024 * 1024
SHARE: Final = "/share"
LOOP: Final = "/dev/loop0"
WEB: Final = "127.0.0.1:8080"

Json = Mapping[str, object]
Truth = Mapping[str, tuple[tuple[str, str | None], ...]]
"""By disk, active layer first: the file's name and its format. A name that ends in a colon is a
protocol, where there is no file of this host or QEMU cannot know its name; `?` where several
nodes stand in one layer's place, and there is no single truth."""
Flags = Mapping[str, frozenset[str]]
"""By flag, the files that have it: of `encrypted`, `data-file` and `slice`, which follow from
what the files were made as and how they are opened."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file that `qemu-img create` makes, with an explicit format."""

    name: str
    format: str
    backing: str | None = None
    """As it is to stand in the header."""
    backing_format: str | None = None
    size: int = MIB
    options: str | None = None
    """For `-o`."""
    object: str | None = None
    """For `--object`: the secret of an encrypted one."""
    also: tuple[str, ...] = ()
    """Names of the other files that this makes."""
    forgets_format: bool = False
    """Take the backing format out of the header again, as old tools left it out."""


@dataclass(frozen=True, slots=True)
class Filled:
    """
    A file of bytes that are no zeros: a raw disk with something to copy.

    As a qcow2 it gets them by `qemu-img convert`, over `backing` when that is given.
    """

    name: str
    format: Literal["raw", "qcow2"] = "raw"
    size: int = MIB
    backing: str | None = None
    backing_format: str = "raw"


@dataclass(frozen=True, slots=True)
class Chain:
    """A raw `layer-000`, and `depth - 1` empty qcow2 files over it, named alike."""

    depth: int


@dataclass(frozen=True, slots=True)
class Forged:
    """A raw file whose bytes begin like an image of another format over a file of the host."""

    name: str
    backing: str


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A qcow2 whose first guest cluster is said to lie on its own header."""

    name: str


File = Image | Filled | Chain | Forged | Corrupt


@dataclass(frozen=True, slots=True)
class NbdServer:
    """A qemu-nbd on `/share/nbd.sock`."""

    file: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServer:
    """A web server of the folder, on WEB."""

    tls: bool = False


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """The file as a block device, LOOP."""

    file: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The open file handed to QEMU as `/dev/fdset/1`."""

    file: str


Helper = NbdServer | WebServer | LoopDevice | Descriptor


@dataclass(frozen=True, slots=True)
class Do:
    """A QMP command."""

    command: str
    arguments: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Until:
    """Wait until a job has this status; None: until QEMU has forgotten it."""

    job: str
    status: str | None


Step = Do | Until


@dataclass(frozen=True, slots=True)
class Layout:
    """One way for a guest to have its disks."""

    name: str
    about: str
    """One line, for the table in the documentation."""
    files: tuple[File, ...] = ()
    helpers: tuple[Helper, ...] = ()
    arguments: tuple[str | Json, ...] = ()
    """Of QEMU, after the machine; an object stands for `-blockdev` and itself as JSON."""
    then: tuple[Step, ...] = ()
    drivers: tuple[str, ...] = ()
    """Drivers that not every QEMU from 5.2 on has."""
    commands: tuple[str, ...] = ()
    """Commands, or `command.argument`, that not every QEMU has."""
    truth: Truth = field(kw_only=True)
    flags: Flags = field(default_factory=dict)
    is_recorded: bool = True
    """False where the recording would be too large to keep."""
    wrong: str | None = None
    """What the tool says wrong; the test then must fail."""


def dashed(options: Json) -> Json:
    """Spell keys as QAPI does."""
    return {key.replace("_", "-"): value for key, value in options.items()}


def do(command: str, given: Json | None = None, **arguments: object) -> Do:
    """Send a QMP command."""
    return Do(command, dashed({**(given or {}), **arguments}))


def file(name: str, node: str | None = None, **options: object) -> Json:
    """Describe a protocol node over a file; named after it."""
    return {
        "driver": "file",
        "node-name": node or f"{name}-file",
        "filename": f"{SHARE}/{name}",
        **dashed(options),
    }


def opened(format: str, name: str, **options: object) -> Json:
    """Describe a format node called as its file, over a protocol node `NAME-file`."""
    below = {"read_only": True} if options.get("read_only") is True else {}
    return {
        "driver": format,
        "node-name": name,
        "file": {**file(name), **dashed(below)},
        **dashed(options),
    }


def base(format: str, name: str, **options: object) -> Json:
    """Describe what lies below another layer: read-only, until a commit writes it."""
    lazy = {"auto_read_only": True}
    return {
        "driver": format,
        "node-name": name,
        "file": {**file(name), **dashed(lazy)},
        **dashed({**lazy, **options}),
    }


def disk(node: str, id: str = "vda", **options: object) -> tuple[str, str]:
    """Attach a node, or the drive of that id, as a virtio disk."""
    more = "".join(f",{key}={value}" for key, value in options.items())
    return ("-device", f"virtio-blk-pci,id={id},drive={node}{more}")
