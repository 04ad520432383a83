"""Real libvirt: its QEMU driver inside this process (`qemu:///embed`)."""

from __future__ import annotations

import pytest

from tests.rig.roads import Road


@pytest.fixture(autouse=True)
def road(borrowed: None) -> Road:
    """The one that there is here; every test uses the session's connection."""
    return "libvirt"
