"""What is done with each answer of the volume service."""

from __future__ import annotations

from typing import Any

import pytest

from qmpsnap.delivery import machine
from qmpsnap.delivery.machine import Answer, Ask, End
from qmpsnap.journal.letter import Letter
from qmpsnap.status import Dialect
from tests.unit.letter_samples import DONE, FAILED, letter

SPEC = Answer(status=200)
STOCK = Answer(status=404)
FOREIGN = Answer(
    status=400,
    text="Additional properties are not allowed ('file_format' was unexpected)",
)
NOT_ALLOWED = Answer(status=400, text="Snapshot status available not allowed for update")


def row(status: str) -> Answer:
    return Answer(status=200, row=status)


GONE = Answer(status=404, text="Snapshot s1 could not be found.")


UNCHANGED = Answer(status=200, row="deleting", seen="1")


def course(
    letter: Letter,
    *answers: Answer,
    dialect: Dialect | None = None,
    later: tuple[Letter, ...] = (),
    look: Answer = UNCHANGED,
) -> tuple[list[str], End]:
    """
    What is asked, with these answers, and how it ends; every answer is used.

    `look` is what is seen before an update that names no operation; it is not among the answers.
    """
    left, asked = list(answers), []
    where, step = machine.begun(letter, later, dialect)
    while isinstance(step, Ask):
        is_look = step.what == "row" and where.refusal is None
        asked.append(
            "look" if is_look else str(step.dialect) if step.what == "update" else step.what
        )
        where, step = machine.heard(where, step, look if is_look else left.pop(0))
    assert not left
    return asked, step


class TestAccepted:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_at_once(self, status: int) -> None:
        asked, end = course(letter(), SPEC, Answer(status=status))
        assert asked == ["dialect", "spec"]
        assert (end.state, end.is_unsure) == ("accepted", False)

    def test_the_dialect_is_remembered(self) -> None:
        asked, _ = course(letter(), Answer(status=202), dialect=Dialect.LEGACY)
        assert asked == ["look", "legacy"]

    def test_a_stock_service(self) -> None:
        assert course(letter(), STOCK, Answer(status=202))[0] == ["dialect", "look", "legacy"]


class TestDialect:
    def test_asked_again_after_a_400_and_it_has_changed(self) -> None:
        asked, end = course(letter(), FOREIGN, STOCK, Answer(status=202), dialect=Dialect.SPEC)
        assert asked == ["spec", "dialect", "look", "legacy"]
        assert end.state == "accepted"

    def test_it_says_that_it_knows_it_and_does_not(self) -> None:
        """The extension is loaded before the standard ones, whose handler replaces its own."""
        asked, end = course(letter(), SPEC, FOREIGN, Answer(status=202))
        assert asked == ["dialect", "spec", "look", "legacy"]
        assert end.state == "accepted"

    def test_no_legacy_body_where_the_state_was_the_reason(self) -> None:
        asked, end = course(letter(), SPEC, NOT_ALLOWED, row("error"))
        assert asked == ["dialect", "spec", "row"]
        assert end.state == "dead"

    def test_nor_where_ours_refuses_the_status(self) -> None:
        """It names the status that it was given (`qmpsnap.openstack.cinder`)."""
        text = "status: 'creating_compute_complete' in answer to deleting"
        asked, _ = course(letter("create"), SPEC, Answer(status=400, text=text), row("deleting"))
        assert asked == ["dialect", "spec", "row"]

    def test_who_may_not_ask_tries(self) -> None:
        refused = Answer(status=403)
        assert course(letter(), refused, FOREIGN, Answer(status=202))[0] == [
            "dialect",
            "spec",
            "look",
            "legacy",
        ]

    @pytest.mark.parametrize("status", [None, 401, 429, 500, 503])
    def test_it_cannot_be_asked(self, status: int | None) -> None:
        asked, end = course(letter(), Answer(status=status, retry_after_s=7.0))
        assert asked == ["dialect"]
        assert (end.state, end.is_unsure, end.retry_after_s) == ("waiting", False, 7.0)


@pytest.mark.parametrize("status", [401, 403, 408, 413, 425, 429])
def test_what_passes(status: int) -> None:
    _, end = course(letter(), SPEC, Answer(status=status, retry_after_s=9.0, text="later"))
    assert (end.state, end.retry_after_s, end.is_unsure) == ("waiting", 9.0, False)
    assert end.why == f"{status}: later"


