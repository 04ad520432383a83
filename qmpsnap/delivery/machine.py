"""
What to do with each answer of the volume service, until one letter is accepted or has to wait. Pure.

    (dialect?) ─► update ─┬─ 2xx ───────────────────────────────► accepted
                   ▲      ├─ 400 in `spec`: asked again ─► legacy, or the row
                   └──────┤    400 in `legacy`, 404, 409 ─► the row ─► accepted, dead, waiting
                          ├─ 401, 403, 408, 413, 425, 429, 5xx, no answer ───► waiting
                          └─ anything else ─────────────────────────────────► dead

An update that was stored, and whose answer was lost, is sent again. A service that waits by token
takes it for the same; a stock Cinder answers 400, since the snapshot has left the state in which it
waited. So a 400 is not believed before the row of the snapshot has been looked at.

A legacy body names no operation: whichever the service waits for, it ends. So it is never sent where
a later call for the same snapshot is known (D1b: a stale update ends the wait of a retry, and a stock
Cinder removes a file that is still merged). The retry's call may still be on its way; so the snapshot
is looked at before such an update, and one that may have been accepted is sent again only where the
service has not changed the snapshot since.

Source: cinder/api/contrib/snapshot_actions.py and api/schemas/snapshot_actions.py (29.0.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from qmpsnap import status
from qmpsnap.journal.letter import Letter
from qmpsnap.status import Dialect, Operation

EXTENSION: Final = "os-qmpsnap"
"""Alias of the extension that says that a service knows the `spec` dialect."""
_AGAIN: Final = frozenset({401, 403, 408, 413, 425, 429})
"""What passes, or passes when an operator has mended it: load, a password, a role."""
_FOREIGN: Final = re.compile("additional properties are not allowed", re.IGNORECASE)
"""
How a 400 reads whose reason is the dialect, and not the state of the snapshot.

