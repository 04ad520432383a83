"""Running jobs of a real QEMU: no space, limits, a second monitor, connections that break."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.operations import outcome
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.machine import Limits
from qmpsnap.operations.job.notices import (
    DoesNotConverge,
    GoesOn,
    PausedBySomebody,
    Reconnected,
    StoppedByError,
)
from qmpsnap.operations.job.states import Heard, JobFailed, JobView
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError
from qmpsnap.operations.outcome import OutcomeUnknown, TimedOut
from tests.rig.disks import DiskSpec, qcow2_chain
from tests.rig.export import exported
from tests.rig.images import sha256_of_bytes
from tests.rig.jobs import (
    ACTIVE,
    AFTERWARDS,
    HELD,
    HOUR_S,
    TOP,
    AnHourLater,
    Merge,
    fill,
    make_chain,
    merged,
    small_file_system,
)
from tests.rig.relay import Relay
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig, assert_sound
from tests.rig.roads import direct_rig
from tests.rig.writer import NbdClient

PAUSE = MergeOptions(on_error=OnError.PAUSE)


@dataclass
class TwoRigs:
    """One guest and two ways to it, because a monitor serves one client at a time."""

    rig: Rig
    second: Rig
    content: str
    """What the guest reads."""
    filler: Path | None = None
    """Takes the place on the file system that reading the content needs."""

    def assert_unchanged(self) -> None:
        """The chain is as it was, and no job is left."""
        if self.filler is not None:
            self.filler.unlink()
        assert self.second.guest.qmp("query-jobs") == []
        assert self.second.files() == [ACTIVE, TOP, BASE]
        assert_sound(self.second.disk())
        assert self.second.guest.read_sha256(DISK) == self.content

    def assert_merged(self, kind: str) -> None:
        """The merge has been done, and no job is left."""
        assert self.second.guest.qmp("query-jobs") == []
        assert self.second.files() == AFTERWARDS[kind]
        assert_sound(self.second.disk())
        assert self.second.guest.read_sha256(DISK) == self.content


@contextmanager
def two_rigs(folder: Path, disk: DiskSpec) -> Iterator[TwoRigs]:
    """A guest with two monitors."""
    with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
        path = f"{scratch}/second.sock"
        arguments = ["-qmp", f"unix:{path},server=on,wait=off"]
        with direct_rig(folder, disk, arguments) as rig:

            @contextmanager
            def connect() -> Iterator[Guest]:
                with closing(SocketMonitor.connect(path)) as monitor:
                    yield QmpGuest(monitor)

            second = replace(rig, road=["--qmp", path], connect=connect)
            yield TwoRigs(rig, second, rig.guest.read_sha256(DISK))


def _disk(folder: Path) -> DiskSpec:
    files = [(folder / ACTIVE, "qcow2"), (folder / TOP, "qcow2"), (folder / BASE, "raw")]
    return qcow2_chain(files, DISK, SERIAL)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def two(share: Path) -> Iterator[TwoRigs]:
    make_chain(share)
    with two_rigs(share, _disk(share)) as both:
        yield both


@pytest.fixture
def full(share: Path) -> Iterator[TwoRigs]:
    """A guest on a file system that has 4 MiB left, where a merge needs 16."""
    with small_file_system(share, 64):
        make_chain(share)
        with two_rigs(share, _disk(share)) as both:
            both.filler = fill(share, 4 * MIB)
            yield both


class TestNoSpace:
    """oVirt/vdsm#352, lxc/incus#2693: space runs out in the middle of a merge."""

    @pytest.mark.parametrize("kind", AFTERWARDS)
    def test_pauses_says_what_is_missing_and_goes_on(self, full: TwoRigs, kind: str) -> None:
        merge = Merge(full.rig, kind, PAUSE)
        said = str(merge.hears(StoppedByError))
        share = full.rig.folder
        written = ACTIVE if kind == "pull" else BASE
        assert f"no space left (writing {share / written}, which takes " in said
        missing = re.search(rf" free on {share}: up to ([0-9.]+) MiB more are needed", said)
        assert missing is not None, said
        assert 8 < float(missing[1]) <= 16
        (job,) = full.second.cli("job list", "-o", "json").json["jobs"]
        assert (job["disk"], job["status"], job["io_status"]) == (DISK, "paused", "nospace")
        assert job["ours"] is True
        assert full.second.cli("job wait", DISK, "--timeout", "0.1").code == 1
        assert full.filler is not None
        full.filler.unlink()
        resumed = full.second.cli("job resume", DISK)
        assert resumed.code == 0, resumed
        merge.ends()
        full.assert_merged(kind)

    def test_that_is_resumed_too_soon_pauses_and_is_said_again(self, full: TwoRigs) -> None:
        merge = Merge(full.rig, "commit", PAUSE)
        first = merge.hears(StoppedByError)
        assert full.filler is not None
        full.filler.write_bytes(b"x" * (full.filler.stat().st_size - 4 * MIB))
        assert full.second.cli("job resume", DISK).code == 0
        assert merge.hears(StoppedByError).left < first.left
        assert full.second.cli("job cancel", DISK).code == 0
        with pytest.raises(JobFailed, match=r"[Cc]ancel"):
            merge.ends()
        full.assert_unchanged()

    @remedy("JobFailed")
    @pytest.mark.parametrize("kind", ["commit", "pull"])
    def test_ends_by_default_and_says_where(self, full: TwoRigs, kind: str) -> None:
        with full.rig.host() as host, pytest.raises(JobFailed) as caught:
            merged(host, kind, DEFAULT_OPTIONS)
        assert "No space left on device (writing " in str(caught.value)
        assert f"free on {full.rig.folder}" in str(caught.value)
        full.assert_unchanged()  # there is room again
        with full.rig.host() as host:
            merged(host, kind, DEFAULT_OPTIONS)
        full.assert_merged(kind)

    @remedy("JobWaits")
    def test_ctrl_c_resume_and_the_same_command_again(self, full: TwoRigs) -> None:
        """With one monitor only, the merge has to let go of it first."""
        rig = full.rig

        def interrupt(_plan: object, view: JobView) -> None:
            if view.status == "paused":
                raise KeyboardInterrupt

        with rig.host() as host, pytest.raises(outcome.Interrupted):
            merged(host, "commit", PAUSE, progress=interrupt)
        assert full.filler is not None
        full.filler.unlink()
        assert rig.cli("job resume", DISK).code == 0
        said = rig.cli("job wait", DISK)
        assert said.code == 1, said
        assert "waits (pending) to be finished" in said.err
        assert rig.delete(TOP, BASE).code == 0
        full.assert_merged("commit")

    def test_pauses_on_an_input_output_error_too(self, share: Path) -> None:
        make_chain(share)
        plain = _disk(share)
        errors = [{"event": "none", "iotype": "write", "errno": 5, "once": True}]
        failing = tuple(
            {
                "driver": "blkdebug",
                "node-name": one["node-name"],
                "image": {"driver": "file", "filename": str(share / BASE)},
                "inject-error": errors,
            }
            if one.get("filename") == str(share / BASE)
            else one
            for one in plain.blockdevs
        )
        with two_rigs(share, replace(plain, blockdevs=failing)) as two:
            merge = Merge(two.rig, "commit", PAUSE)
            assert "an I/O error" in str(merge.hears(StoppedByError))
            assert two.second.cli("job resume", DISK).code == 0
            merge.ends()
            two.assert_merged("commit")


