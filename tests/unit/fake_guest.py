"""
A host in memory: one guest whose chains change as a real one's do, and which fails on demand.

The same rules as for `QmpGuest` and `LibvirtGuest`: a job changes the graph when it concludes
without an error, not when it is dismissed; a switch that raises has changed nothing, unless its
reply was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Overlay, Thawed
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step
from tests.unit import samples

JOB = "job0"
CONCLUDED = JobView(status=JobStatus.CONCLUDED)


class FakeGuest:
    """See the module; `calls` holds the names of the steps in the order they were asked for."""

    def __init__(self, guest: Disks, *views: JobView) -> None:
        self.guest = guest
        self.views = list(views or (CONCLUDED,))
        """How the job is, each time it is looked at; the last one for ever."""
        self.calls: list[str] = []
        self.around = Surroundings()
        self.state: str | None = "running"
        self.still = True
        self.digests: list[str] = []
        """What each reading of a content gives."""
        self.digested: list[tuple[str, ...]] = []
        self.files: set[str] = set()
        """Overlay files that were made, and not discarded."""
        self.overlay = Overlay(made=True)
        self.left_running = False
        """Whether an earlier call left the job of the plan running."""
        self.is_merged = True
        """Whether the job does its work when it concludes without an error."""
        self.pivots = [True]
        """What each try to pivot returns; the last one for ever."""
        self.notes: tuple[str, ...] = ()
        self.fails: dict[str, BaseException] = {}
        """Raised in the place of a step."""
        self.fails_after: dict[str, BaseException] = {}
        """Raised when a step is done: its reply was lost."""
        self.fails_at_look: dict[str, int] = {}
        """Ctrl-C comes at this look of a kind: `surroundings`, `digest`."""
        self._looks: dict[str, int] = {}
        self.readings: list[Disks] = []
        """Shown by the next readings after a change, before the guest as it is."""
        self.meanwhile: dict[str, Disks] = {}
        """What somebody else makes of the guest, while a step is carried out."""
        self.nodes: set[str] = set()
        """Overlays that are open, and not on a disk."""
        self.filesystems = 2
        """How many the guest can freeze."""
        self.frozen = 0
        """How many are frozen now."""
        self.was_frozen: list[int] = []
        """How many were at each switch."""
        self.thaws: Thawed | None = None
        """What a thaw comes to; None: that all is well."""
        self.reports: list[tuple[JobReport, ...]] = [()]
        """All jobs, each time they are listed; the last for ever."""
        self.cancelled = [JobView(status=JobStatus.CONCLUDED, error="Operation canceled")]
        """How the job is when it has been cancelled."""
        self.can_cancel = True
        self.options: MergeOptions | None = None
        self.speeds: list[int] = []
        self.reconnects: list[bool] = []
        """Whether a lost connection can be made again, each time; then never. Mended, no step
        fails any more."""
        self.errors: list[QmpsnapError] = []
        """What `reconnect` was asked about."""
        self.cleared = 0
        self._plan: MergePlan | None = None

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]
        if name in self.meanwhile:
            self.guest = self.meanwhile.pop(name)

    def _unrecorded(self, name: str) -> None:
        """A look that may be interrupted."""
        self._looks[name] = self._looks.get(name, 0) + 1
        if self._looks[name] == self.fails_at_look.get(name):
            raise KeyboardInterrupt

    def _done(self, name: str) -> None:
        if name in self.fails_after:
            raise self.fails_after[name]

    def clear(self) -> None:
        self.cleared += 1

    def read(self) -> Disks:
        self._step("read")
        if self.readings and {"switch", "dismiss"} & set(self.calls):
            return self.readings.pop(0)
        return self.guest

    def surroundings(self, disk: Disk) -> Surroundings:
        self._unrecorded("surroundings")
        return self.around

    def migration(self) -> str | None:
        return self.around.migration

    def run_state(self) -> str | None:
        if "run_state" in self.fails:
            raise self.fails["run_state"]
        return self.state

    def is_still(self, disk: Disk) -> bool:
        return self.still

    def digest(self, layers: tuple[Layer, ...]) -> str:
        self._unrecorded("digest")
        self.digested.append(tuple(layer.file for layer in layers))
        return self.digests.pop(0)

    def prepare(self, plan: CreatePlan) -> Overlay:
        self._step("prepare")
        self.files.add(plan.overlay)
        return self.overlay

    def discard(self, plan: CreatePlan) -> None:
        self._step("discard")
        self.files.discard(plan.overlay)

    def open(self, plans: Sequence[CreatePlan]) -> None:
        self._step("open")
        self.nodes |= {plan.overlay for plan in plans}
        self._done("open")

    def switch(self, plans: Sequence[CreatePlan]) -> None:
        self._step("switch")
        self.was_frozen.append(self.frozen)
        for plan in plans:
            overlay = samples.layer(plan.file, virtual_size=plan.virtual_size)
            layers = samples.linked([overlay, *plan.disk.layers])
            self.guest = with_layers(self.guest, layers, plan.disk.disk)
            self.nodes.remove(plan.overlay)
        self._done("switch")

    def retract(self, plans: Sequence[CreatePlan]) -> None:
        self._step("retract")
        self.nodes -= {plan.overlay for plan in plans}

    def freeze(self, limit_s: float) -> int:
        self._step("freeze")
        self.frozen = self.filesystems
        self._done("freeze")
        return self.frozen

    def thaw(self, limit_s: float) -> Thawed:
        self._step("thaw")
        thawed, self.frozen = self.thaws or Thawed(count=self.frozen, frozen_s=0.01), 0
        self._done("thaw")
        return thawed

    def steps_of_create(self, plans: Sequence[CreatePlan]) -> tuple[Step, ...]:
        return (Step(by="qmp", what="transaction"),)

    def steps_of_freeze(self) -> tuple[Step, Step]:
        return Step(by="agent", what="freeze"), Step(by="agent", what="thaw")

    def steps_of_merge(self, plan: MergePlan, options: MergeOptions) -> tuple[Step, ...]:
        return (Step(by="qmp", what="block-commit", arguments={"speed": options.bandwidth}),)

    def attach(self, plan: MergePlan) -> str | None:
        self._step("attach")
        self._plan = plan
        return JOB if self.left_running else None

    def start(self, plan: MergePlan, options: MergeOptions) -> str:
        self._step("start")
        self.options = options
        self._done("start")
        return JOB

    def view(self, job: str) -> JobView:
        assert job == JOB
        self._step("view")
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        ended = view.status in (JobStatus.CONCLUDED, JobStatus.NULL)
        if ended and view.error is None and self.is_merged and self._plan is not None:
            self.becomes(samples.linked(self._plan.remaining))
        return view

    def wait(self, job: str, timeout: float) -> None:
        assert job == JOB
        self._step("wait")

    def jobs(self) -> tuple[JobReport, ...]:
        return self.reports.pop(0) if len(self.reports) > 1 else self.reports[0]

    def follow(self, job: str) -> None:
        assert job == JOB
        self._step("follow")

    def cancel(self, job: str) -> bool:
        assert job == JOB
        self._step("cancel")
        self.views = list(self.cancelled) or self.views
        return self.can_cancel

    def pause(self, job: str) -> None:
        assert job == JOB
        self._step("pause")

    def resume(self, job: str) -> None:
        assert job == JOB
        self._step("resume")

    def set_speed(self, job: str, bandwidth: int) -> None:
        assert job == JOB
        self._step("set_speed")
        self.speeds.append(bandwidth)

    def step_of(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        return Step(by="qmp", what=verb, arguments={"id": job})

    def room(self, layer: Layer) -> Room | None:
        return Room(file=layer.file, mount="/share", free=1024, allocated=2048)

    def reconnect(self, error: QmpsnapError) -> bool:
        self.errors.append(error)
        found = self.reconnects.pop(0) if self.reconnects else False
        if found:
            self.fails.clear()
        return found

    def pivot(self, job: str) -> bool:
        assert job == JOB
        self._step("pivot")
        return self.pivots.pop(0) if len(self.pivots) > 1 else self.pivots[0]

    def finalize(self, plan: MergePlan, job: str) -> None:
        assert job == JOB
        self._step("finalize")

    def dismiss(self, job: str) -> None:
        assert job == JOB
        self._step("dismiss")

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        self._step("settle")
        return self.notes

    def becomes(self, layers: Iterable[Layer]) -> None:
        """The first disk has other layers from now on."""
        self.guest = with_layers(self.guest, layers)


def with_layers(guest: Disks, layers: Iterable[Layer], name: str | None = None) -> Disks:
    """The guest with other layers on one disk, by default the first."""
    name, layers = name or guest.disks[0].disk, tuple(layers)
    disks = (replace(one, layers=layers) if one.disk == name else one for one in guest.disks)
    return replace(guest, disks=tuple(disks))
