"""QEMU without a guest, for the chains of guests that are off."""

from __future__ import annotations

from pathlib import Path

from qmpsnap.guests.offline.block_layer import opened
from tests.rig import images
from tests.rig.rig import SIZE


def test_nothing_is_started(tmp_path: Path) -> None:
    """Or RESUME could come before the greeting."""
    images.create_raw(tmp_path / "disk", SIZE)
    with opened([(str(tmp_path / "disk"), "raw")]) as monitor:
        status = monitor.execute("query-status")
    assert isinstance(status, dict)
    assert status["status"] == "prelaunch"
