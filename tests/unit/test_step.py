"""An act as a value."""

from __future__ import annotations

from qmpsnap.operations.step import Does

WORDS = """hold release make discard open freeze thaw switch forget start flush commit cancel pause resume
speed dismiss close reopen redefine mark remove"""


def test_what_acts_are_for() -> None:
    """Journals that were written keep these words."""
    assert {str(one) for one in Does} == set(WORDS.split())
