"""From the name of a file to the id that the ledger knows its volume by."""

from __future__ import annotations

import re
from typing import Any, Final

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


def ledger_id(volume: Any) -> str:
    """
    The id in the names of a volume's files.

    After a migration that could not rename them, that is not the volume's own (`_name_id`).
    """
    return id_in(volume.name) or str(volume.id)


def id_in(name: str) -> str | None:
    """The id at the end of `volume-<id>`; None where the name has none."""
    found = _ID.search(name)
    return None if found is None else found.group()
