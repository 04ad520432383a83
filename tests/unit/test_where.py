"""The way to a guest, as the journal has it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qmpsnap.operations.where import NOWHERE, Where, where_of


def test_of_a_guest_that_tells() -> None:
    where = Where(road="qmp", at="/run/a")
    assert where_of(SimpleNamespace(where=where)) is where


@pytest.mark.parametrize(
    "guest", [object(), SimpleNamespace(where="here"), SimpleNamespace(where=None)]
)
def test_of_one_that_somebody_else_has_made(guest: object) -> None:
    assert where_of(guest) is NOWHERE
