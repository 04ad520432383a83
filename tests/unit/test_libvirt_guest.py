"""A running guest under libvirt, by a scripted domain: its jobs, its events, and its door."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.libvirt import guest as module
from qmpsnap.guests.libvirt.guest import LibvirtGuest, OnAnotherHost
from qmpsnap.monitor.base import CommandFailed, Event, LostInMidCommand
from qmpsnap.monitor.subscription import LIBVIRT_BLOCK_JOB
from qmpsnap.operations.guest import Guest, State
from qmpsnap.operations.job.loop import Ended, JobSteps, Loop
from qmpsnap.operations.job.machine import Limits
from qmpsnap.operations.job.states import Heard, JobStatus, JobView, Verb
from qmpsnap.operations.step import Does, NotNow, Step
from tests.unit import samples
from tests.unit.fake_libvirt import Domain, Error, install
from tests.unit.scripted import Each

COMMIT, PULL, COPY, ACTIVE, BACKUP = 3, 1, 2, 4, 5
COMPLETED, FAILED, CANCELED, READY = 0, 1, 2, 3


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr(module, "ASK_S", 0)


def xml(*disks: tuple[str, str]) -> str:
    made = (
        f'<disk type="file" device="disk"><source file="/share/{target}"/>'
        f'<target dev="{target}"/>{mirror}</disk>'
        for target, mirror in disks or (("vda", ""),)
    )
    return f"<domain><name>web1</name><devices>{''.join(made)}</devices></domain>"


def mirror(ready: str = "", job: str = "active-commit") -> str:
    return f'<mirror type="file" job="{job}" file="/share/base" {ready}><source file="/share/base"/></mirror>'


def guest(**answers: object) -> LibvirtGuest:
    return LibvirtGuest(Domain(**{"XMLDesc": xml(), **answers}), passthrough=False)


def info(type_: int, cur: int = 3, end: int = 9, bandwidth: int = 8) -> dict[str, int]:
    return {"type": type_, "bandwidth": bandwidth, "cur": cur, "end": end}


def heard(guest: LibvirtGuest, *events: Event) -> LibvirtGuest:
    """As when libvirt's event loop had run."""
    guest._hears = True
    for event in events:
        guest._monitor.events.put(event)
    return guest


def of_libvirt(status: int, disk: str = "vda") -> Event:
    return Event(LIBVIRT_BLOCK_JOB, {"disk": disk, "type": COMMIT, "status": status})


def of_qemu(error: str | None) -> Event:
    return Event("BLOCK_JOB_COMPLETED", {"device": "x"} | ({"error": error} if error else {}))


def test_it_is_a_guest() -> None:
    made: Guest = guest()
    assert made.outlines([samples.disk()]) == (None,)


class TestView:
    def test_of_a_job(self) -> None:
        found = guest(blockJobInfo=info(COMMIT))
        assert found.view("vda") == JobView(status=JobStatus.RUNNING, current=3, total=9)
        assert found._domain.calls == [("blockJobInfo", "vda", 1)]  # bandwidth in bytes

    @pytest.mark.parametrize("answer", [{}, None])
    def test_of_one_that_is_gone(self, answer: object) -> None:
        assert guest(blockJobInfo=answer).view("vda") == JobView(status=JobStatus.NULL)

    @pytest.mark.parametrize(
        ("type_", "cur", "disk", "status"),
        [
            (ACTIVE, 9, ("vda", mirror('ready="yes"')), "ready"),
            (COPY, 9, ("vda", mirror('ready="yes"', "copy")), "ready"),
            # Pivoted now, it would be declined, and after thirty tries cancelled.
            (ACTIVE, 9, ("vda", mirror()), "running"),
            (ACTIVE, 9, ("vda", mirror('ready="abort"')), "running"),
            (ACTIVE, 9, ("vda", ""), "running"),
            (ACTIVE, 9, ("vdb", mirror('ready="yes"')), "running"),
            (ACTIVE, 8, ("vda", mirror('ready="yes"')), "running"),
            (COMMIT, 9, ("vda", mirror('ready="yes"')), "running"),
        ],
    )
    def test_a_mirror_is_ready_when_the_xml_says_so(
        self, type_: int, cur: int, disk: tuple[str, str], status: str
    ) -> None:
        found = guest(blockJobInfo=info(type_, cur), XMLDesc=xml(disk))
        assert found.view("vda").status == status

    def test_libvirt_that_is_gone(self) -> None:
        error = Error("RPC", "client socket is closed")
        with pytest.raises(LostInMidCommand, match="client socket"):
            guest(blockJobInfo=error, isActive=error).view("vda")


