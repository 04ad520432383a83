"""Chains of files as deep as one likes, for guests that are started with them."""

from __future__ import annotations

from pathlib import Path

from qmpsnap.guests.files import qemu_img
from tests.rig import images

MIB = 1024 * 1024


def make_chain(
    folder: Path, name: str, depth: int, size: int = MIB, *, relative: bool = True
) -> list[tuple[Path, str]]:
    """
    Make `name` (raw), `name.s1`, … in `folder`, each over the one before.

    Args:
        folder: Where.
        name: Of the base.
        depth: Number of layers.
        size: Bytes that a reader sees.
        relative: Headers name the layer below as Cinder writes it, without its folder.

    Returns:
        (file, format) in chain order, as `qcow2_chain()` takes them.
    """
    base = folder / name
    images.create_raw(base, size)
    chain = [(base, "raw")]
    for number in range(1, depth):
        below, format = chain[0]
        overlay = folder / f"{name}.s{number}"
        name_below = below.name if relative else str(below)
        # Does not open what is below: 200 layers take two seconds and not a minute.
        qemu_img.create_overlay(
            str(overlay), backing_name=name_below, backing_format=format, size=size
        )
        chain.insert(0, (overlay, "qcow2"))
    return chain
