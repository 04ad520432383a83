"""The names in a folder, which a sync of the files does not bring to the disk: fsync(2)."""

from __future__ import annotations

import os


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """
    Bring a folder's names to its disk: those that are new, and that those that are gone stay gone.

    Raises:
        OSError: It cannot be opened, or not be synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
