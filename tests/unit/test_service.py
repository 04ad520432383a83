"""Nova's two calls: whatever comes of them, the volume service is told once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError, Refused, Unreachable
from qmpsnap.formats.layers import Disks
from qmpsnap.monitor.base import CommandFailed, LostInMidCommand
from qmpsnap.operations.guest import Guest, Thawed
from qmpsnap.operations.job.states import JobFailed, JobStatus, JobView
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    Interrupted,
    OutcomeUnknown,
    XmlBehind,
)
from qmpsnap.operations.quiesce import NotConsistent, NotThawed
from qmpsnap.operations.requests import BadRequest
from qmpsnap.operations.snapshot import SizeChanged
from qmpsnap.service import Update, volume_snapshot_create, volume_snapshot_delete
from tests.unit import samples
from tests.unit.fake_guest import CONCLUDED, FakeGuest, with_layers
from tests.unit.samples import BASE
from tests.unit.test_merge import lagging
from tests.unit.test_snapshot import after_create

CREATE_INFO = {"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "new"}
DELETE_INFO = {"type": "qcow2", "file_to_merge": "volume-1.s1", "merge_target_file": "volume-1"}
CREATED = {
    "status": "creating_compute_complete",
    "progress": "90%",
    "file_format": {"volume-1.new": "qcow2"},
}
DELETED = {
    "status": "deleting_compute_complete",
    "progress": "90%",
    "file_format": {"volume-1": "raw"},
}
CREATING = {"status": "creating", "progress": "0%"}
DELETING = {"status": "deleting", "progress": "0%"}
NOT_CREATED = {"status": "error", "progress": "0%"}
NOT_DELETED = {"status": "error_deleting", "progress": "0%"}


def guest(*views: JobView) -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(3)), *(views or (CONCLUDED,)))


class Service:
    """Hears the updates."""

    def __init__(self) -> None:
        self.updates: list[Update] = []

    @property
    def status(self) -> object:
        """The inner part of the one update."""
        (update,) = self.updates
        assert list(update.body) == ["os-update_snapshot_status"]
        return json.loads(json.dumps(update.body))["os-update_snapshot_status"]


@pytest.fixture
def service() -> Service:
    return Service()


def create(guest: Any, service: Service, info: object = CREATE_INFO, **more: Any) -> Update:
    tell = service.updates.append
    return volume_snapshot_create(guest, "1", info, tell=tell, **more)  # type: ignore[arg-type]


def delete(guest: Any, service: Service, info: object = DELETE_INFO, **more: Any) -> Update:
    tell = service.updates.append
    return volume_snapshot_delete(guest, "1", "id", info, tell=tell, **more)  # type: ignore[arg-type]


def test_created(service: Service) -> None:
    update = create(guest(), service)
    assert service.status == CREATED
    assert service.updates == [update]
    assert update.error is None
    assert update.result is not None
    assert samples.files(update.result.disk)[0] == "volume-1.new"


def test_deleted(service: Service) -> None:
    update = delete(guest(), service)
    assert service.status == DELETED
    assert service.updates == [update]
    assert update.result is not None
    assert update.result.dropped == ("/share/volume-1.s1",)
    assert update.result.removed == ()


def test_without_anybody_to_tell() -> None:
    update = volume_snapshot_create(guest(), "1", CREATE_INFO)
    assert update.body == {"os-update_snapshot_status": CREATED}


@pytest.mark.parametrize("dialect", ["spec", "legacy"])
@pytest.mark.parametrize(
    ("call", "key", "info", "done"),
    [(create, "id", CREATE_INFO, CREATED), (delete, "operation", DELETE_INFO, DELETED)],
)
class TestToken:
    """The caller's name for the operation: an update must not end another one's wait."""

    def test_done(
        self,
        call: Callable[..., Update],
        key: str,
        info: dict[str, Any],
        done: dict[str, Any],
        dialect: str,
        service: Service,
    ) -> None:
        call(guest(), service, info | {key: "token"}, dialect=dialect)
        legacy = {"status": done["status"].removesuffix("_compute_complete"), "progress": "90%"}
        assert service.status == (done | {"operation": "token"} if dialect == "spec" else legacy)

    def test_refused(
        self,
        call: Callable[..., Update],
        key: str,
        info: dict[str, Any],
        done: object,
        dialect: str,
        service: Service,
    ) -> None:
        """Also where the rest of the dictionary makes no sense."""
        call(guest(), service, info | {key: "token", "type": "raw"}, dialect=dialect)
        failed = NOT_CREATED if call is create else NOT_DELETED
        assert service.status == (failed | {"operation": "token"} if dialect == "spec" else failed)

    def test_unknown(
        self,
        call: Callable[..., Update],
        key: str,
        info: dict[str, Any],
        done: object,
        dialect: str,
        service: Service,
    ) -> None:
        fake = guest()
        step = "switch" if call is create else "start"
        fake.fails_after[step] = fake.fails["view"] = LostInMidCommand("x", "gone")
        if call is create:
            fake.readings = [Disks(guest=None, disks=())]  # the disk cannot be seen any more
        call(fake, service, info | {key: "token"}, dialect=dialect)
        running = CREATING if call is create else DELETING
        assert service.status == (
            running | {"operation": "token"} if dialect == "spec" else running
        )

    @pytest.mark.parametrize("token", [None, 7, "", ["a"], {"a": "b"}, True])
    def test_not_a_text(
        self,
        call: Callable[..., Update],
        key: str,
        info: dict[str, Any],
        done: object,
        dialect: str,
        token: object,
        service: Service,
    ) -> None:
        fake = guest()
        update = call(fake, service, info | {key: token}, dialect=dialect)
        assert isinstance(update.error, BadRequest)
        assert service.status == (NOT_CREATED if call is create else NOT_DELETED)
        assert not fake.calls


@pytest.mark.parametrize("info", ["{}", [], None, 7, [("type", "qcow2")]])
@pytest.mark.parametrize(("call", "status"), [(create, NOT_CREATED), (delete, NOT_DELETED)])
def test_no_dictionary(
    call: Callable[..., Update], status: object, info: object, service: Service
) -> None:
    update = call(guest(), service, info)
    assert isinstance(update.error, BadRequest)
    assert service.status == status


def test_empty_snapshot_id(service: Service) -> None:
    update = volume_snapshot_delete(guest(), "1", "", DELETE_INFO, tell=service.updates.append)
    assert isinstance(update.error, Refused)
    assert service.status == NOT_DELETED


@pytest.mark.parametrize("call", [create, delete])
def test_no_such_dialect(call: Callable[..., Update], service: Service) -> None:
    """The mistake is the caller's, and the volume service hears of it all the same."""
    update = call(guest(), service, dialect="dutch")
    assert isinstance(update.error, ValueError)
    assert service.status == (NOT_CREATED if call is create else NOT_DELETED)


