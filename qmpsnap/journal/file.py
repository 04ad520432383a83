"""The journal in its folder. One that cannot be read is never replaced by an empty one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qmpsnap.journal.folder import checked, state_folder
from qmpsnap.journal.schema import NAME, create
from qmpsnap.journal.spare import Spare
from qmpsnap.journal.store import Store


class Journal:
    """
    The journal in one folder; opened when it is used.

    May be used by several threads and processes at once.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, keeps_open: bool = False
    ) -> None:
        """
        Open nothing yet.

        Args:
            folder: The state folder; None: as `state_folder` says at each use.
            keeps_open: Whether connections stay open between two uses; for a service. See `spare`.
        """
        self._folder = None if folder is None else Path(folder).absolute()
        self._spare = Spare() if keeps_open else None

    @property
    def path(self) -> Path:
        """The file."""
        return (self._folder or state_folder()) / NAME

    @property
    def opened_folder(self) -> Path:
        """
        The folder, made where it was not there.

        Raises:
            JournalUnusable: It cannot be used.
        """
        return checked(self.path.parent, make=True)

    def opened(self) -> Store:
        """
        Open it for writing; a new one where there is none.

        Raises:
            JournalUnusable: It cannot be used; nothing was touched.
        """
        path = self.path
        checked(path.parent, make=True)
        if not path.exists():
            create(path)
        return Store(path, spare=self._spare)

    def looked_into(self) -> Store | None:
        """
        Open it for reading; None where there is none.

        Raises:
            JournalUnusable: It cannot be read.
        """
        path = self.path
        try:
            checked(path.parent, make=False)
        except FileNotFoundError:
            return None
        return Store(path, writes=False, spare=self._spare) if path.exists() else None


DEFAULT: Final = Journal()
"""In the folder that the environment says."""
