"""The headers of a volume's files: from the active one down, and of what lies beside. Looks only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from qmpsnap.errors import Refused
from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.openstack.cinder.adopt import below

Read = Callable[[str], Header]
"""Reads the header of a file that is stated to be qcow2, by its path."""


def downwards(folder: str, active: str, first: str, read: Read) -> dict[str, Header | None]:
    """
    Return the headers of a chain, by bare name, as far as its files are there.

    Args:
        folder: Of the volume.
        active: Its active file.
        first: `volume-<id>`, which may be raw: it is not looked into.
        read: Reads one.

    Raises:
        OSError, BadHeader, FileUnusable: As of `read`.
    """
    found: dict[str, Header | None] = {}
    file: str | None = active
    while file is not None and file not in found:
        path = os.path.join(folder, file)
        if not os.path.exists(path):
            break
        found[file] = None if file == first else read(path)
        file = below(found[file])
    return found


def beside(folder: str, names: Iterable[str], read: Read) -> Iterator[tuple[str, Header | None]]:
    """
    Yield the headers of overlays; None where one cannot be read, or is gone by now.

    Args:
        folder: Where they lie.
        names: Theirs.
        read: Reads one.
    """
    for one in names:
        header = None
        with suppress(BadHeader, Refused, FileNotFoundError):
            header = read(os.path.join(folder, one))
        yield one, header
