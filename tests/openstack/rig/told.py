"""What a rig has to say about a test that failed: the rig itself is gone when somebody reads of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from tests.openstack.rig.rig import Rig

_LINES: Final = 60
_LOUD: Final = re.compile(r" (WARNING|ERROR|CRITICAL) | INFO qmpsnap|^\S*Error|^\S*Exception")
_QUERIES: Final = (
    "select id, status, progress, updated_at from snapshots where not deleted",
    "select at, snapshot, state, operation, why from qmpsnap_snapshots order by id desc limit 20",
    "select at, operation, status, named from qmpsnap_inbox order by id desc limit 8",
    "select snapshot, reason, times, detail from qmpsnap_refusals order by last desc limit 8",
)


def told(rig: Rig) -> str:
    """What is loud in the logs, and what Cinder and the ledger have last written."""
    return "\n".join(_told(rig))


def _told(rig: Rig) -> Iterator[str]:
    for name in ("cinder.log", "compute.out"):
        text = (rig.folder / "log" / name).read_text(errors="replace")
        loud = [line[:400] for line in text.splitlines() if _LOUD.search(line)]
        yield from (f"--- {name}", *loud[-_LINES:])
    for query in _QUERIES:
        yield f"--- {query}"
        try:
            yield from (" | ".join(map(str, row)) for row in rig.rows(query))
        except SQLAlchemyError as error:  # a stock Cinder has no ledger
            yield str(error)