class TestJobs:
    @pytest.mark.parametrize(
        ("type_", "word"),
        [
            (PULL, "stream"),
            (COPY, "mirror"),
            (COMMIT, "commit"),
            (ACTIVE, "commit"),
            (BACKUP, "backup"),
            (9, "unknown"),
        ],
    )
    def test_one_a_disk(self, type_: int, word: str) -> None:
        answer: Callable[..., object] = lambda disk, _: info(type_) if disk == "vdb" else {}  # noqa: E731
        (job,) = guest(blockJobInfo=answer, XMLDesc=xml(("vda", ""), ("vdb", ""))).jobs()
        assert (job.id, job.disk, job.type, job.bandwidth) == ("vdb", "vdb", word, 8)
        assert (job.ours, job.target, job.view.current) == (None, None, 3)

    @pytest.mark.parametrize(("job", "target"), [("active-commit", "/share/base"), ("copy", None)])
    def test_target_of_a_mirror(self, job: str, target: str | None) -> None:
        found = guest(blockJobInfo=info(ACTIVE), XMLDesc=xml(("vda", mirror("", job))))
        assert found.jobs()[0].target == target


class TestWait:
    CANCELLED = Heard(ended=True, failed=True, reason="it was cancelled")

    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            ((of_libvirt(READY),), Heard()),
            ((of_libvirt(COMPLETED),), Heard(ended=True)),
            ((of_libvirt(CANCELED),), CANCELLED),
            (
                (of_libvirt(FAILED),),
                Heard(ended=True, failed=True, reason="libvirt does not say why"),
            ),
            # QEMU's own event has the words, and comes first.
            (
                (of_qemu("No space"), of_libvirt(FAILED)),
                Heard(ended=True, failed=True, reason="No space"),
            ),
            ((of_qemu(None), of_libvirt(COMPLETED)), Heard(ended=True)),
            ((of_libvirt(FAILED, "vdb"), of_libvirt(COMPLETED)), Heard(ended=True)),
            ((Event("JOB_STATUS_CHANGE", {"id": "x"}), of_libvirt(CANCELED)), CANCELLED),
        ],
    )
    def test_what_is_heard(self, events: tuple[Event, ...], expected: Heard) -> None:
        found = heard(guest(), *events, of_libvirt(READY))
        assert found.wait("vda", 30) == expected
        assert found._monitor.events.empty()  # what came together is heard together

    def test_nothing(self) -> None:
        assert heard(guest()).wait("vda", 0.01) == Heard()
        assert heard(guest(), of_qemu("No space")).wait("vda", 0.01) == Heard(reason="No space")

    @pytest.mark.parametrize(("answer", "ended"), [(info(COMMIT), False), ({}, True)])
    def test_without_events_the_job_is_asked_for(self, answer: object, ended: bool) -> None:
        assert guest(blockJobInfo=answer).wait("vda", 0.01) == Heard(ended=ended)

    def test_events_of_an_earlier_job_do_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "delivers_events", lambda: False)
        found = heard(guest(), of_libvirt(FAILED))
        found.follow("vda")
        assert found._monitor.events.empty()
        assert not found._hears


class TestLoop:
    """The job loop over all this; a job that is gone has ended, and its event may be lost."""

    def ended(self, fake: LibvirtGuest) -> Ended:
        cancel = fake.compose.verb(Verb.CANCEL, "vda")
        loop = Loop(
            guest=fake,
            kind="commit",
            file="top",
            job="vda",
            steps=JobSteps(cancel=cancel),
            changed=lambda: (),
            poll_s=0.001,
        )
        return loop.to_the_end(limits=Limits(lost_event_s=0.01))

    def test_event_that_was_lost(self) -> None:
        answers = Each(info(COMMIT), {})
        fake = heard(guest(blockJobInfo=lambda *_: answers.next()))
        assert self.ended(fake) == Ended(status=JobStatus.NULL, error=None)

    def test_event_that_comes_later_than_the_end(self) -> None:
        fake = heard(guest(blockJobInfo={}), of_qemu("No space"), of_libvirt(FAILED))
        assert self.ended(fake).error == "No space"


