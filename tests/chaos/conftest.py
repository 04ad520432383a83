"""Chaos on both roads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.roads import DirectRoad, LibvirtRoad, Road

GetRoad = Callable[[str], Road]

FOLDER = Path(__file__).parent
TIMEOUT_S = 240
"""For one test: twenty times what the longest takes, as other work may be done beside."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder their time."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


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
