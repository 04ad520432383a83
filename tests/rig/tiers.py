"""What a tier needs and does not have: skipped, or failed where the tier is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def required() -> frozenset[str]:
    """Tiers that must run here, as CI says."""
    return frozenset(os.environ.get("QMPSNAP_REQUIRE", "").split(",")) - {""}


def missing(tier: str, what: str) -> NoReturn:
    """End a test that cannot run here; `what` says what to do about it."""
    if tier in required():
        pytest.fail(f"the tier {tier} is required and cannot run: {what}")
    pytest.skip(what)
