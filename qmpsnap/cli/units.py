"""Amounts and times as people give and read them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
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


def seconds_text(seconds: float) -> str:
    """A time that is left, short: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
