"""Amounts and times as people give and read them."""

from __future__ import annotations

import click
import pytest

from qmpsnap.cli.units import BytesPerSecond, seconds_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("500000", 500_000),
        ("8M", 8 << 20),
        ("8m", 8 << 20),
        ("8MiB", 8 << 20),
        ("8MB/s", 8 << 20),
        ("200K", 200 << 10),
        ("1g", 1 << 30),
        ("2T", 2 << 40),
    ],
)
def test_bytes(text: str, value: int) -> None:
    assert BytesPerSecond().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5M", "1 M", "8X", "8MM", "٣", "1" * 30])
def test_no_bytes(text: str) -> None:
    with pytest.raises(click.UsageError):
        BytesPerSecond().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3600, "1 h 0 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
