"""Amounts and times as people give and read them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from datetime import datetime

    IntParamType = click.ParamType[int]
else:
    IntParamType = click.ParamType  # generic since click 8.4; Debian 12 and 13 have 8.1

_AMOUNT: Final = re.compile(r"([0-9]{1,20})([KMGT]?)(?:i?B)?(?:/s)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class BytesPerSecond(IntParamType):
    """`8388608`, `8M` or `8MiB/s`, all the same; 0 for no limit."""

    name = "bytes"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parse; a usage error when it is none."""
        if isinstance(value, int):
            return value
        found = _AMOUNT.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not a number of bytes, such as 500000, 200K, 8M or 1G")
        return int(found[1]) << 10 * _POWERS[found[2].lower()]


class Seconds(click.FloatRange):
    """A time that can be waited for: `nan` is in every range, for click."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse; a usage error when it is no number, or outside the range."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def moment(seconds: float | None) -> str | None:
    """A point in time for programs, UTC: `2026-11-22T23:15:00Z`; None where it is not known."""
    when = _utc(seconds)
    return None if when is None else f"{when:%Y-%m-%dT%H:%M:%SZ}"


def moment_text(seconds: float | None) -> str | None:
    """The same for people, to the minute: `2026-11-22 23:15Z`."""
    when = _utc(seconds)
    return None if when is None else f"{when:%Y-%m-%d %H:%MZ}"


def _utc(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):  # a file system may say anything
        return None


def seconds_text(seconds: float) -> str:
    """A time that is left, short: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
