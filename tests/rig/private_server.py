"""A database server for tests, with its socket and data in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self


class PrivateServer(ABC):
    """
    Runs inside of a `with` block.

    In /var/tmp, since its user must be able to enter it, and a socket's path has 107 bytes.
    """

    prefix: ClassVar[str]
    """Of the folder's name."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.folder = Path(tempfile.mkdtemp(prefix=self.prefix, dir="/var/tmp"))
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._prepare()
            self._start()
            undo.callback(self._stop)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def _start(self) -> None:
        """Start it, and wait until it answers."""

    @abstractmethod
    def _stop(self) -> None:
        """End it at once."""
