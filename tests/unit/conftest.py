"""What all unit tests share: how hypothesis runs."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Derandomized: the same commit gives the same result. No example database: nothing is written
# into the checkout. The milliseconds of a busy CI machine are no finding.
settings.register_profile(
    "unit",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
