"""Chaos on both roads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.roads import DirectRoad, LibvirtRoad, Road

GetRoad = Callable[[str], Road]


@pytest.fixture
def get_road(request: pytest.FixtureRequest) -> GetRoad:
    """`get_road(name)`: libvirt's driver starts when it is asked for first."""

    def get(name: str) -> Road:
        if name == "direct":
            return DirectRoad()
        request.getfixturevalue("borrowed")
        connection: Any = request.getfixturevalue("connection")
        return LibvirtRoad(connection)

    return get