class TestSecondCall:
    def test_bandwidth_can_be_changed_while_it_runs(self, two: TwoRigs) -> None:
        merge = Merge(two.rig, "commit", HELD)
        job = _running(two.second)
        assert job["bandwidth"] == HELD.bandwidth
        assert (job["type"], job["disk"], job["ours"]) == ("commit", DISK, True)
        shown = two.second.cli("job set-speed", DISK, "0", "--plan", "-o", "json").json
        assert shown["disks"][0]["steps"][0]["what"] == "block-job-set-speed"
        assert _running(two.second)["bandwidth"] == HELD.bandwidth
        assert two.second.cli("job set-speed", DISK, "0").code == 0
        merge.ends()
        two.assert_merged("commit")

    def test_pause_and_resume(self, two: TwoRigs) -> None:
        merge = Merge(two.rig, "commit", HELD)
        _running(two.second)
        assert two.second.cli("job resume", DISK).code == 4  # it is not paused
        assert two.second.cli("job pause", DISK).code == 0
        merge.hears(PausedBySomebody)
        assert two.second.cli("job pause", DISK).code == 4
        assert "paused" in two.second.cli("job list").out
        assert two.second.cli("job resume", DISK).code == 0
        merge.hears(GoesOn)
        assert two.second.cli("job set-speed", DISK, "0").code == 0
        merge.ends()
        two.assert_merged("commit")

    @pytest.mark.parametrize("kind", ["commit", "active-commit"])
    def test_cancel(self, two: TwoRigs, kind: str) -> None:
        merge = Merge(two.rig, kind, HELD)
        job = _running(two.second)
        shown = two.second.cli("job cancel", DISK, "--plan", "-o", "json").json["disks"][0]
        words = [(step["what"], step["arguments"]) for step in shown["steps"]]
        assert words == [(what, {"id": job["id"]}) for what in ("job-cancel", "job-dismiss")]
        assert [one["file"] for one in shown["after"]] == [ACTIVE, TOP, BASE]
        assert two.second.cli("job list", "-o", "json").json["jobs"]  # it was only shown
        said = two.second.cli("job cancel", DISK)
        assert said.code == 0, said
        with pytest.raises(JobFailed, match=r"[Cc]ancel"):
            merge.ends()
        two.assert_unchanged()

    @pytest.mark.parametrize("kind", ["commit", "active-commit", "pull"])
    def test_cancel_of_a_job_that_nobody_sees_to(self, two: TwoRigs, kind: str) -> None:
        """An ended job of ours would stay in QEMU until the next operation."""

        def interrupt(_plan: object, _view: JobView) -> None:
            raise KeyboardInterrupt

        with two.rig.host() as host, pytest.raises(outcome.Interrupted):
            merged(host, kind, HELD, progress=interrupt)
        assert two.second.guest.qmp("query-jobs") != []
        assert two.second.cli("job cancel", DISK).code == 0
        assert two.second.guest.qmp("query-jobs") == []
        two.assert_unchanged()

    def test_cancel_of_a_ready_mirror(self, two: TwoRigs) -> None:
        def on_ready(_plan: object, view: JobView) -> None:
            if view.status == "ready":
                assert two.second.cli("job cancel", DISK).code == 0

        with two.rig.host() as host, pytest.raises(JobFailed, match=r"[Cc]ancel"):
            merged(host, "active-commit", DEFAULT_OPTIONS, progress=on_ready)
        two.assert_unchanged()

    def test_wait_for_a_job_of_somebody_else(
        self, two: TwoRigs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guest = two.second.guest
        theirs = {"job-id": "theirs", "device": guest.active_node(DISK), "speed": 1}
        guest.qmp("block-stream", theirs)
        job = _running(two.second)
        assert (job["id"], job["type"], job["ours"]) == ("theirs", "stream", False)
        faster = {"device": "theirs", "speed": 0}
        _at_the_first_wait(monkeypatch, lambda: guest.qmp("block-job-set-speed", faster))
        said = two.second.cli("job wait", "theirs")
        assert said.code == 0, said
        assert two.second.cli("job wait", "theirs").code == 4  # it is not there any more
        assert two.second.files() == [ACTIVE]

    def test_a_job_that_nobody_knows(self, two: TwoRigs) -> None:
        assert two.second.cli("job list", "-o", "json").json["jobs"] == []
        for verb in ("wait", "cancel", "pause", "resume"):
            said = two.second.cli(f"job {verb}", "nope")
            assert said.code == 4
            assert "there is: none" in said.err
        assert two.second.cli("job set-speed", "nope", "quick").code == 2


def _at_the_first_wait(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when the tool has nothing to do but to wait for a job."""
    wait, acts = QmpGuest.wait, [act]

    def acting(host: QmpGuest, job: str, timeout: float) -> Heard:
        if acts:
            acts.pop()()
        return wait(host, job, timeout)

    monkeypatch.setattr(QmpGuest, "wait", acting)


def _running(rig: Rig) -> dict[str, object]:
    """The one job, once it is there."""
    while True:
        jobs = rig.cli("job list", "-o", "json").json["jobs"]
        if jobs and jobs[0]["status"] == "running":
            return dict(jobs[0])


class TestTimeLimit:
    @pytest.mark.parametrize("kind", AFTERWARDS)
    def test_while_it_copies(self, two: TwoRigs, kind: str) -> None:
        options = ["--timeout", "0.5", "--bandwidth", "1"]
        top, base = (None, None) if kind == "pull" else (TOP, BASE)
        said = two.rig.delete(ACTIVE if kind == "active-commit" else top, base, *options)
        assert said.code == 5, said
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        assert "did not end within 0.5 s, and was cancelled. The chain is as it was" in said.err
        two.assert_unchanged()
        with two.rig.host() as host:
            merged(host, kind, DEFAULT_OPTIONS)
        two.assert_merged(kind)

    @pytest.mark.parametrize(("kind", "status"), [("pull", "pending"), ("active-commit", "ready")])
    def test_before_the_chain_is_changed(
        self, two: TwoRigs, kind: str, status: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wishes, later = MergeOptions(timeout_s=HOUR_S), AnHourLater(monkeypatch, status)
        with two.rig.host() as host, pytest.raises(TimedOut):
            merged(host, kind, wishes, progress=later)
        two.assert_unchanged()

    def test_while_it_has_no_space(self, full: TwoRigs) -> None:
        wishes = MergeOptions(on_error=OnError.PAUSE, timeout_s=0.5)
        with full.rig.host() as host, pytest.raises(TimedOut):
            merged(host, "commit", wishes)
        full.assert_unchanged()


def test_a_mirror_that_is_paused_when_it_is_ready_pivots_all_the_same(two: TwoRigs) -> None:
    """QEMU 7.2 takes the pivot of a mirror in standby; tests/unit/test_loop.py has one declined."""
    steps: list[str] = []

    def progress(_plan: object, view: JobView) -> None:
        if view.status == "ready" and "standby" not in steps:
            _tell_the_job(two, "job-pause")
        if view.status == "standby":
            _tell_the_job(two, "job-resume")
        steps.append(view.status)

    with two.rig.host() as host:
        merged(host, "active-commit", DEFAULT_OPTIONS, progress=progress)
    assert "standby" in steps
    two.assert_merged("active-commit")


def _tell_the_job(two: TwoRigs, command: str) -> None:
    jobs = two.rig.guest.qmp("query-jobs")
    assert isinstance(jobs, list)
    two.rig.guest.qmp(command, {"id": jobs[0]["id"]})


def test_a_guest_that_writes_too_fast_is_said_and_more_bandwidth_helps(share: Path) -> None:
    """LibVirtKvm-scripts#41, kubevirt/enhancements#322: an active commit that never gets ready."""
    size, piece = 64 * MIB, 4 * MIB
    make_chain(share, size)
    with two_rigs(share, _disk(share)) as two:
        model, stop = bytearray(b"\7" * size), threading.Event()
        guest = two.second.guest
        with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
            export = exported(
                guest.qmp,
                guest.active_node(DISK),
                socket=Path(scratch, "nbd.sock"),
                writable=True,
            )
            with export as url, closing(NbdClient(url)) as client:

                def write() -> None:
                    number = 0
                    while not stop.wait(0.01):
                        at, pattern = number * piece % size, number % 255
                        client.write(at, piece, pattern)
                        model[at : at + piece] = bytes([pattern]) * piece
                        number += 1

                writer = threading.Thread(target=write, daemon=True)
                writer.start()
                # Two pieces a second are faster than that, on any machine.
                wishes = MergeOptions(bandwidth=8 * MIB)
                merge = Merge(two.rig, "active-commit", wishes, limits=Limits(window_s=1.0))
                notice = merge.hears(DoesNotConverge)
                assert notice.writing >= notice.copying > 0
                assert two.second.cli("job set-speed", DISK, "0").code == 0
                merge.ends()
                stop.set()
                writer.join()
        two.content = _sha256(model, share)
        two.assert_merged("active-commit")


def _sha256(model: bytearray, folder: Path) -> str:
    file = folder / "model"
    file.write_bytes(model)
    return sha256_of_bytes(file)


@pytest.fixture
def relay(two: TwoRigs) -> Iterator[Relay]:
    with (
        tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch,
        Relay(two.rig.road[1], f"{scratch}/relay.sock") as between,
    ):
        yield between


class TestLostConnection:
    """lxc/incus#4054, abbbi/qmpbackup#31: the manager loses the monitor in the middle."""

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            ("commit", "running"),
            ("commit", "pending"),
            ("commit", "concluded"),
            ("pull", "pending"),
            ("active-commit", "running"),
            ("active-commit", "ready"),
        ],
    )
    def test_is_made_again(self, two: TwoRigs, relay: Relay, kind: str, status: str) -> None:
        merge = Merge(
            replace(two.rig, connect=lambda: _through(relay)),
            kind,
            HELD if status == "running" else DEFAULT_OPTIONS,
            progress=_cuts(relay, status),
        )
        merge.hears(Reconnected)
        if status == "running":
            assert two.second.cli("job set-speed", DISK, "0").code == 0
        merge.ends()
        assert relay.connections == 2
        two.assert_merged(kind)

    def test_does_not_lose_the_error_of_a_failed_job(self, full: TwoRigs) -> None:
        with (
            tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch,
            Relay(full.rig.road[1], f"{scratch}/relay.sock") as relay,
            _through(relay) as host,
            pytest.raises(JobFailed, match="No space left"),
        ):
            merged(host, "commit", DEFAULT_OPTIONS, progress=_cuts(relay, "concluded"))
        assert relay.connections == 2
        full.assert_unchanged()

    def test_to_a_qemu_that_is_gone_is_an_unknown_outcome(
        self, two: TwoRigs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qmpsnap.guests.qmp.guest.RECONNECT_S", 0.3)
        path = two.rig.road[1]
        with closing(SocketMonitor.connect(path)) as monitor:
            host = QmpGuest(monitor, connect=lambda: SocketMonitor.connect(path))
            with pytest.raises(OutcomeUnknown):
                merged(host, "commit", HELD, progress=lambda _plan, _view: two.rig.kill())

    def test_by_the_command_line(
        self, two: TwoRigs, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut_and_hurry() -> None:
            relay.cut()
            assert two.second.cli("job set-speed", DISK, "0").code == 0

        rig = replace(two.rig, road=["--qmp", relay.path])
        _at_the_first_wait(monkeypatch, cut_and_hurry)
        said = rig.delete(TOP, BASE, "--bandwidth", "1")
        assert said.code == 0, said
        assert "is there again" in said.err
        two.assert_merged("commit")


@contextmanager
def _through(relay: Relay) -> Iterator[Guest]:
    with closing(SocketMonitor.connect(relay.path)) as monitor:
        host = QmpGuest(monitor, connect=lambda: SocketMonitor.connect(relay.path))
        with closing(host):
            yield host


class _cuts:
    """Cuts a relay when a job is first seen in a state."""

    def __init__(self, relay: Relay, status: str) -> None:
        self._relay = relay
        self._status = status
        self._done = False

    def __call__(self, _plan: object, view: JobView) -> None:
        if view.status == self._status and not self._done:
            self._done = True
            self._relay.cut()
