"""
What the header of a layer must say of the layer below it, and whether it does. Pure.

The running graph is right by definition; the header is what the next start believes.
"""

from __future__ import annotations

import os.path

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.operations.names import folder_of, spellings, tidy


def fault(above: Layer, below: Layer, name: str) -> str | None:
    """
    Say what is wrong in the header of `above`, in words; None when all is well.

    Args:
        above: As it was read just now.
        below: What QEMU reads below it.
        name: What the header should name. Another spelling that leads to the same file is as
            good, as long as a relative name is still relative.
    """
    written = above.backing_name
    if written is None:
        return "it names no backing file, or cannot be read"
    if written != name and not (_leads_to(written, above, below) and _alike(written, name)):
        return f"it names {written!r}, not {name!r}"
    if above.backing_format is None:
        return "it records no backing format"
    if above.backing_format != below.format:
        return f"it records the format {above.backing_format!r}, not {below.format!r}"
    if below.verdict is Verdict.CONFLICT:
        said = ", ".join(f"{one.witness} says {one.format}" for one in below.evidence)
        return f"it names {below.file}, of which {said}"
    return None


def fault_before(above: Layer, below: Layer) -> str | None:
    """
    Say what is wrong in a header that nobody has touched yet; None when it is to be left alone.

    Only the format counts. Who has put another name there may have meant it: a chain that moves
    before the next start is prepared in this way.
    """
    written = above.backing_name
    if written is None or not _leads_to(written, above, below):
        return None
    return fault(above, below, written)


def name_kept(above: Layer, below: Layer, otherwise: str) -> str:
    """The name that is there, where it leads to the right file; otherwise another one."""
    written = above.backing_name
    return written if written is not None and _leads_to(written, above, below) else otherwise


def _alike(written: str, name: str) -> bool:
    return written.startswith("/") == name.startswith("/")


def _leads_to(name: str, above: Layer, below: Layer) -> bool:
    """Compared as text: what a header names is not looked up."""
    if ":" in name.partition("/")[0]:
        return False  # an address for QEMU, not a file
    folders = os.path.dirname(above.path or ""), folder_of(above)
    return any(tidy(os.path.join(folder, name)) in spellings(below) for folder in folders)


class HeaderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Have one header of a running chain written again; nothing is merged."""

    disk: Disk
    top: Layer
    """The layer whose header is wrong."""
    base: Layer
    """The very next layer."""
    name: str
    """What the header is to name."""


def rewrite(disk: Disk, above: Layer, below: Layer, name: str) -> HeaderPlan:
    """
    Plan to have a header written again: by a pull down to the very next layer.

    It copies nothing (stream_run(), block/stream.c, returns at once when there is nothing between)
    and ends as every pull does, with name and format of the backing file written into the header
    (stream_prepare()). `change-backing-file` is no way: it records the format of the overlay.

    Args:
        disk: As it was read just now.
        above: The layer whose header is wrong.
        below: The next one.
        name: What the header is to name.
    """
    place = disk.layers.index(above)
    assert disk.layers[place + 1] == below  # with a layer between, it would copy that one's data
    return HeaderPlan(disk=disk, top=above, base=below, name=name)


def wrong_active(layers: tuple[Layer, ...], disk: Disk) -> HeaderPlan | None:
    """
    Plan to mend the header of what is, or becomes, the active layer; None when it is well.

    Args:
        layers: The chain with that layer at its top.
        disk: The disk that it belongs to.
    """
    if len(layers) < 2 or fault_before(layers[0], layers[1]) is None:
        return None
    disk, name = replace(disk, layers=layers), layers[0].backing_name
    assert name is not None  # else there is no fault to be mended
    return rewrite(disk, layers[0], layers[1], name)
