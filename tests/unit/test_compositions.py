"""What is sent on each road, to the last word."""

from __future__ import annotations

import pytest

from tests.unit.compositions import FOLDER, ROADS, composed


@pytest.mark.parametrize("road", ROADS)
def test_every_act(road: str) -> None:
    """Written by `python -m tests.unit.compositions`; a difference is a change of what is sent."""
    assert composed(road).splitlines() == (FOLDER / f"{road}.txt").read_text().splitlines()


def test_no_text_is_left_of_a_road_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*ROADS}