def test_job_failed(service: Service) -> None:
    update = delete(guest(JobView(status=JobStatus.CONCLUDED, error="No space left")), service)
    assert isinstance(update.error, JobFailed)
    assert update.result is None
    assert service.status == NOT_DELETED


def test_outcome_unknown(service: Service) -> None:
    """The guest may write to the overlay by now: that is not a failure."""
    fake = guest()
    fake.fails_after["switch"] = LostInMidCommand("transaction", "gone")
    fake.readings = [Disks(guest=None, disks=())]  # the disk cannot be seen any more
    update = create(fake, service)
    assert isinstance(update.error, OutcomeUnknown)
    assert service.status == CREATING


class TestCtrlC:
    def test_while_a_job_runs(self, service: Service) -> None:
        fake = guest(JobView(status=JobStatus.RUNNING))
        fake.fails["wait"] = KeyboardInterrupt()
        with pytest.raises(Interrupted):
            delete(fake, service)
        assert service.status == DELETING
        assert isinstance(service.updates[0].error, Interrupted)

    @pytest.mark.parametrize("call", [create, delete])
    def test_before_anything_was_begun(self, call: Callable[..., Update], service: Service) -> None:
        fake = guest()
        fake.fails["read"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            call(fake, service)
        assert service.status == (NOT_CREATED if call is create else NOT_DELETED)

    def test_in_a_create(self, service: Service) -> None:
        fake = guest()
        fake.fails_after["switch"] = KeyboardInterrupt()
        create(fake, service)
        assert service.status == CREATED

    def test_after_a_switch(self, service: Service) -> None:
        class Guest(FakeGuest):
            def read(self) -> Any:
                if "switch" in self.calls:
                    raise KeyboardInterrupt
                return super().read()

        with pytest.raises(OutcomeUnknown):
            create(Guest(samples.guest(samples.disk(3))), service)
        assert service.status == CREATING


class GreenletExit(BaseException):
    """What eventlet ends a thread with."""


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError(), OSError("no")])
class TestUnforeseen:
    def test_after_the_beginning(self, error: Exception, service: Service) -> None:
        """A defect of ours, in the middle of what cannot be known."""
        fake = guest()
        fake.fails["start"] = error
        update = delete(fake, service)
        assert update.error is error
        assert service.status == DELETING

    def test_before(self, error: Exception, service: Service) -> None:
        def opener() -> AbstractContextManager[Guest]:
            raise error

        update = create(opener, service)
        assert update.error is error
        assert service.status == NOT_CREATED


