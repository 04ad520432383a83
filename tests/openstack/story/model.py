"""The chain and the snapshots of a volume as they have to be. Pure."""

from __future__ import annotations

from collections.abc import Mapping


class Model:
    """
    What Cinder's answer to each operation comes to.

    An operation in which something died may have been done or not. Which of the two, Cinder's rows
    say; everything else has to fit them.
    """

    def __init__(self, volume: str) -> None:
        self.base = f"volume-{volume}"
        self.layers = [self.base]
        """From the active file down."""
        self.files: dict[str, str] = {}
        """By snapshot, in the order of their creation: the file that was written to after it."""
        self.failed: set[str] = set()
        """Snapshots that have no file: they were never taken."""

    def format(self, file: str) -> str:
        """Only the first file can be anything but qcow2."""
        return "raw" if file == self.base else "qcow2"

    @property
    def info(self) -> dict[str, str]:
        """Cinder's `.info`."""
        return {"active": self.layers[0], **self.files}

    def created(self, snapshot: str, status: str) -> None:
        """A snapshot that was asked for has become this."""
        if status == "available":
            self.files[snapshot] = f"{self.base}.{snapshot}"
            self.layers.insert(0, self.files[snapshot])
        else:
            self.failed.add(snapshot)

    def deleted(self, snapshot: str, *, attached: bool) -> None:
        """A snapshot is gone: attached, the active file pulls the one below it; else it is committed."""
        self.failed.discard(snapshot)
        file = self.files.pop(snapshot, None)
        if file is None:
            return
        place = self.layers.index(file)
        pulls = attached and place == 0
        gone, instead = (self.layers[1], file) if pulls else (file, self.layers[place + 1])
        self.layers.remove(gone)
        self.files = {key: instead if one == gone else one for key, one in self.files.items()}

    def unexpected(self, rows: Mapping[str, str]) -> str:
        """What Cinder's rows (status by snapshot) have that cannot be; nothing where they fit."""
        known = {*self.files, *self.failed}
        if {*rows} != known:
            return f"snapshots {sorted(rows)}, not {sorted(known)}"
        wrong = {
            one: status
            for one, status in rows.items()
            if status
            not in (("available", "error", "error_deleting") if one in self.files else ("error",))
        }
        return f"statuses {wrong}" if wrong else ""
