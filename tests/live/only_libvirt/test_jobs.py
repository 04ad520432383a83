"""Running jobs under libvirt: what its API has, what it has not, and libvirtd restarted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor import virt
from qmpsnap.operations import merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import Heard, JobFailed
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import TimedOut
from qmpsnap.operations.requests import NamedDeleteRequest
from tests.rig.jobs import (
    ACTIVE,
    AFTERWARDS,
    HELD,
    HOUR_S,
    REQUESTS,
    TOP,
    AnHourLater,
    Merge,
    fill,
    make_chain,
    merged,
    small_file_system,
)
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, Rig, assert_sound
from tests.rig.roads import MakeRig, libvirt_rig
from tests.rig.situations import situation
from tests.rig.waiting import until


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def rig(connection: Any, share: Path) -> Iterator[Rig]:
    """A guest of three layers, the data in the middle one."""
    make_chain(share)
    with libvirt_rig(connection, share, "qcow2", file=ACTIVE) as rig:
        yield rig


def _assert_unchanged(rig: Rig, content: str) -> None:
    assert rig.cli("job list", "-o", "json").json["jobs"] == []
    assert rig.files() == [ACTIVE, TOP, BASE]
    assert_sound(rig.disk())
    assert rig.guest.read_sha256(DISK) == content


def _assert_merged(rig: Rig, kind: str, content: str) -> None:
    assert rig.files() == AFTERWARDS[kind]
    assert_sound(rig.disk())
    assert rig.guest.read_sha256(DISK) == content


def _running(rig: Rig) -> dict[str, object]:
    while True:
        jobs = rig.cli("job list", "-o", "json").json["jobs"]
        if jobs:
            return dict(jobs[0])


@pytest.mark.parametrize("kind", AFTERWARDS)
def test_bandwidth_can_be_changed_while_it_runs(rig: Rig, kind: str) -> None:
    content = rig.guest.read_sha256(DISK)
    merge = Merge(rig, kind, HELD)
    job = _running(rig)
    assert (job["id"], job["disk"], job["bandwidth"], job["ours"]) == (DISK, DISK, 1, None)
    assert job["type"] == ("stream" if kind == "pull" else "commit")
    assert rig.cli("job set-speed", DISK, "0").code == 0
    merge.ends()
    _assert_merged(rig, kind, content)


@pytest.mark.parametrize("kind", ["commit", "active-commit"])
def test_cancel(rig: Rig, kind: str) -> None:
    content = rig.guest.read_sha256(DISK)
    merge = Merge(rig, kind, HELD)
    _running(rig)
    shown = rig.cli("job cancel", DISK, "--plan", "-o", "json").json["disks"][0]
    assert [step["what"] for step in shown["steps"]] == ["virDomainBlockJobAbort"]
    assert rig.cli("job pause", DISK, "--plan").code == 4
    said = rig.cli("job cancel", DISK)
    assert said.code == 0, said
    with pytest.raises(JobFailed, match=r"[Cc]ancel"):
        merge.ends()
    _assert_unchanged(rig, content)


def test_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Merge(rig, "commit", HELD)
    _running(rig)
    assert rig.cli("job wait", DISK, "--timeout", "0.1").code == 1
    wait, slow = LibvirtGuest.wait, [True]

    def hurrying(host: LibvirtGuest, job: str, timeout: float) -> Heard:
        if threading.current_thread() is threading.main_thread() and slow:  # not the merge
            slow.clear()
            assert isinstance(rig.guest, LibvirtMachine)
            rig.guest.domain.blockJobSetSpeed(DISK, 0, 0)
        return wait(host, job, timeout)

    monkeypatch.setattr(LibvirtGuest, "wait", hurrying)
    said = rig.cli("job wait", DISK)
    assert said.code == 0, said
    merge.ends()


@remedy("LeftRunning")
@situation(
    "Under libvirt, a `--timeout` passes over a job that this call has not started",
    happens="the job goes on: it may be somebody else's (`LeftRunning`)",
    code=6,
    then="Give the same command again, or end the job by `qmpsnap job cancel`.",
)
def test_time_limit_does_not_cancel_somebody_elses_job(rig: Rig) -> None:
    content = rig.guest.read_sha256(DISK)
    assert isinstance(rig.guest, LibvirtMachine)
    top, base = (f"{DISK}[{layer.index}]" for layer in rig.disk().layers[1:3])
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
    rig.guest.domain.blockCommit(DISK, base, top, 1, flags)
    said = rig.delete(TOP, BASE, "--timeout", "0.5")
    assert (said.code, said.status["status"]) == (6, "deleting"), said
    assert "it was not cancelled, because somebody else may have begun it" in said.err
    assert _running(rig)["id"] == DISK
    assert rig.cli("job cancel", DISK).code == 0  # one way out
    _assert_unchanged(rig, content)


@pytest.mark.parametrize("kind", AFTERWARDS)
def test_time_limit_while_it_copies(rig: Rig, kind: str) -> None:
    content = rig.guest.read_sha256(DISK)
    wishes = MergeOptions(bandwidth=1, timeout_s=0.5)
    with rig.host() as host, pytest.raises(TimedOut):
        merged(host, kind, wishes)
    _assert_unchanged(rig, content)
    with rig.host() as host:
        merged(host, kind, DEFAULT_OPTIONS)
    _assert_merged(rig, kind, content)


def test_time_limit_when_the_mirror_is_ready(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    content = rig.guest.read_sha256(DISK)
    wishes, later = MergeOptions(timeout_s=HOUR_S), AnHourLater(monkeypatch, "ready")
    with rig.host() as host, pytest.raises(TimedOut):
        merged(host, "active-commit", wishes, progress=later)
    _assert_unchanged(rig, content)


def test_what_libvirt_cannot_do_is_refused_before_anything_is_touched(rig: Rig) -> None:
    content = rig.guest.read_sha256(DISK)
    request = REQUESTS["commit"]
    said = rig.delete(request.file_to_merge, request.merge_target_file, "--on-error", "pause")
    assert said.code == 4, said
    assert "libvirt's commits and pulls end on an error" in said.err
    _assert_unchanged(rig, content)
    merge = Merge(rig, "commit", HELD)
    _running(rig)
    for verb in ("pause", "resume"):
        said = rig.cli(f"job {verb}", DISK)
        assert said.code == 4, said
        assert f"libvirt cannot {verb}" in said.err
    assert rig.cli("job set-speed", DISK, "0").code == 0
    merge.ends()


@remedy("JobFailed")
@pytest.mark.parametrize("kind", ["commit", "pull"])
def test_no_space_says_where(connection: Any, share: Path, kind: str) -> None:
    with small_file_system(share, 64):
        make_chain(share)
        with libvirt_rig(connection, share, "qcow2", file=ACTIVE) as rig:
            content = rig.guest.read_sha256(DISK)
            filler = fill(share, 4 * MIB)
            with rig.host() as host, pytest.raises(JobFailed) as caught:
                merged(host, kind, DEFAULT_OPTIONS)
            assert "No space left on device (writing " in str(caught.value)
            assert f"free on {share}" in str(caught.value)
            filler.unlink()
            _assert_unchanged(rig, content)
            with rig.host() as host:
                merged(host, kind, DEFAULT_OPTIONS)
            assert rig.files() == AFTERWARDS[kind]
            assert rig.guest.read_sha256(DISK) == content


class TestOneConnection:
    """In Nova all calls share one, and libvirt takes one registration for a guest and an event."""

    def test_two_who_listen_to_one_guest(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            with rig.host() as first, rig.host() as second:
                first.follow(DISK)
                second.follow(DISK)
                merge.delete(second, NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit"))
                # Without the event of the job's end it would be a job that has vanished.
                until(lambda: _has_ended(first))
            rig.guest.write(DISK, 0, 65536, 7)  # so that what was left is older, without a journal
            rig.create("s2")
            with rig.host() as third:
                third.follow(DISK)  # all that was registered is not any more
                merge.delete(third, NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit"))
            assert rig.files() == [BASE]

    def test_one_who_leaves_does_not_take_the_others_events(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            with rig.host() as second:
                with rig.host() as first:
                    first.follow(DISK)
                    second.follow(DISK)
                merge.delete(second, NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit"))
            assert rig.files() == [BASE]

    def test_somebody_else_has_registered(self, make_rig: MakeRig, connection: Any) -> None:
        """A program with an event of its own for the guest hears of the job, and we ask for it."""
        libvirt = virt.libvirt_module()
        with make_rig("raw") as rig:
            rig.grow(3)
            assert isinstance(rig.guest, LibvirtMachine)
            taken = connection.domainEventRegisterAny(
                rig.guest.domain,
                libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
                lambda *_: None,
                None,
            )
            try:
                for upper, lower in ((f"{BASE}.s1", BASE), (f"{BASE}.s2", BASE)):
                    assert rig.delete(upper, lower).code == 0
            finally:
                connection.domainEventDeregisterAny(taken)
            assert rig.files() == [BASE]


def _has_ended(host: Guest) -> bool:
    return host.wait(DISK, 0.1).ended
