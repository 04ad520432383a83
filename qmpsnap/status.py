"""
The messages to the volume service, and their two dialects. Pure.

`spec` is the seed specification's: a status of its own for "compute has finished", and the
format of every changed file. `legacy` is what an unmodified Cinder accepts; it answers 400 to
any other key or status (cinder/api/schemas/snapshot_actions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

ACTION: Final = "os-update_snapshot_status"
DONE: Final = "90%"
"""Cinder waits for this value; kept for compatibility, as the specification asks."""
NOT_DONE: Final = "0%"
"""A 90% left behind by a failure makes an unmodified Cinder unlink files on the next try before
the work has begun, so failures and unfinished work take it back."""


class Dialect(StrEnum):
    """Whom the message is for."""

    SPEC = "spec"
    LEGACY = "legacy"


class Operation(StrEnum):
    """What was asked for."""

    CREATE = "create"
    DELETE = "delete"


_RUNNING: Final = {Operation.CREATE: "creating", Operation.DELETE: "deleting"}
_FAILED: Final = {Operation.CREATE: "error", Operation.DELETE: "error_deleting"}


def success(
    operation: Operation, file_format: Mapping[str, str], dialect: Dialect = Dialect.SPEC
) -> dict[str, object]:
    """
    Body for an operation that compute has finished.

    Args:
        operation: What was done.
        file_format: Format by bare file name, of every file that changed.
        dialect: The legacy one cannot carry formats.
    """
    status = _RUNNING[operation]
    if dialect is Dialect.LEGACY:
        return _body(status, DONE)
    return {
        ACTION: {
            "status": f"{status}_compute_complete",
            "progress": DONE,
            "file_format": dict(file_format),
        }
    }


def failure(operation: Operation) -> dict[str, object]:
    """Body for an operation that was refused or failed; the same in both dialects."""
    return _body(_FAILED[operation], NOT_DONE)


def running(operation: Operation) -> dict[str, object]:
    """Body for an operation that goes on after its tool was interrupted; both dialects."""
    return _body(_RUNNING[operation], NOT_DONE)


def _body(status: str, progress: str) -> dict[str, object]:
    return {ACTION: {"status": status, "progress": progress}}