@pytest.mark.parametrize("error", [SystemExit(), GreenletExit()])
def test_the_thread_is_ended(error: BaseException, service: Service) -> None:
    fake = guest()
    fake.fails["start"] = error
    with pytest.raises(type(error)):
        delete(fake, service)
    assert service.status == DELETING


class TestOpener:
    def test_it_is_closed(self, service: Service) -> None:
        said: list[str] = []
        fake = guest()

        @contextmanager
        def opener() -> Iterator[Guest]:
            said.append("opened")
            yield fake
            said.append("closed")

        delete(opener, service)
        assert service.status == DELETED
        assert said == ["opened", "closed"]

    @pytest.mark.parametrize("call", [create, delete])
    def test_unreachable(self, call: Callable[..., Update], service: Service) -> None:
        """Nothing was sent, so nothing can have happened."""

        def opener() -> AbstractContextManager[Guest]:
            raise Unreachable

        update = call(opener, service)
        assert isinstance(update.error, Unreachable)
        assert service.status == (NOT_CREATED if call is create else NOT_DELETED)

    @pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
    def test_what_comes_after_the_work(self, error: BaseException, service: Service) -> None:
        @contextmanager
        def opener() -> Iterator[Guest]:
            yield guest()
            raise error

        if isinstance(error, Exception):
            assert create(opener, service).error is None
        else:
            with pytest.raises(KeyboardInterrupt):
                create(opener, service)
        assert service.status == CREATED


def test_nobody_hears() -> None:
    """Whoever tells may fail; it is not tried again."""
    told: list[Update] = []

    def tell(update: Update) -> None:
        told.append(update)
        raise OSError("no route to host")

    with pytest.raises(OSError, match="no route"):
        volume_snapshot_create(guest(), "1", CREATE_INFO, tell=tell)
    assert len(told) == 1


def _wrong_header(fake: FakeGuest) -> None:
    fake.readings = [after_create(None)]
    fake.fails["start"] = CommandFailed("block-stream", "", "busy")


def _not_thawed(fake: FakeGuest) -> None:
    fake.fails["thaw"] = NotThawed("no reply")


def _not_consistent(fake: FakeGuest) -> None:
    fake.thaws = Thawed(count=1)


def _resized(fake: FakeGuest) -> None:
    overlay, active, *below = after_create().disks[0].layers
    layers = (overlay, replace(active, virtual_size=99), *below)
    fake.readings = [with_layers(fake.guest, layers)]


def _theirs_below(fake: FakeGuest) -> None:
    names = ["volume-1.new", "volume-1.theirs", *samples.names(3)]
    layers = samples.linked(
        [samples.layer(name) for name in names[:-1]] + [samples.layer(BASE, "raw")]
    )
    fake.readings = [with_layers(fake.guest, layers)]


def _xml_behind(fake: FakeGuest) -> None:
    fake.readings = [lagging(after_create())] * 10_000


@pytest.mark.parametrize(
    ("happens", "error"),
    [
        (_wrong_header, HeaderWrong),
        (_not_thawed, NotThawed),
        (_not_consistent, NotConsistent),
        (_resized, SizeChanged),
        (_theirs_below, ChainUnexpected),
        (_xml_behind, XmlBehind),
    ],
)
def test_a_snapshot_that_is_there_is_never_told_as_an_error(
    happens: Callable[[FakeGuest], None],
    error: type[QmpsnapError],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The guest writes to the new file: a volume service that goes on with the old one loses that."""
    monkeypatch.setattr("qmpsnap.operations.fresh.XML_LAG_S", 0.0)
    fake = guest()
    happens(fake)
    update = create(fake, service, quiesce="require")
    assert isinstance(update.error, error)
    assert service.status == CREATING
    assert (update.error.stands, update.error.code) == (True, 6)


def _refused_switch(fake: FakeGuest) -> None:
    fake.fails["switch"] = CommandFailed("transaction", "", "no")


def _refused_and_not_thawed(fake: FakeGuest) -> None:
    _refused_switch(fake)
    _not_thawed(fake)


def _changed_before(fake: FakeGuest) -> None:
    fake.meanwhile["open"] = samples.guest(samples.disk(4))


def _theirs_alone(fake: FakeGuest) -> None:
    _refused_switch(fake)
    fake.readings = [samples.guest(samples.disk(4))]


@pytest.mark.parametrize(
    "happens", [_refused_switch, _refused_and_not_thawed, _changed_before, _theirs_alone]
)
def test_a_switch_that_has_not_happened_is(
    happens: Callable[[FakeGuest], None], service: Service
) -> None:
    fake = guest()
    happens(fake)
    update = create(fake, service, quiesce="require")
    assert isinstance(update.error, QmpsnapError)
    assert service.status == NOT_CREATED
    assert not update.error.stands
    assert fake.existing == set()