class TestTake:
    ABORT = Step(
        does=Does.CANCEL,
        by="libvirt",
        what="virDomainBlockJobAbort",
        arguments={"disk": "vda", "flags": 1},
    )

    def test_calls_the_function_with_the_arguments_in_order(self) -> None:
        fake = guest(blockJobAbort=0)
        assert fake.take(self.ABORT) == 0
        assert fake._domain.calls == [("blockJobAbort", "vda", 1)]

    def test_bandwidth_of_a_job(self) -> None:
        """Bytes for MiB: 10 MiB/s would become 10 TiB/s, which is no limit."""
        fake = guest()
        fake.take(fake.compose.verb(Verb.SET_SPEED, "vda", 10))
        assert fake._domain.calls == [("blockJobSetSpeed", "vda", 10, 1)]

    def refused(self, does: Does, code: str, info_: object) -> type[QmpsnapError]:
        fake = guest(blockJobAbort=Error(code), blockJobInfo=info_)
        with pytest.raises(QmpsnapError) as caught:
            fake.take(replace(self.ABORT, does=does))
        return type(caught.value)

    @pytest.mark.parametrize(
        ("does", "code", "info_", "expected"),
        [
            (Does.COMMIT, "BLOCK_COPY_ACTIVE", {"type": 1}, NotNow),
            (Does.COMMIT, "OPERATION_INVALID", {"type": 1}, NotNow),
            (Does.COMMIT, "INTERNAL_ERROR", {}, NotNow),  # it is gone
            (Does.COMMIT, "INTERNAL_ERROR", {"type": 1}, CommandFailed),
            (Does.COMMIT, "INTERNAL_ERROR", Error("INTERNAL_ERROR"), CommandFailed),
            (Does.CANCEL, "OPERATION_INVALID", {"type": 1}, NotNow),
            (Does.CANCEL, "BLOCK_COPY_ACTIVE", {"type": 1}, CommandFailed),
            (Does.START, "OPERATION_INVALID", {"type": 1}, CommandFailed),
            (Does.START, "OPERATION_INVALID", {}, CommandFailed),
        ],
    )
    def test_what_comes_too_early_or_too_late(
        self, does: Does, code: str, info_: object, expected: type[QmpsnapError]
    ) -> None:
        assert self.refused(does, code, info_) is expected

    @pytest.mark.parametrize(
        ("code", "text", "active", "expected"),
        [
            ("RPC", "no", Error("RPC"), LostInMidCommand),
            ("NO_DOMAIN", "no", False, LostInMidCommand),
            ("SYSTEM_ERROR", "no", False, LostInMidCommand),
            ("INTERNAL_ERROR", "no", True, CommandFailed),
            # For a moment libvirt still calls the guest active.
            ("INTERNAL_ERROR", "End of file from qemu monitor", True, LostInMidCommand),
            ("INTERNAL_ERROR", "Unable to read from monitor: x", True, LostInMidCommand),
            ("OPERATION_INVALID", "Unable to write to monitor", False, CommandFailed),
        ],
    )
    def test_what_was_refused_is_told_from_what_was_lost(
        self, code: str, text: str, active: object, expected: type[QmpsnapError]
    ) -> None:
        fake = guest(blockResize=Error(code, text), isActive=active)
        arguments = {"disk": "vda", "size": 512, "flags": 1}
        resize = Step(
            does=Does.FLUSH, by="libvirt", what="virDomainBlockResize", arguments=arguments
        )
        with pytest.raises(expected, match=text):
            fake.take(resize)
        assert fake._domain.calls[0] == ("blockResize", "vda", 512, 1)


class TestState:
    """Source: virDomainState and virDomainPausedReason, libvirt-domain.h."""

    @pytest.mark.parametrize(
        ("state", "reason", "word"),
        [
            (1, 0, "running"),
            (2, 0, "running"),
            (3, 1, "paused"),
            (3, 5, "io-error"),
            (3, 6, "watchdog"),
            (3, 8, "shutdown"),
            (3, 10, "guest-panicked"),
            (4, 0, "shutdown"),
            (6, 0, "guest-panicked"),
            (7, 0, "suspended"),
            (99, 0, None),
        ],
    )
    def test_run(self, state: int, reason: int, word: str | None) -> None:
        fake = guest(state=[state, reason], jobStats={})
        assert fake.state() == State(run=word)

    @pytest.mark.parametrize(
        ("stats", "migration"),
        [
            ({"operation": 5}, "outgoing"),
            ({"operation": 4}, "incoming"),
            ({"operation": 3}, None),
            ({}, None),
            (Error("OPERATION_INVALID"), None),
        ],
    )
    def test_migration(self, stats: object, migration: str | None) -> None:
        assert guest(state=[1, 0], jobStats=stats).state().migration == migration

    @pytest.mark.parametrize("uri", ["qemu+ssh://elsewhere/system", "qemu+tls://10.0.0.1/system"])
    def test_guest_of_another_host_is_not_changed_from_here(self, uri: str) -> None:
        with pytest.raises(OnAnotherHost):
            guest(getURI=uri, state=[1, 0], jobStats={}).state()
        with pytest.raises(OnAnotherHost):
            guest(getURI=uri).neighbours(samples.disk())
