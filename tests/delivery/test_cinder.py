"""The three requests to Cinder, over HTTP and with keystoneauth1."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1.noauth import NoAuth
from keystoneauth1.service_token import ServiceTokenAuthWrapper
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from msgspec.structs import replace

from qmpsnap.delivery.cinder import Cinder, _answer, _retry_after
from qmpsnap.delivery.machine import Ask
from qmpsnap.delivery.outbox import Outbox, wait_s
from qmpsnap.journal.file import Journal
from qmpsnap.status import Dialect
from tests.rig.volume_service import Fault, VolumeService
from tests.unit.letter_samples import DONE, FAILED, found, letter, stored

UPDATE = Ask(what="update", dialect=Dialect.LEGACY)
ROW = Ask(what="row")
DIALECT = Ask(what="dialect")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


@pytest.fixture
def service() -> Iterator[VolumeService]:
    with VolumeService() as listening:
        listening.wait_for("s1", "deleting")
        yield listening


def cinder(service: VolumeService, timeout_s: float = 60.0, **more: Any) -> Cinder:
    session = Session(auth=NoAuth(endpoint="http://unused"))
    return Cinder(session, timeout_s=timeout_s, **{"endpoint": service.endpoint, **more})


def fails(service: VolumeService, *faults: Fault | None) -> None:
    left = list(faults)
    service.fault = lambda _what: left.pop(0) if left else None


def test_accepted(service: VolumeService) -> None:
    service.is_quick = False
    assert cinder(service).ask(letter(), UPDATE).status == 202
    assert (service.rows["s1"].status, service.rows["s1"].progress) == ("deleting", "90%")
    assert cinder(service).ask(letter(), ROW).row == "deleting"


def test_gone(service: VolumeService) -> None:
    cinder(service).ask(letter(), UPDATE)
    answer = cinder(service).ask(letter(), ROW)
    assert (answer.status, answer.row) == (404, None)
    assert answer.text == "Snapshot s1 could not be found."


@pytest.mark.parametrize(("is_stocks", "status"), [(True, None), (False, 404)])
def test_a_404_that_is_not_cinders_is_no_answer(is_stocks: bool, status: int | None) -> None:
    """A proxy's, while no API is behind it. A stock Cinder says so of a path that it does not know."""
    page = "<html>404 Not Found</html>"
    said = SimpleNamespace(status_code=404, content=page.encode(), text=page, headers={})
    answer = _answer(said, is_stocks=is_stocks)
    assert (answer.status, page in answer.text) == (status, True)


@pytest.mark.parametrize(("is_spec", "status"), [(True, 200), (False, 404)])
def test_the_dialect(service: VolumeService, is_spec: bool, status: int) -> None:
    service.is_spec = is_spec
    assert cinder(service).ask(letter(), DIALECT).status == status


def test_a_stock_service_names_what_it_does_not_know(service: VolumeService) -> None:
    answer = cinder(service).ask(letter(), Ask(what="update", dialect=Dialect.SPEC))
    assert answer.status == 400
    assert "'file_format', 'operation' were unexpected" in answer.text


@pytest.mark.parametrize("fault", ["413", "429"])
def test_how_long_to_wait(service: VolumeService, fault: Fault) -> None:
    fails(service, fault)
    answer = cinder(service).ask(letter(), UPDATE)
    assert (answer.status, answer.retry_after_s) == (int(fault), 1.0)


@pytest.mark.parametrize("fault", ["cut", "gone", "silent after"])
def test_no_answer(service: VolumeService, fault: Fault) -> None:
    fails(service, fault)
    answer = cinder(service, timeout_s=0.2).ask(letter(), UPDATE)
    assert answer.status is None
    assert answer.text


def test_nobody_listens(service: VolumeService) -> None:
    service.stop()
    answer = cinder(service).ask(letter(), UPDATE)
    assert answer.status is None
    assert "ConnectFailure" in answer.text
    service.start()
    assert cinder(service).ask(letter(), UPDATE).status == 202


def test_whatever_is_in_an_id_stays_in_its_place(service: VolumeService) -> None:
    one = letter()
    who = replace(one.due.addressee, snapshot="../volumes/1?x", project="a/b")
    strange = replace(one, due=replace(one.due, addressee=who))
    service.rows["..%2Fvolumes%2F1%3Fx"] = service.rows["s1"]
    assert cinder(service).ask(strange, UPDATE).status == 202


