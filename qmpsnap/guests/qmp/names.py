"""Names of jobs and nodes that follow from a plan, so that a second call finds the first one's. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from qmpsnap.formats.layers import Layer
from qmpsnap.graph.opening import Opening

OURS: Final = "qmpsnap-"
"""What the ids of our jobs and the names of our nodes begin with."""
ACTIVE_COMMIT: Final = "active-commit"
FORMAT: Final = "-format"
FILE: Final = "-file"
"""How the names of an overlay's two nodes end."""
_OPENED: Final = re.compile(rf"{OURS}[0-9a-f]{{12}}([ufbi])([dtnr]){FORMAT}", re.ASCII)
_DISCARD: Final = {"u": (True, True), "f": (True, False), "b": (False, True), "i": (False, False)}
_AIO: Final = {"d": None, "t": "threads", "n": "native", "r": "io_uring"}


def job_id(kind: str, disk: str, top: Layer, base: Layer | None) -> str:
    """
    Id of a plan's job: the same for the same merge.

    Letters, digits and dashes only, as QEMU demands (util/id.c, id_wellformed()).
    """
    return id_of(kind, disk, top.path, base.path if base else None)


def id_of(kind: str, disk: str, top: str | None, base: str | None) -> str:
    """The same, by paths."""
    return f"{OURS}{kind}-{_hash(disk, kind, top, base)}"


def named(overlay: str, active: str | None, opening: Opening) -> str:
    """
    What the names of an overlay's nodes begin with: they follow from its path and the active node.

    Two letters say how it is opened, since nothing else tells the next call (`opened_as`). With
    `-format` at its end a name has 29 bytes; QEMU takes 31 (BlockDriverState.node_name).
    """
    both = opening.discard, opening.passed_on
    letters = (
        *(letter for letter, known in _DISCARD.items() if known == both),
        *(letter for letter, known in _AIO.items() if known == opening.aio),
    )
    return f"{OURS}{_hash(overlay, active)}{''.join(letters)}"


def opened_as(node: str) -> Opening | None:
    """How this tool has opened an overlay, by the name of its format node; None for others."""
    match = _OPENED.fullmatch(node)
    if match is None:
        return None
    discard, aio = match.groups()
    format_, below = _DISCARD[discard]
    return Opening(discard=format_, passed_on=below, aio=_AIO[aio])


def _hash(*parts: str | None) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()[:12]


def protocol_node_of(node: str | None) -> str | None:
    """The protocol node of an overlay that this tool has opened, by its format node; None for others."""
    if node is None or not node.startswith(OURS):
        return None
    return f"{node.removesuffix(FORMAT)}{FILE}"
