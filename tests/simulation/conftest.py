"""A simulated QEMU."""

from __future__ import annotations

from tests.simulation.seed import header


def pytest_report_header() -> str:
    """So that a failure can be had again."""
    return header()
