"""The names in a folder: which are not complete yet, and how they come to the disk."""

from __future__ import annotations

import os
from typing import Final

PREFIX: Final = ".qmpsnap-"
SUFFIX: Final = ".tmp"
"""How the names of overlays begin and end that are not complete yet."""


def is_incomplete(name: str) -> bool:
    """Whether an overlay of that name is being made, or was when somebody died."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """
    Bring a folder's names to its disk, which a sync of the files does not: fsync(2).

    Those that are new, and that those that are gone stay gone.

    Raises:
        OSError: It cannot be opened, or not be synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