class TestIdentity:
    def test_a_token(self, service: VolumeService) -> None:
        service.token = "admin:p1"
        endpoint = service.endpoint.replace("%(project_id)s", "p1")
        session = Session(auth=Token(endpoint, "admin:p1"))
        assert Cinder(session).ask(letter(), UPDATE).status == 202

    def test_the_users_with_that_of_the_service(self, service: VolumeService) -> None:
        endpoint = service.endpoint.replace("%(project_id)s", "p1")
        auth = ServiceTokenAuthWrapper(Token(endpoint, "user"), Token(endpoint, "service"))
        assert Cinder(Session(auth=auth)).ask(letter(), UPDATE).status == 202
        (headers,) = service.headers
        assert (headers["x-auth-token"], headers["x-service-token"]) == ("user", "service")

    def test_one_that_is_not_let_in(self, service: VolumeService) -> None:
        service.token = "admin:p1"
        assert cinder(service).ask(letter(), UPDATE).status == 401

    def test_the_project_of_whoever_asks(self, service: VolumeService) -> None:
        """Cinder refuses a path with another project than the token's."""

        class Own(Session):
            def get_project_id(self, *_: object) -> str:
                return "own"

        session = Own(auth=NoAuth(endpoint="http://unused"))
        assert Cinder(session, endpoint=service.endpoint)._url("p1").endswith("/v3/own")
        assert cinder(service)._url("p1").endswith("/v3/p1")


def test_retry_after() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < (_retry_after(in_a_minute) or 0) <= 60
    assert _retry_after("7") == 7.0
    assert [_retry_after(one) for one in (None, "soon", "-1")] == [None, None, 0.0]


def test_the_wait_has_jitter_and_a_bound() -> None:
    first = {wait_s(1) for _ in range(50)}
    assert all(1.0 <= one <= 2.0 for one in first)
    tenth = {wait_s(10) for _ in range(50)}
    assert len(tenth) > 40
    assert all(1.0 <= one <= 300.0 for one in tenth)
    assert wait_s(5000) <= 300.0


@pytest.mark.parametrize("is_spec", [True, False])
@pytest.mark.parametrize("fault", ["500 after", "silent after", "cut"])
@pytest.mark.parametrize(
    ("status", "content", "left"),
    [
        ("creating", DONE, "available"),
        ("creating", FAILED, "error"),
        ("deleting", DONE, None),
        ("deleting", FAILED, "error_deleting"),
    ],
)
def test_stored_and_not_answered(
    service: VolumeService,
    journal: Journal,
    is_spec: bool,
    fault: Fault,
    status: str,
    content: Any,
    left: str | None,
) -> None:
    """Sent again, it is accepted, and has one effect."""
    service.is_spec = is_spec
    service.wait_for("s1", status, "t1")
    id_ = stored(journal, content, kind=status.replace("ing", "e"))
    fails(service, None, fault)
    box = Outbox(journal, {"cinder": cinder(service, timeout_s=0.5)}.get)
    for _ in range(50):  # on a busy machine, a good answer may come too late as well
        if not box.send(at_once=True).left:
            break
    assert found(journal, id_)[0].state == "closed"
    assert len(service.effects) == 1
    row = service.rows["s1"]
    assert (row.status if row.is_there else None) == left


@pytest.mark.parametrize("is_spec", [True, False])
@pytest.mark.parametrize("content", [DONE, FAILED])
def test_the_wait_for_a_retry_is_not_ended(
    service: VolumeService, journal: Journal, is_spec: bool, content: Any
) -> None:
    """Its call is still on its way, and no operation is named."""
    service.is_spec = is_spec
    service.wait_for("s1", "deleting")
    id_ = stored(journal, content, token=None)
    left: list[Fault] = ["500 after"]
    service.fault = lambda what: left.pop() if left and what == "update" else None
    box = Outbox(journal, {"cinder": cinder(service)}.get)
    box.send(at_once=True)
    assert (len(service.effects), found(journal, id_)[0].is_unsure) == (1, True)
    service.wait_for("s1", "deleting")
    assert box.send(at_once=True).left
    assert (len(service.effects), service.rows["s1"].progress) == (1, "0%")
    stored(journal, DONE, token=None)
    assert box.send(at_once=True).left == ()
    assert [one.state for one in found(journal)] == ["dropped", "closed"]
    assert len(service.effects) == 2
