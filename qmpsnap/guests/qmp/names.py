"""Names of jobs and nodes that follow from a plan, so that a second call finds the first one's. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from qmpsnap.formats.layers import Layer

OURS: Final = "qmpsnap-"
"""What the ids of our jobs and the names of our nodes begin with."""
ACTIVE_COMMIT: Final = "active-commit"
FORMAT: Final = "-format"
FILE: Final = "-file"
"""How the names of an overlay's two nodes end."""


def job_id(kind: str, disk: str, top: Layer, base: Layer | None) -> str:
    """
    Id of a plan's job: the same for the same merge.

    Letters, digits and dashes only, as QEMU demands (util/id.c, id_wellformed()).
    """
    return id_of(kind, disk, top.path, base.path if base else None)


def id_of(kind: str, disk: str, top: str | None, base: str | None) -> str:
    """The same, by paths."""
    return f"{OURS}{kind}-{_hash(disk, kind, top, base)}"


def named(overlay: str, active: str | None) -> str:
    """
    What the names of an overlay's nodes begin with: they follow from its path and the active node.

    With `-format` at its end a name has 27 bytes; QEMU takes 31 (BlockDriverState.node_name).
    """
    return f"{OURS}{_hash(overlay, active)}"


def _hash(*parts: str | None) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()[:12]


def protocol_node_of(node: str | None) -> str | None:
    """The protocol node of an overlay that this tool has opened, by its format node; None for others."""
    if node is None or not node.startswith(OURS):
        return None
    return f"{node.removesuffix(FORMAT)}{FILE}"