@pytest.mark.parametrize("status", [None, 500, 502, 503, 504])
def test_it_may_have_been_stored(status: int | None) -> None:
    _, end = course(letter(), SPEC, Answer(status=status, text="cut"))
    assert (end.state, end.is_unsure) == ("waiting", True)


@pytest.mark.parametrize("status", [405, 410, 415, 301])
def test_what_never_passes(status: int) -> None:
    assert course(letter(), SPEC, Answer(status=status))[1].state == "dead"


def test_once_unsure_stays_unsure() -> None:
    _, end = course(letter(is_unsure=True), SPEC, Answer(status=429))
    assert end.is_unsure


@pytest.mark.parametrize(
    ("kind", "content", "unsure", "found", "state"),
    [
        ("create", DONE, False, "available", "accepted"),
        ("create", DONE, True, "available", "accepted"),
        ("create", DONE, False, "creating", "dead"),
        ("create", DONE, True, "error", "dead"),
        ("create", DONE, False, "deleting", "dead"),
        ("create", DONE, True, "deleting", "accepted"),
        ("create", DONE, True, None, "dead"),
        ("create", FAILED, False, "error", "accepted"),
        ("create", FAILED, False, "available", "dead"),
        ("delete", DONE, True, None, "accepted"),
        ("delete", DONE, True, "available", "dead"),
        ("delete", DONE, True, "error_deleting", "dead"),
        ("delete", FAILED, False, "error_deleting", "accepted"),
        ("delete", FAILED, False, None, "dead"),
        ("delete", FAILED, True, None, "accepted"),
        ("delete", FAILED, True, "available", "dead"),
    ],
)
@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_the_row_shows(
    kind: Any, content: Any, unsure: bool, found: str | None, state: str, dialect: Dialect
) -> None:
    """A 400 to an update that was stored is no refusal."""
    one = letter(kind, content, is_unsure=unsure)
    first = STOCK if dialect is Dialect.LEGACY else SPEC
    answer = GONE if found is None else row(found)
    refusal = GONE if found is None else NOT_ALLOWED
    asked, end = course(one, first, refusal, answer)
    looks = ["look"] if dialect is Dialect.LEGACY else []
    assert asked == ["dialect", *looks, dialect, "row"]
    assert end.state == state


@pytest.mark.parametrize(
    ("service", "refusal", "state"),
    [
        (SPEC, GONE, "accepted"),
        (SPEC, NOT_ALLOWED, "accepted"),
        (STOCK, NOT_ALLOWED, "accepted"),
        (STOCK, GONE, "dead"),
    ],
    ids=["ours", "ours, a moment before", "stock, a moment before", "stock, not seen"],
)
def test_a_snapshot_that_is_deleted_before_it_is_told_so(
    service: Answer, refusal: Answer, state: str
) -> None:
    """Ours has seen in the headers that it is done. A stock one may not show it to this identity."""
    assert course(letter(), service, refusal, GONE)[1].state == state


def test_a_row_that_cannot_be_seen() -> None:
    _, end = course(letter(is_unsure=True), STOCK, NOT_ALLOWED, Answer(status=503))
    assert (end.state, end.is_unsure) == ("waiting", True)


def test_a_conflict_passes_unless_the_row_shows_more() -> None:
    conflict = Answer(status=409, retry_after_s=3.0)
    _, end = course(letter(), SPEC, conflict, row("deleting"))
    assert (end.state, end.retry_after_s) == ("waiting", 3.0)
    _, end = course(letter("create"), SPEC, conflict, row("available"))
    assert end.state == "accepted"


