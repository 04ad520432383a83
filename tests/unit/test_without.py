"""The mechanism of tests/pains: what it would mean if a guard could not be taken out."""

from __future__ import annotations

import pytest

from qmpsnap.operations import names
from tests.pains.pain import Guard, Pain, without

TIDY = names.tidy


def shouting(path: str) -> str:
    return TIDY(path).upper()


def test_stands_in_for_the_length_of_the_block() -> None:
    with without(Guard(where="qmpsnap.operations.names.tidy", instead=shouting)):
        assert names.tidy("/a//b") == "/A/B"
    assert names.tidy is TIDY


def test_a_guard_that_is_not_asked_is_an_error() -> None:
    unasked = Guard(where="qmpsnap.operations.names.tidy", instead=shouting)
    with pytest.raises(AssertionError, match="was never asked"), without(unasked):
        pass


def test_a_guard_that_is_not_there_is_an_error() -> None:
    gone = Guard(where="qmpsnap.operations.names.tidier", instead=shouting)
    with pytest.raises(AttributeError, match="tidier"), without(gone):
        pass


class Doubled(Pain[str]):
    """Two slashes."""

    def answered(self, world: str) -> None:
        assert names.tidy(world) == "/a/b"

    def hurts(self, world: str) -> None:
        assert names.tidy(world) == "/a/b"  # the guard is in again


def test_a_guard_without_which_all_is_as_before_is_an_error() -> None:
    same = Doubled()
    Doubled.guard = Guard(where="qmpsnap.operations.names.tidy", instead=TIDY)
    same.test_is_answered("/a//b")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        same.test_hurts_without_the_guard("/a//b")
    Doubled.guard = Guard(where="qmpsnap.operations.names.tidy", instead=shouting)
    same.test_hurts_without_the_guard("/a//b")
