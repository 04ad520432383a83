"""How a merge is to be carried out, as its caller wishes. Pure."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import msgspec

from qmpsnap.errors import Refused

BANDWIDTH_LIMIT: Final = 2**63 - 1
"""The `speed` of a block job is an int64 (qapi/block-core.json)."""


class OnError(StrEnum):
    """What a job does when it cannot read or write (no space, input/output error)."""

    FAIL = "fail"
    """It ends; the chain stays as it was."""
    PAUSE = "pause"
    """It pauses, and tries again when it is resumed."""


class BadOption(Refused):
    """An option with a value that no job can satisfy."""

    msg = "{self.option} {self.value} is refused: {self.reason}"

    option: str
    value: str
    reason: str


class PauseUnsupported(Refused):
    """Whatever carries out the merge cannot let its job pause on an error."""

    msg = "a merge cannot pause on an error here: {self.reason}"
    remedy = "Make sure that there is room, and leave `--on-error pause` out."

    reason: str


def check_bandwidth(value: int) -> None:
    """
    Check bytes a second.

    Raises:
        BadOption: QEMU could not take it.
    """
    if not 0 <= value <= BANDWIDTH_LIMIT:
        raise BadOption(
            "bandwidth", str(value), "it is bytes a second, from 0 (no limit) to 2^63-1"
        )


class MergeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Wishes for one merge.

    Raises:
        BadOption: On construction.
    """

    bandwidth: int | None = None
    """Bytes a second that the job may copy; 0 for no limit. None: no limit, and a job that is
    taken up keeps the one that it has."""
    on_error: OnError = OnError.FAIL
    timeout_s: float | None = None
    """Seconds until the merge is given up: cancelled, unless it has begun to change the chain."""
    force_remove: bool = False
    """Whether a file is removed although nobody can tell whether guests of other hosts use it."""

    def __post_init__(self) -> None:
        check_bandwidth(self.bandwidth or 0)
        if self.timeout_s is not None and not (
            self.timeout_s > 0 and math.isfinite(self.timeout_s)
        ):
            raise BadOption("timeout", str(self.timeout_s), "it is a number of seconds above 0")


DEFAULT_OPTIONS: Final = MergeOptions()
