"""What all unit tests share: how hypothesis runs."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Derandomized: the same commit gives the same result. No example database: nothing is written
# into the checkout. The milliseconds of a busy CI machine are no finding.
settings.register_profile(
    "unit",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("QMPSNAP_UNIT_EXAMPLES", "40")),  # `make nightly`: 1,000
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
