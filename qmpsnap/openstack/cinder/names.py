"""The names of files, and the id that the ledger knows a volume by."""

from __future__ import annotations

import re
from typing import Any, Final

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OVERLAY: Final = re.compile(rf"(?P<volume>.+)\.(tmp-snap-)?{_ID.pattern}", re.IGNORECASE)

UNFINISHED: Final = ".qmpsnap"
"""How the name of a file ends that is about to take the place of the one without it."""


def ledger_id(volume: Any) -> str:
    """
    The id in the names of a volume's files.

    After a migration that could not rename them, that is not the volume's own (`_name_id`). Of a
    clone that is being made Cinder has but a tuple, without a `name_id`.
    """
    return str(getattr(volume, "name_id", volume.id))


def id_in(name: str, template: str) -> str | None:
    """
    The id in the name of a volume; None where the name has none.

    Args:
        name: `volume-<id>`.
        template: Cinder's `volume_name_template`, which puts it where it likes.
    """
    found = (one.group() for one in _ID.finditer(name))
    return next((one for one in found if template % one == name), None)


def volume_of(name: str) -> str | None:
    """The name of the volume that a file is an overlay of; None where it is called otherwise."""
    found = _OVERLAY.fullmatch(name)
    return None if found is None else found["volume"]
