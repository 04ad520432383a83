"""
`@situation(...)`: a test that shows what happens in a situation that an operator may meet.

docs/reference/situations.md is written from these, so what stands there is what a test shows. The
exit code is held to by `pytest_pyfunc_call` in tests/conftest.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])


def situation(
    title: str,
    *,
    happens: str,
    code: int,
    then: str,
    pain: int | None = None,
    kind: int | None = None,
) -> Callable[[Test], Test]:
    """
    Mark a test.

    Args:
        title: The situation, in a few words.
        happens: What the tool does, and how things stand afterwards.
        code: The exit code that some command of the test must end with.
        then: What the operator does next.
        pain: Number of the pain that this answers, in docs/explanation/pains.md.
        kind: Number of the kind of trouble from the field that this shows (`KINDS`,
            docs/situations.py).
    """
    return pytest.mark.situation(
        title=title, happens=happens, code=code, then=then, pain=pain, kind=kind
    )
