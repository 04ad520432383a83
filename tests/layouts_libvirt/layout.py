"""
What a layout of a libvirt guest is: files, the XML of its disks, steps, and the truth about it.

Everything is written as if the folder were `/share` and the loop device `/dev/loop0`;
`running.py` puts the real ones in, and `tests/rig/fixtures.py` takes them out again. The truth
is written by hand, from what the files were made as and how libvirt was told to open them, never
from what the tool says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

SHARE: Final = "/share"
LOOP: Final = "/dev/loop0"
MIB: Final = 1024 * 1024
SECRET: Final = "5ec2e700-5ec2-4e70-85ec-2e705ec2e700"
"""UUID of the libvirt secret that opens encrypted files."""

Truth = Mapping[str, tuple[tuple[str, str], ...]]
"""By disk, active layer first: the file's name and its format. A name that ends in a colon is a
protocol, where there is no file of this host."""


@dataclass(frozen=True, slots=True)
class File:
    """An image that `qemu-img` makes, with an explicit format."""

    name: str
    format: str = "raw"
    backing: str | None = None
    """As it is to stand in the header; it is not opened."""
    backing_format: str = "raw"
    """What the header is to say, true or not."""
    options: str | None = None
    """For `-o`."""
    size: int = MIB
    filled: bool = False
    """Full of bytes that are no zeros, so that a job has something to copy."""


@dataclass(frozen=True, slots=True)
class Forged:
    """A raw file whose bytes begin like a qcow2 image over a file of the host."""

    name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`virDomainSnapshotCreateXML`: an overlay `file` on `disk`, made by libvirt."""

    disk: str
    file: str
    reuse: bool = False
    """The overlay is one of the layout's files."""


@dataclass(frozen=True, slots=True)
class Copy:
    """`virDomainBlockCopy` to a file that libvirt makes."""

    disk: str
    file: str
    format: str
    held: bool = False
    """So slow that it stays as it is; the same below."""


@dataclass(frozen=True, slots=True)
class Commit:
    """`virDomainBlockCommit` of the layer `top` into `base`, counted from the active one, 0."""

    disk: str
    top: int
    base: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """`virDomainBlockRebase` on the layer `base`, or `virDomainBlockPull`."""

    disk: str
    base: int | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """`virDomainBlockJobAbort`; pivots when told so."""

    disk: str
    pivot: bool = False


@dataclass(frozen=True, slots=True)
class Until:
    """Wait until the job of a disk is there and holds, is ready, or is over in the XML too."""

    disk: str
    state: Literal["running", "ready", "over"]


@dataclass(frozen=True, slots=True)
class BehindLibvirt:
    """A snapshot by QMP, of which libvirt knows nothing; the overlay is one of the files."""

    disk: str
    file: str
    base: str
    """Name of the active layer's file."""


Step = Snapshot | Copy | Commit | Pull | Abort | Until | BehindLibvirt


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One guest of libvirt whose report is known by hand."""

    name: str
    disks: str
    """XML of the disks, and of what else belongs into `<devices>`."""
    truth: Truth
    files: tuple[File | Forged, ...] = ()
    domain: str = ""
    """XML beside `<devices>`."""
    nbd: str | None = None
    """Raw file that a qemu-nbd serves on `/share/nbd.sock`."""
    loop: str | None = None
    """File that stands behind LOOP."""
    steps: tuple[Step, ...] = ()
    since: int = 0
    """First version of libvirt that has it, as `virConnectGetLibVersion` counts."""
    encrypted: bool = False
    """Needs a secret of libvirt."""
    differs: str | None = None
    """File of which QEMU's chain has it, and libvirt's has not."""
    conflict: frozenset[str] = frozenset()
    """Files on whose format the witnesses contradict each other."""
    by_xml: bool = False
    """On QEMU 6 to 9 it cannot be read through QMP without danger; so there is nothing to record."""
    wrong: tuple[int, str] | None = None
    """What the product gets wrong, and from which version of libvirt on."""


def disk(
    target: str,
    format: str | None,
    file: str,
    *,
    driver: str = "",
    inner: str = "",
    source: str = "",
    bus: str = "virtio",
) -> str:
    """
    Write a `<disk>` over a file.

    Args:
        target: Its name in the guest.
        format: For `<driver type>`; None leaves that out.
        file: Name in `/share`.
        driver: More attributes of `<driver>`.
        inner: More elements.
        source: What goes into `<source>`.
        bus: Where it is plugged in.
    """
    kind = f" type='{format}'" if format else ""
    return (
        f"<disk type='file'><driver name='qemu'{kind} {driver}/>"
        f"<source file='{SHARE}/{file}'>{source}</source>"
        f"<target dev='{target}' bus='{bus}'/>{inner}</disk>"
    )
