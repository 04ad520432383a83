"""`@remedy(ID, …)`: a test that runs what an error advises, in the state in which it is printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


def remedy(*_ids: str) -> Callable[[Test], Test]:
    """
    Mark a test; `tests/unit/test_remedies_run.py` compares the marks with what the product prints.

    Args:
        _ids: Names of error classes; a guard's is `WouldHarm/GUARD`.
    """
    return lambda test: test
