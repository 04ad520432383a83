"""
The messages to the volume service, and their two dialects. Pure.

`spec` is the seed specification's: a status of its own for "compute has finished", and the
format of every changed file. `legacy` is what an unmodified Cinder accepts; it answers 400 to
any other key or status (cinder/api/schemas/snapshot_actions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
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
    operation: Operation,
    file_format: Mapping[str, str],
    dialect: Dialect = Dialect.SPEC,
    token: str | None = None,
) -> dict[str, object]:
    """
    Body for an operation that compute has finished.

    Args:
        operation: What was done.
        file_format: Format by bare file name, of every file that changed.
        dialect: The legacy one can carry neither formats nor a token.
        token: The caller's name for this operation; None where it gave none.
    """
    status = _RUNNING[operation]
    if dialect is Dialect.LEGACY:
        return _body(status, DONE)
    formats: dict[str, object] = {"file_format": dict(file_format)}
    return _body(f"{status}_compute_complete", DONE, formats | _named(token))


def failure(
    operation: Operation, dialect: Dialect = Dialect.SPEC, token: str | None = None
) -> dict[str, object]:
    """Body for an operation that was refused or failed; the dialects differ in the token alone."""
    return _body(_FAILED[operation], NOT_DONE, _named(token) if dialect is Dialect.SPEC else {})


def running(
    operation: Operation, dialect: Dialect = Dialect.SPEC, token: str | None = None
) -> dict[str, object]:
    """
    Body for an operation whose end is not known: it goes on, or may have been carried out.

    The guest may write to the new files already; a failure would make the volume service forget
    them.
    """
    return _body(_RUNNING[operation], NOT_DONE, _named(token) if dialect is Dialect.SPEC else {})


def _named(token: str | None) -> dict[str, object]:
    return {} if token is None else {"operation": token}


def _body(
    status: str, progress: str, more: Mapping[str, object] = MappingProxyType({})
) -> dict[str, object]:
    return {ACTION: {"status": status, "progress": progress, **more}}