class TestOvertaken:
    """A stale update must not end the wait for a later operation."""

    def later(self, **changes: Any) -> Letter:
        return letter(number=2, id="b", **{"token": "t2", "state": "due", **changes})

    def test_told_apart_by_the_token(self) -> None:
        asked, end = course(letter(), SPEC, Answer(status=202), later=(self.later(),))
        assert (asked, end.state) == (["dialect", "spec"], "accepted")

    def test_not_in_legacy(self) -> None:
        asked, end = course(letter(), STOCK, later=(self.later(),))
        assert (asked, end.state) == (["dialect"], "dropped")

    def test_nor_when_it_becomes_legacy_on_the_way(self) -> None:
        asked, end = course(letter(), SPEC, FOREIGN, later=(self.later(),))
        assert (asked, end.state) == (["dialect", "spec"], "dropped")

    @pytest.mark.parametrize(("mine", "other"), [(None, "t2"), ("t1", "t1"), ("t1", None)])
    def test_nor_without_tokens_that_differ(self, mine: str | None, other: str | None) -> None:
        asked, end = course(letter(token=mine), later=(self.later(token=other),))
        assert (asked, end.state) == ([], "dropped")

    @pytest.mark.parametrize("status", [400, 409])
    def test_one_that_is_refused_holds_up_nobody(self, status: int) -> None:
        refused = Answer(status=status, text="other-operation")
        _, end = course(letter(), SPEC, refused, row("deleting"), later=(self.later(),))
        assert end.state == "dropped"

    @pytest.mark.parametrize("state", ["accepted", "closed"])
    def test_never_after_a_later_one(self, state: str) -> None:
        asked, end = course(letter(), later=(self.later(state=state),))
        assert (asked, end.state) == ([], "dropped")


class TestLook:
    """The call of a retry may still be on its way, when its wait has begun."""

    def unsure(self, kind: Any = "delete", content: Any = DONE, **changes: Any) -> Letter:
        return letter(kind, content, is_unsure=True, **{"seen": "1", **changes})

    def changed(self, status: str | None) -> Answer:
        return GONE if status is None else Answer(status=200, row=status, seen="2")

    def test_before_every_update_that_names_no_operation(self) -> None:
        assert course(letter(token=None), SPEC, Answer(status=202))[0] == [
            "dialect",
            "look",
            "spec",
        ]
        assert course(letter(), SPEC, Answer(status=202))[0] == ["dialect", "spec"]

    def test_nothing_has_changed_since(self) -> None:
        asked, end = course(self.unsure(), STOCK, Answer(status=202))
        assert (asked[-1], end.state) == ("legacy", "accepted")

    @pytest.mark.parametrize("kind", ["create", "delete"])
    @pytest.mark.parametrize("content", [DONE, FAILED])
    def test_it_may_be_the_wait_for_another_one(self, kind: Any, content: Any) -> None:
        look = self.changed("creating" if kind == "create" else "deleting")
        asked, end = course(self.unsure(kind, content), STOCK, look=look)
        assert (asked, end.state, end.is_unsure) == (["dialect", "look"], "waiting", True)

    def test_it_was_accepted(self) -> None:
        look = self.changed("error_deleting")
        asked, end = course(self.unsure(content=FAILED), STOCK, look=look)
        assert (asked, end.state) == (["dialect", "look"], "accepted")
        asked, end = course(self.unsure(), STOCK, look=self.changed(None))
        assert (asked, end.state) == (["dialect", "look"], "accepted")

    def test_one_that_was_certainly_not_accepted_is_sent(self) -> None:
        one = letter(seen="1")
        assert course(one, STOCK, Answer(status=202), look=self.changed("deleting"))[0][-1] == (
            "legacy"
        )

    def test_what_was_seen_is_kept_with_it(self) -> None:
        where, step = machine.begun(letter(), (), Dialect.LEGACY)
        assert isinstance(step, Ask)
        where, _ = machine.heard(where, step, UNCHANGED)
        assert where.seen == "1"
        where, step = machine.begun(self.unsure(), (), Dialect.LEGACY)
        assert isinstance(step, Ask)
        where, _ = machine.heard(where, step, self.changed("deleting"))
        assert where.seen == "1"


class TestBody:
    def test_done(self) -> None:
        assert machine.body_of(letter(), Dialect.SPEC) == {
            "os-update_snapshot_status": {
                "status": "deleting_compute_complete",
                "progress": "90%",
                "file_format": {"volume-1": "raw"},
                "operation": "t1",
            }
        }

    def test_failed_in_legacy(self) -> None:
        assert machine.body_of(letter("create", FAILED), Dialect.LEGACY) == {
            "os-update_snapshot_status": {"status": "error", "progress": "0%"}
        }

    def test_nothing_is_told_of_what_is_not_known(self) -> None:
        with pytest.raises(ValueError, match="due"):
            machine.body_of(letter(content=None, state="due"), Dialect.SPEC)
