"""
Commands that a finding suggests. Each names every format: none of them probes.

Names come from headers, so they are quoted for a shell. A format is filled in only where nobody
doubts it; how QEMU has a file open proves nothing when QEMU guessed.
"""

from __future__ import annotations

from typing import Final

from qmpsnap.formats import by_hand
from qmpsnap.formats.layers import Layer
from qmpsnap.formats.verdict import Verdict

UNCERTAIN: Final = "FORMAT"
"""Stands where a person has to know."""

_FIND_OUT: Final = (
    " FORMAT is the one that the file was made with; ask whoever made it, its bytes do not tell."
)


def rebase(overlay: Layer, base: Layer, *, backing: str | None = None) -> str:
    """
    Say how the header of `overlay` is corrected so that it names `base` with its format.

    Args:
        overlay: The layer whose header is wrong.
        base: The layer below it.
        backing: Name to write; default is the base's path, or the name of its source.
    """
    format_ = certain_format(base)
    name = backing or base.path or base.file
    command = by_hand.rebase(overlay, certain_format(overlay), name, format_)
    return f"With the guest off: `{command}`." + (_FIND_OUT if format_ == UNCERTAIN else "")


def certain_format(layer: Layer) -> str:
    """Return the layer's format, or a placeholder when there is any doubt."""
    doubtful = layer.verdict in (Verdict.CONFLICT, Verdict.UNKNOWN, Verdict.INFERRED)
    if doubtful or layer.format is None or "probed" in layer.flags:
        return UNCERTAIN
    return layer.format
