"""Recordings that were built by hand are what `tests/layouts/built.py` makes."""

from __future__ import annotations

import pytest

from tests.layouts.built import BUILT, FOLDER, Built, build


@pytest.mark.parametrize("built", BUILT, ids=lambda built: built.name)
def test_a_built_recording_is_current(built: Built, pytestconfig: pytest.Config) -> None:
    path = FOLDER / f"{built.name}.jsonl"
    made = build(built)
    if pytestconfig.getoption("--record"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(made)
    assert path.read_text() == made, "run tox -e record"


def test_no_other_recording_is_called_built() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == {built.name for built in BUILT}