jsonschema's words. Every body that differs between the dialects has a key that stock Cinder's schema
lacks (`file_format`, `operation`), and the schema is checked before the state.
"""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from one request."""

    status: int | None
    """Of HTTP; None: there was no answer, or not a whole one."""
    text: str = ""
    """The body of an error, or why there was no answer; in short."""
    retry_after_s: float | None = None
    row: str | None = None
    """Status of the snapshot, where it was asked for."""
    seen: str | None = None
    """When the snapshot was last changed, in the service's words."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The next request."""

    what: Literal["dialect", "update", "row"]
    dialect: Dialect = Dialect.SPEC
    """Of an update."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How one try ended."""

    state: Literal["accepted", "waiting", "dead", "dropped"]
    why: str
    is_unsure: bool
    """Whether the service may have accepted it all the same."""
    retry_after_s: float | None = None


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One try: what is known so far."""

    letter: Letter
    is_overtaken: bool = False
    """Whether there is a later letter for the snapshot, and the service could take one for the
    other in the legacy dialect."""
    dialect: Dialect | None = None
    """Of the service, as far as it is known."""
    is_unsure: bool = False
    """Whether this try, or one before, may have been accepted."""
    has_asked: bool = False
    """Whether the dialect was asked for in this try."""
    seen: str | None = None
    """When the snapshot had last been changed before the first try that may have been accepted."""
    has_looked: bool = False
    refusal: Answer | None = None
    """Why the service did not take the update."""


def begun(
    letter: Letter, later: Sequence[Letter] = (), dialect: Dialect | None = None
) -> tuple[Course, Ask | End]:
    """
    Begin to send a letter.

    Args:
        letter: One that is waiting.
        later: The later ones of the same snapshot.
        dialect: Of the service, as it is remembered.
    """
    course = Course(letter=letter, dialect=dialect, is_unsure=letter.is_unsure)
    if any(one.state in ("accepted", "closed") for one in later):
        return course, _overtaken(course, "a later one was accepted")
    token = letter.due.token
    if later and (token is None or any(one.due.token in (token, None) for one in later)):
        return course, _overtaken(course, "the operation was asked for again")
    course = replace(course, is_overtaken=bool(later))
    return course, Ask(what="dialect") if dialect is None else _update(course)


def heard(course: Course, ask: Ask, answer: Answer) -> tuple[Course, Ask | End]:
    """Decide what to do after an answer."""
    match ask.what:
        case "dialect":
            return _heard_dialect(replace(course, has_asked=True), answer)
        case "update":
            return _heard_update(course, ask, answer)
        case "row":
            return _heard_row(course, answer)


def body_of(letter: Letter, dialect: Dialect) -> Mapping[str, object]:
    """
    Return the body of the update of a letter, by the one function that knows the dialects.

    Raises:
        ValueError: It has no content: nobody knows what is to be told.
    """
    content = letter.content
    if content is None:
        raise ValueError(f"letter {letter.id} is {letter.state}")
    operation = Operation(letter.due.kind)
    if content.outcome == "done":
        return status.success(operation, content.file_format, dialect, letter.due.token)
    return status.failure(operation, dialect, letter.due.token)


def _update(course: Course) -> Ask | End:
    assert course.dialect is not None
    if course.dialect is Dialect.LEGACY and course.is_overtaken:
        return _overtaken(course, "the service could take it for the later one's")
    is_nameless = course.dialect is Dialect.LEGACY or course.letter.due.token is None
    if is_nameless and not course.has_looked:
        return Ask(what="row")
    return Ask(what="update", dialect=course.dialect)


def _overtaken(course: Course, why: str) -> End:
    return End(state="dropped", why=f"overtaken by a later call: {why}", is_unsure=course.is_unsure)


def _heard_dialect(course: Course, answer: Answer) -> tuple[Course, Ask | End]:
    if answer.status == 200:
        course = replace(course, dialect=Dialect.SPEC)
    elif answer.status == 404:
        course = replace(course, dialect=Dialect.LEGACY)
    elif answer.status == 403 and course.refusal is None:
        course = replace(course, dialect=Dialect.SPEC)  # a 400 will tell
    else:
        return course, _waiting(course, answer)
    if course.refusal is None:
        return course, _update(course)
    if course.dialect is Dialect.SPEC:
        return _refused(course, course.refusal)
    return _in_legacy(course)


def _heard_update(course: Course, ask: Ask, answer: Answer) -> tuple[Course, Ask | End]:
    if answer.status is None or answer.status >= 500:
        course = replace(course, is_unsure=True)
        return course, _waiting(course, answer)
    if 200 <= answer.status < 300:
        return course, End(state="accepted", why=_in_short(answer), is_unsure=False)
    if answer.status == 400:
        course = replace(course, refusal=answer)
        if ask.dialect is Dialect.SPEC and not course.has_asked:
            return replace(course, dialect=None), Ask(what="dialect")
        return _refused(course, answer)
    if answer.status in (404, 409):
        return replace(course, refusal=answer), Ask(what="row")
    if answer.status in _AGAIN:
        return course, _waiting(course, answer)
    return course, End(state="dead", why=_in_short(answer), is_unsure=course.is_unsure)


def _refused(course: Course, answer: Answer) -> tuple[Course, Ask | End]:
    """
    A 400: because of the dialect, or of the state of the snapshot.

    Only in the first case the legacy body may follow: it names no operation, and could end the wait
    for another one.
    """
    if course.dialect is Dialect.SPEC and _FOREIGN.search(answer.text):
        return _in_legacy(course)
    return course, Ask(what="row")


def _in_legacy(course: Course) -> tuple[Course, Ask | End]:
    course = replace(course, dialect=Dialect.LEGACY, refusal=None)
    return course, _update(course)


def _heard_row(course: Course, answer: Answer) -> tuple[Course, Ask | End]:
    if answer.status not in (200, 404):
        return course, _waiting(course, answer)
    if course.refusal is None:
        seen = course.letter.seen if course.letter.is_unsure else answer.seen
        return _looked(replace(course, has_looked=True, seen=seen), answer)
    row = answer.row if answer.status == 200 else None
    said = f"{_in_short(course.refusal)}; the snapshot is {row or 'not there'}"
    if _shows_acceptance(course, row):
        return course, End(state="accepted", why=said, is_unsure=False)
    if course.is_overtaken:  # a person has nothing to do about it; and it must not hold up that one
        return course, _overtaken(course, said)
    if course.refusal.status == 409:
        return course, _waiting(course, replace(course.refusal, text=said))
    return course, End(state="dead", why=said, is_unsure=course.is_unsure)


def _looked(course: Course, answer: Answer) -> tuple[Course, Ask | End]:
    """
    Before an update that names no operation: whether it may still be meant.

    Where an earlier try may have been accepted, the wait may be that for a retry, whose call is not
    here yet. The service has then changed the snapshot since.
    """
    row = answer.row if answer.status == 200 else None
    if course.seen is not None and answer.seen != course.seen:
        if _shows_acceptance(course, row):
            said = f"an earlier try: the snapshot is {row or 'not there'}"
            return course, End(state="accepted", why=said, is_unsure=False)
        if row in ("creating", "deleting"):
            said = f"the snapshot is {row}, and was changed since the last try: not sent again"
            return course, End(state="waiting", why=said, is_unsure=True)
    return course, _update(course)


def _shows_acceptance(course: Course, row: str | None) -> bool:
    """
    Whether the row of a snapshot shows that this very update was accepted.

    What only this update leads to is proof. What may also have come by another way counts only where
    an earlier try had no answer.

    So is a snapshot that is not there once it was deleted, to a service that knows which snapshots
    there are: it has answered 400 or 409, or it is ours, which finds those of every project. Ours sees
    in the headers what is done, and may have ended the deletion before the update came. To a stock one
    a 404 may mean that this identity is not to see it.
    """
    letter = course.letter
    assert letter.content is not None
    done = letter.content.outcome == "done"
    if letter.due.kind == "create":
        if row == ("available" if done else "error"):
            return True
        return course.is_unsure and row in ("deleting", "error_deleting")
    if not done and row == "error_deleting":
        return True
    knows = course.refusal is not None and course.refusal.status != 404
    knows = knows or course.dialect is Dialect.SPEC
    return row is None and (course.is_unsure or (done and knows))


def _waiting(course: Course, answer: Answer) -> End:
    return End(
        state="waiting",
        why=_in_short(answer),
        is_unsure=course.is_unsure,
        retry_after_s=answer.retry_after_s,
    )


def _in_short(answer: Answer) -> str:
    number = "no answer" if answer.status is None else str(answer.status)
    return f"{number}: {answer.text}" if answer.text else number
