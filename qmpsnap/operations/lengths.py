"""
Whether a merge keeps what is read where layers differ in length. Pure.

A layer ends what is read through it: beyond its end a longer layer above reads zeros, whatever lies
below. When the shorter one leaves the chain, that end goes with it:

    above  ──────────────        reads zeros beyond the end of top, and after the commit
    top    ───────               what base holds there
    base   ──────────────

Between the layers that leave, QEMU minds the ends by itself: zeros that come from a short layer are
copied as if it had written them (bdrv_common_block_status_above(), block/io.c, since 5.2; compared
byte by byte on 7.2.22, merges of chains whose four layers have three lengths). A base that is
shorter than what is committed into it grows; `guards` has that.
"""

from __future__ import annotations

from qmpsnap.errors import Refused
from qmpsnap.operations.volume import DiskUnsuitable, Volume, VolumeLayer, whole_pull


class ShorterLayer(Refused):
    """After the merge the guest would read what a layer hides by being shorter than the one below."""

    msg = (
        "{self.file} ends at {self.size} bytes, and {self.base} goes on to {self.base_size}: "
        "without {self.file}, {self.reader} would read what {self.base} holds there"
    )
    remedy = "{self.advice}"

    file: str
    size: int
    base: str
    base_size: int
    reader: str
    advice: str


def check_lengths(
    disk: Volume, above: VolumeLayer | None, hiding: VolumeLayer, base: VolumeLayer
) -> None:
    """
    Refuse a merge after which somebody would read what a shorter layer hides now.

    Args:
        disk: The disk.
        above: The layer that reads `base` afterwards; None: the guest itself does.
        hiding: The uppermost of the layers that leave the chain.
        base: What stays below them.

    Raises:
        ShorterLayer: Somebody would.
        DiskUnsuitable: It depends on a length that nobody knows.
    """
    size = _known(disk, hiding)
    if above is not None and size >= _known(disk, above):
        return  # what lies beyond its own end, the reader does not see
    base_size = _known(disk, base)
    if size >= base_size:
        return
    pull = whole_pull(disk)
    command = f"qemu-img resize -f {hiding.format} {hiding.path} {base_size}"
    if above is None:
        live = f"`virsh blockresize`, QMP `block_resize` to {base_size}"
        advice = f"{pull}. Or let the disk grow first ({live}; with the guest off `{command}`)."
        reader = "the guest, whose disk would grow,"
    else:
        advice = f"{pull}. Or, with the guest off, give it the same length: `{command}`."
        reader = above.file
    raise ShorterLayer(hiding.file, size, base.file, base_size, reader, advice)


def _known(disk: Volume, layer: VolumeLayer) -> int:
    if layer.virtual_size is None:
        reason = f"the size of {layer.file} is not known, and what is read depends on it"
        raise DiskUnsuitable(disk.disk, reason, "Give the tool access to QMP, or to the file.")
    return layer.virtual_size
