"""Chains of files as deep as one likes, for guests that are started with them."""

from __future__ import annotations

from pathlib import Path

from qmpsnap.demo import images

MIB = 1024 * 1024


def make_chain(folder: Path, name: str, depth: int, size: int = MIB) -> list[tuple[Path, str]]:
    """
    Make `name` (raw), `name.s1`, … in `folder`, each over the one before.

    Returns:
        (file, format) in chain order, as `qcow2_chain()` takes them.
    """
    base = folder / name
    images.create_raw(base, size)
    chain = [(base, "raw")]
    for number in range(1, depth):
        below, format = chain[0]
        overlay = folder / f"{name}.s{number}"
        images.create_qcow2(overlay, size, below.name, format)
        chain.insert(0, (overlay, "qcow2"))
    return chain
