"""Our driver, late where a test wants it: while there is a file in the rig's folder `late`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from qmpsnap.openstack.cinder.nfs import NfsDriver as Ours

_LATE = Path(os.environ["RIG"]) / "late"


class NfsDriver(Ours):
    """
    Answers to the backup service after `backup` is gone, and begins a snapshot after `snapshot`.

    It names an overlay, and opens the operation then, after `overlay`; has looked at what is to be
    migrated, and copies it then, after `copy`.
    """

    def get_backup_device(self, context: Any, backup: Any) -> Any:
        """What is to be read is chosen, and is not read yet; `chosen` says so."""
        found = super().get_backup_device(context, backup)
        if (_LATE / "backup").exists():
            (_LATE / "chosen").touch()
            _wait("backup")
        return found

    def create_snapshot(self, snapshot: Any) -> None:
        """The API has taken it, and nothing is done yet."""
        _wait("snapshot")
        super().create_snapshot(snapshot)

    def _get_new_snap_path(self, snapshot: Any) -> Any:
        """The volume's row was looked at, and the operation is not open; `chosen` says so."""
        if (_LATE / "overlay").exists():
            (_LATE / "chosen").touch()
            _wait("overlay")
        return super()._get_new_snap_path(snapshot)

    def before_volume_copy(self, *arguments: Any, **named: Any) -> None:
        """It was looked at, and its file is not told yet; `chosen` says so."""
        super().before_volume_copy(*arguments, **named)
        if (_LATE / "copy").exists():
            (_LATE / "chosen").touch()
            _wait("copy")


def _wait(name: str) -> None:
    while (_LATE / name).exists():
        time.sleep(0.1)
