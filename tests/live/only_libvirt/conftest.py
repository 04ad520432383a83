"""Real libvirt: its QEMU driver inside this process (`qemu:///embed`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.off import Off, defined_off
from tests.rig.roads import Road


@pytest.fixture(autouse=True)
def road(borrowed: None) -> Road:
    """The one that there is here; every test uses the session's connection."""
    return "libvirt"


@pytest.fixture(params=["raw", "qcow2"])
def off(request: pytest.FixtureRequest, connection: Any, tmp_path: Path) -> Iterator[Off]:
    folder = tmp_path / "share"
    folder.mkdir()
    with defined_off(connection, folder, str(request.param)) as off:
        yield off
