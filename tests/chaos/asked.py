"""What one operation of an attack asks for, and what the chain is when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.chaos import steps
from tests.chaos.model import Disk

Operation = steps.Create | steps.Commit | steps.Pull | steps.Revert


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, by the names of files: another client may change the chain meanwhile."""

    kind: Literal["create", "commit", "pull", "revert"]
    upper: str
    """The overlay to be; the file that is merged; the file that is pulled into."""
    lower: str | None = None
    """The file below all that leaves the chain."""

    @property
    def makes(self) -> bool:
        """Whether there is a new file."""
        return self.kind in ("create", "revert")

    @classmethod
    def of(cls, operation: Operation, overlay: str, files: list[str]) -> Asked:
        """What an operation means on a chain."""
        if isinstance(operation, steps.Create):
            return cls("create", overlay)
        if isinstance(operation, steps.Revert):
            return cls("revert", overlay, files[operation.to])
        lower = None if operation.base is None else files[operation.base]
        if isinstance(operation, steps.Commit):
            return cls("commit", files[operation.top], lower)
        return cls("pull", files[0], lower)

    def _leave(self, files: list[str]) -> slice | None:
        """Which files are to leave; None where this cannot be."""
        if self.upper not in files or (self.lower is not None and self.lower not in files):
            return None
        start = files.index(self.upper) + (self.kind == "pull")
        return slice(start, len(files) if self.lower is None else files.index(self.lower))

    def after(self, files: list[str]) -> list[str] | None:
        """The chain when it is done; None where it cannot be."""
        if self.kind == "create":
            return None if self.upper in files else [self.upper, *files]
        if self.kind == "revert":
            if self.upper in files or self.lower not in files:
                return None
            return [self.upper, *files[files.index(self.lower) :]]
        gone = self._leave(files)
        return None if gone is None else files[: gone.start] + files[gone.stop :]

    def note(self, disk: Disk) -> list[str]:
        """Change the model of a merge that is done; returns what has left the chain."""
        gone = self._leave(disk.files)
        assert gone is not None
        files = disk.files[gone]
        if self.kind == "commit":
            disk.layers[gone.stop].content = disk.layers[gone.start].content
        del disk.layers[gone]
        return files
