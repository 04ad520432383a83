"""A real QEMU, driven over its own QMP socket."""

from __future__ import annotations

import pytest

from tests.rig.roads import Road


@pytest.fixture
def road() -> Road:
    """The one that there is here."""
    return "qmp"
