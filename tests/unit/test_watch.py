"""What `watch` says when, with a guest that does what it is told."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from types import FrameType
from typing import cast

import pytest
from msgspec.structs import replace

from qmpsnap.cli import watch
from qmpsnap.cli.watch import Changes, Now, as_json, as_lines
from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.guests.reader import StreamLingers
from qmpsnap.monitor.base import ConnectionLost, Event, stirred
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView
from tests.unit import samples

DISK = samples.disk(2)
LONGER = samples.disk(3)


def job(status: JobStatus = JobStatus.RUNNING, current: int = 0) -> JobReport:
    view = JobView(status=status, current=current, total=1 << 20)
    return JobReport(id="theirs", type="commit", disk="vda", view=view, bandwidth=0, ours=False)


def now(at: float = 0, *, disk: object = DISK, jobs: tuple[JobReport, ...] = ()) -> Now:
    return Now(at=at, guest="web1", disks=(disk,), jobs=jobs)  # type: ignore[arg-type]


class Script:
    """Readings and jobs, one after the other; then the connection is gone."""

    def __init__(self, *readings: Disks | Refused, jobs: tuple[JobReport, ...] = ()) -> None:
        self._readings: Iterator[Disks | Refused] = iter(readings)
        self._jobs = jobs
        self.waited: list[float] = []

    def listen(self) -> None:
        pass

    def jobs(self) -> tuple[JobReport, ...]:
        return self._jobs

    def read(self) -> Disks:
        one = next(self._readings, None)
        if one is None:
            raise ConnectionLost("query-block", "it has ended")
        if isinstance(one, Refused):
            raise one
        return one

    def stirred(self, timeout: float) -> bool:
        self.waited.append(timeout)
        return True


@pytest.fixture(autouse=True)
def any_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "Stirring", Script)


def looked(script: Script) -> list[Now]:
    seen: list[Now] = []
    with pytest.raises(ConnectionLost):
        watch.watched(cast(Guest, script), None, 10, seen.append)
    return seen


def test_each_event_is_a_look() -> None:
    seen = looked(Script(samples.guest(DISK), samples.guest(LONGER)))
    assert [len(one.disks[0].layers) for one in seen] == [2, 3]


def test_what_may_not_be_read_now_is_as_it_was() -> None:
    seen = looked(Script(samples.guest(DISK), StreamLingers("stream"), samples.guest(LONGER)))
    assert [len(one.disks[0].layers) for one in seen] == [2, 2, 3]


def test_the_first_look_must_be_had() -> None:
    with pytest.raises(StreamLingers):
        watch.watched(cast(Guest, Script(StreamLingers("stream"))), None, 10, lambda _: None)


def test_only_a_job_that_runs_is_looked_at_by_the_clock() -> None:
    for jobs, wanted in (((), 10), ((job(),), watch.JOB_S), ((job(JobStatus.CONCLUDED),), 10)):
        script = Script(samples.guest(DISK), jobs=jobs)
        looked(script)
        assert script.waited == [wanted]


def test_nothing_is_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    changes = Changes(as_lines)
    for at in range(20):
        changes.show(now(at))
    changes.show(now(20, disk=LONGER))
    changes.show(now(21, disk=LONGER, jobs=(job(),)))
    changes.show(now(22, disk=LONGER))
    said = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line.partition(":")[0] for line in said] == [
        "vda",
        "vda",
        "job theirs (commit of vda)",
        "job theirs",
    ]
    assert said[-1] == "job theirs: is gone"


def test_progress_is_said_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    changes = Changes(as_json)
    for at in range(11):
        changes.show(now(at, jobs=(job(current=at),)))
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["jobs"][0]["current"] for one in said] == [0, 5, 10]


def test_a_disk_that_is_gone() -> None:
    other = replace(LONGER, disk="vdb")
    assert [line.partition(" ")[2] for line in as_lines(now(), now(disk=other))][1:] == [
        "vda: is gone"
    ]


def test_events_that_came_together_are_one() -> None:
    events: SimpleQueue[Event] = SimpleQueue()
    assert not stirred(events, 0)
    events.put(Event("JOB_STATUS_CHANGE"))
    events.put(Event("BLOCK_JOB_READY"))
    assert stirred(events, 0)
    assert events.empty()
    events.put(Event("QMPSNAP_CONNECTION_LOST"))
    with pytest.raises(ConnectionLost):
        stirred(events, 0)


def test_a_signal_that_ends_no_sleep_is_seen_to_soon() -> None:
    """As one is that comes right before the sleep: here another thread takes it from the kernel."""
    main, begins = threading.get_ident(), threading.Event()

    def take() -> None:
        begins.wait()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    def sleep() -> None:
        begins.set()
        stirred(SimpleQueue(), 1_000_000)

    def handle(_number: int, _frame: FrameType | None) -> None:
        assert threading.get_ident() == main
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    taker = threading.Thread(target=take)
    taker.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            sleep()
    finally:
        taker.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, before)
