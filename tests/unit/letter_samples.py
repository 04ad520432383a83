"""Letters: values for tests."""

from __future__ import annotations

from typing import Any, Final

from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Content, Due, Letter
from qmpsnap.journal.letter import Kind as Kind

DONE: Final = Content(outcome="done", file_format={"volume-1": "raw"})
FAILED: Final = Content(outcome="failed", why="no room")


def due(snapshot: str = "s1", *, after: dict[str, str] | None = None, **changes: Any) -> Due:
    """A delete that somebody waits for."""
    who = Addressee(snapshot=snapshot, volume="v1", project="p1", after=after or {})
    return Due(**{"kind": "delete", "addressee": who, "token": "t1", "since": 1000.0, **changes})


def letter(kind: Kind = "delete", content: Content | None = DONE, **changes: Any) -> Letter:
    """One that is waiting."""
    values: dict[str, Any] = {
        "number": 1,
        "id": "a",
        "due": due(kind=kind, token=changes.pop("token", "t1")),
        "state": "waiting",
        "content": content,
        "changed": 1000.0,
    }
    return Letter(**{**values, **changes})


def stored(journal: Journal, content: Content | None = DONE, **changes: Any) -> str:
    """Store a letter; returns its id."""
    with expected(journal, due(**changes)) as one:
        if content is not None:
            one.answer(content)
    return one.id


def found(journal: Journal, *ids: str) -> tuple[Letter, ...]:
    """All letters of a journal, in order; or some."""
    with journal.opened() as store:
        return store.letters.find((), ids=ids)
