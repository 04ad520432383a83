"""
What the journal keeps of an answer, and whether it tells of anything. Pure.

libvirt's hook reads it too, and imports little: every start of a guest waits for it.
"""

from __future__ import annotations

import json
from typing import Final

FAILED: Final = "! "
"""How the answer of an act begins that ended with an error."""
DONE: Final = "done"
"""The answer of an act that answered nothing."""


def is_silent(answer: str | None) -> bool:
    """Whether an act was carried out and answered no text: of a flush, a text tells why it was not."""
    if answer is None or answer.startswith(FAILED):
        return False
    try:
        said = "" if answer == DONE else json.loads(answer)
    except ValueError:
        return False
    return isinstance(said, str) and not said.strip()
