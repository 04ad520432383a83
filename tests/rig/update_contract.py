"""What a stock Cinder answers to status updates: the same tests for the real one and for our service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from qmpsnap.delivery.cinder import Cinder
from qmpsnap.delivery.machine import Ask
from qmpsnap.delivery.outbox import Outbox
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Content, Letter
from qmpsnap.status import Dialect
from tests.unit.letter_samples import DONE, FAILED, due, found, letter, stored

LEGACY: Final = Ask(what="update", dialect=Dialect.LEGACY)
SPEC: Final = Ask(what="update", dialect=Dialect.SPEC)
ROW: Final = Ask(what="row")
DIALECT: Final = Ask(what="dialect")


class Volumes(Protocol):
    """A service with one snapshot."""

    snapshot: str
    token: str

    @property
    def endpoint(self) -> str:
        """With the project in it."""

    def put(self, status: str, progress: str) -> None:
        """Let the snapshot be as if Cinder's driver had left it so."""

    def get(self) -> tuple[str, str]:
        """Status and progress, as they are stored."""


class UpdateContract:
    """To be derived from, with a fixture `volumes`."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        """An empty one."""
        tmp_path.chmod(0o700)
        return Journal(tmp_path)

    def cinder(self, volumes: Volumes) -> Cinder:
        """The service, by the client that the product uses."""
        return Cinder(Session(auth=Token(volumes.endpoint, volumes.token)))

    def letter(
        self, volumes: Volumes, kind: Any, content: Content, snapshot: str | None = None
    ) -> Letter:
        """A letter about its snapshot."""
        who = Addressee(snapshot=snapshot or volumes.snapshot, volume="v")
        return letter(kind, content, due=due(kind=kind, addressee=who))

    def test_no_such_extension(self, volumes: Volumes) -> None:
        one = self.letter(volumes, "create", DONE)
        assert self.cinder(volumes).ask(one, DIALECT).status == 404

    @pytest.mark.parametrize(
        ("before", "kind", "content", "after"),
        [
            (("creating", "0%"), "create", DONE, ("creating", "90%")),
            (("creating", "90%"), "create", DONE, ("creating", "90%")),
            (("creating", "0%"), "create", FAILED, ("error", "0%")),
            (("deleting", "100%"), "delete", DONE, ("deleting", "90%")),
            (("deleting", "100%"), "delete", FAILED, ("error_deleting", "0%")),
        ],
    )
    def test_taken(
        self, volumes: Volumes, before: Any, kind: Any, content: Content, after: Any
    ) -> None:
        volumes.put(*before)
        answer = self.cinder(volumes).ask(self.letter(volumes, kind, content), LEGACY)
        assert (answer.status, volumes.get()) == (202, after)

    @pytest.mark.parametrize(
        ("status", "kind", "content", "said"),
        [
            ("available", "create", DONE, "Snapshot status available not allowed"),
            ("error", "create", FAILED, "Snapshot status error not allowed"),
            ("error_deleting", "delete", FAILED, "Snapshot status error_deleting not allowed"),
            ("deleting", "create", DONE, "Provided snapshot status creating not allowed"),
            ("creating", "delete", DONE, "Provided snapshot status deleting not allowed"),
            ("creating", "delete", FAILED, "Provided snapshot status error_deleting not allowed"),
        ],
    )
    def test_not_taken(
        self, volumes: Volumes, status: str, kind: Any, content: Content, said: str
    ) -> None:
        volumes.put(status, "50%")
        answer = self.cinder(volumes).ask(self.letter(volumes, kind, content), LEGACY)
        assert answer.status == 400
        assert said in answer.text
        assert volumes.get() == (status, "50%")

    @pytest.mark.parametrize("status", ["creating", "available"])
    @pytest.mark.parametrize("content", [DONE, FAILED])
    def test_the_other_dialect(self, volumes: Volumes, content: Content, status: str) -> None:
        """The schema is checked before the state, and says that a key is foreign to it."""
        volumes.put(status, "0%")
        answer = self.cinder(volumes).ask(self.letter(volumes, "create", content), SPEC)
        assert answer.status == 400
        assert "Additional properties are not allowed" in answer.text
        assert volumes.get() == (status, "0%")

    def test_no_such_snapshot(self, volumes: Volumes) -> None:
        one = self.letter(volumes, "create", DONE, "00000000-0000-0000-0000-000000000000")
        assert self.cinder(volumes).ask(one, LEGACY).status == 404
        assert self.cinder(volumes).ask(one, ROW).status == 404

    def test_the_row_tells_that_it_was_changed(self, volumes: Volumes) -> None:
        volumes.put("deleting", "100%")
        cinder, one = self.cinder(volumes), self.letter(volumes, "delete", DONE)
        first = cinder.ask(one, ROW)
        assert (first.status, first.row) == (200, "deleting")
        assert cinder.ask(one, ROW).seen == first.seen != None  # noqa: E711
        cinder.ask(one, LEGACY)
        assert cinder.ask(one, ROW).seen != first.seen

    @pytest.mark.parametrize(
        ("kind", "content", "waits", "left"),
        [
            ("create", DONE, "creating", "available"),
            ("create", FAILED, "creating", "error"),
            ("delete", FAILED, "deleting", "error_deleting"),
        ],
    )
    def test_stored_and_not_noted(
        self, volumes: Volumes, journal: Journal, kind: Any, content: Content, waits: str, left: str
    ) -> None:
        """A sender died between the acceptance and its note; Cinder has gone on meanwhile."""
        volumes.put(waits, "0%")
        who = Addressee(snapshot=volumes.snapshot, volume="v")
        id_ = stored(journal, content, kind=kind, addressee=who)
        cinder = self.cinder(volumes)
        (one,) = found(journal, id_)
        seen = cinder.ask(one, ROW).seen
        with journal.opened() as store:
            store.letters.trying(id_, seen)
        assert cinder.ask(one, LEGACY).status == 202
        volumes.put(left, "0%")
        Outbox(journal, {"cinder": cinder}.get).send(at_once=True)
        assert found(journal, id_)[0].state == "closed"
        assert volumes.get() == (left, "0%")
