"""What all unit tests share: how hypothesis runs, and what a file system can do."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
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


@pytest.fixture
def leases(tmp_path: Path) -> None:
    """Skip where the kernel gives none. The tool is not asked: where it is wrong, tests must fail."""
    path = tmp_path / "leased"
    path.touch()
    with path.open("rb") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system has no leases: {error}")
    path.unlink()
