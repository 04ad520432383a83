"""
A guest in memory, whose chains change as a real one's do, and which fails on demand.

The same rules as for `QmpGuest` and `LibvirtGuest`: a job changes the graph when it concludes
without an error, not when it is dismissed; a switch that raises has changed nothing, unless its
reply was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity, Layer
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import (
    HeaderSteps,
    MergeSteps,
    Outline,
    Overlay,
    SnapshotSteps,
    State,
    Thawed,
)
from qmpsnap.operations.job.states import Heard, JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_header import HeaderPlan
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.volume import VolumeLayer
from qmpsnap.operations.where import NOWHERE
from tests.unit import samples

JOB = "job0"
CONCLUDED = JobView(status=JobStatus.CONCLUDED)
MADE = Overlay(is_there=False)


SYNC = Step(does=Does.FLUSH, by="file", what="fsync")


def step(does: Does, what: str = "", **arguments: object) -> Step:
    return Step(does=does, by="qmp", what=what or does, arguments=arguments)


class FakeClaim:
    """The locks of one operation, in memory."""

    def __init__(self, others: Collection[str] = (), notes: tuple[str, ...] = ()) -> None:
        self.others, self.notes = others, notes
        self.taken: list[str] = []
        self.kept: list[str] = []

    def take(self, paths: Collection[str]) -> None:
        for path in paths:
            if path in self.others:
                raise DiskLocked(path, "")
            self.taken.append(path)

    def keep(self, paths: Collection[str]) -> None:
        self.kept += paths

    def is_anothers(self, path: str) -> bool:
        return path in self.others


class FakeGuest:
    """See the module; `calls` holds the looks and acts in the order they were asked for."""

    def __init__(self, guest: Disks, *views: JobView) -> None:
        self.guest = guest
        self.where = NOWHERE
        self.views = list(views or (CONCLUDED,))
        """How the job is, each time it is looked at; the last one from then on."""
        self.calls: list[str] = []
        self.around = Surroundings()
        self.migration: str | None = None
        self.run: str | None = "running"
        self.digests: list[str] = []
        """What each reading of a content gives."""
        self.digested: list[tuple[str, ...]] = []
        self.existing: set[str] = set()
        """Overlay files that were made, and not discarded."""
        self.found = MADE
        """How the file that is to become an overlay is found."""
        self.left_running = False
        """Whether an earlier call left the job of the plan."""
        self.left_as = JobView(status=JobStatus.RUNNING)
        """How that one is when all jobs are listed."""
        self.left_ours: bool | None = True
        """Whether it is known to be ours."""
        self.is_merged = True
        """Whether the job does its work when it concludes without an error."""
        self.pivots = [True]
        """What each try to let the job change the graph comes to; the last one from then on."""
        self.settles: tuple[Step, ...] = (step(Does.CLOSE),)
        self.flushes = False
        """Whether the job stops before it changes the graph, to be flushed."""
        self.otherwise: tuple[tuple[Step, ...], ...] = ((SYNC,),)
        """What tells of the flush of a merge where its own acts do not; not in `calls`."""
        self.header_settles: tuple[Step, ...] = ()
        self.forgets = False
        """Whether its definition ends above what a merge takes out, while that runs."""
        self.is_off = False
        """Whether its chain is held while it is changed, and its definition changes with it."""
        self.fails: dict[str, BaseException] = {}
        """Raised in the place of a call."""
        self.interrupts: dict[str, int] = {}
        """How often Ctrl-C comes at a call, in its place."""
        self.fails_after: dict[str, BaseException] = {}
        """Raised when an act is done: its reply was lost."""
        self.fails_at_look: dict[str, int] = {}
        """Ctrl-C comes at this look of a kind: `neighbours`, `digest`."""
        self._looks: dict[str, int] = {}
        self.readings: list[Disks] = []
        """Shown by the next readings after a change, before the guest as it is."""
        self.meanwhile: dict[str, Disks] = {}
        """What somebody else makes of the guest, while a call is carried out."""
        self.before: dict[str, Callable[[], object]] = {}
        """Done once before a call is carried out: by somebody else, in between."""
        self.nodes: set[str] = set()
        """Overlays that are open, and not on a disk."""
        self.filesystems = 2
        """How many the guest can freeze."""
        self.frozen = 0
        """How many are frozen now."""
        self.was_frozen: list[int] = []
        """How many were at each switch."""
        self.made_as: Identity | None = None
        """What an overlay is when it is made."""
        self.switched_as: Identity | None = None
        """What it is when it is on a disk."""
        self.notes: tuple[str, ...] = ()
        """What is said of each overlay."""
        self.thaws: Thawed | None = None
        """What a thaw comes to; None: that all is well."""
        self.reports: list[tuple[JobReport, ...]] = [()]
        """All jobs, each time they are listed; the last from then on."""
        self.cancelled = [JobView(status=JobStatus.CONCLUDED, error="Operation canceled")]
        """How the job is when it has been cancelled."""
        self.can_cancel = True
        self.options: MergeOptions | None = None
        self.speeds: list[int] = []
        self.said: object = ""
        """What a flush by HMP answers."""
        self.reconnects: list[bool] = []
        """Whether a lost connection can be made again, each time; then never. Mended, nothing
        fails any more."""
        self.errors: list[QmpsnapError] = []
        """What `reconnect` was asked about."""
        self.left_over: tuple[Step, ...] = ()
        """What a call that died has left."""
        self.heard = Heard(ended=True)
        self.claimed = FakeClaim()
        """The locks of the last operation."""
        self.claimed_by_others: set[str] = set()
        self.lock_notes: tuple[str, ...] = ()
        self.identities: dict[str, Identity] = {}
        """What names lead to, of layers that were identified."""
        self.plan: MergePlan | HeaderPlan | None = None
        self.plans: Sequence[CreatePlan] = ()

    @property
    def compose(self) -> FakeGuest:
        return self

    @property
    def files(self) -> FakeGuest:
        return self

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.before:
            self.before.pop(name)()
        if self.interrupts.get(name):
            self.interrupts[name] -= 1
            raise KeyboardInterrupt
        if name in self.fails:
            raise self.fails[name]
        if name in self.meanwhile:
            self.guest = self.meanwhile.pop(name)

    def _look(self, name: str) -> None:
        """A look that is not in `calls`, and that may be interrupted."""
        self._looks[name] = self._looks.get(name, 0) + 1
        if self._looks[name] == self.fails_at_look.get(name):
            raise KeyboardInterrupt
        if name in self.fails:
            raise self.fails[name]
        if name in self.meanwhile:
            self.guest = self.meanwhile.pop(name)

    # --- looks

    def read(self) -> Disks:
        self._call("read")
        if self.readings and {"switch", "settled"} & set(self.calls):
            return self.readings.pop(0)
        return self.guest

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        return (None,) * len(disks)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        self._look("neighbours")
        if left is None:
            return self.around
        users = {path: users for path, users in self.around.readers.items() if path in left}
        return replace(self.around, readers=users)

    def state(self) -> State:
        self._look("state")
        return State(run=self.run, migration=self.migration)

    def overlay(self, plan: CreatePlan) -> Overlay:
        self._call("overlay")
        return self.found

    def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
        self._look("digest")
        self.digested.append(tuple(layer.file for layer in layers))
        return self.digests.pop(0)

    @contextmanager
    def claim(self) -> Iterator[FakeClaim]:
        self.claimed = FakeClaim(self.claimed_by_others, self.lock_notes)
        yield self.claimed

    def identity(self, path: str) -> Identity | None:
        return self.identities.get(path)

    def room(self, path: str) -> Room | None:
        return Room(file=path.rpartition("/")[2], mount="/share", free=1024, allocated=2048)

    def jobs(self) -> tuple[JobReport, ...]:
        found = self.reports.pop(0) if len(self.reports) > 1 else self.reports[0]
        if self.left_running:
            left = [
                replace(report(type_=type_, view=self.left_as), ours=self.left_ours)
                for type_ in ("commit", "stream")
            ]
            found = (*found, *left)
        return found

    def follow(self, job: str) -> None:
        assert job == JOB
        self._call("follow")

    def view(self, job: str) -> JobView:
        assert job == JOB
        self._call("view")
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        ended = view.status in (JobStatus.CONCLUDED, JobStatus.NULL)
        if ended and view.error is None and self.is_merged:
            self._do_the_work()
        if ended:
            self.calls.append("settled")
        return view

    def wait(self, job: str, timeout: float) -> Heard:
        assert job == JOB
        self._call("wait")
        return self.heard

    def reconnect(self, error: QmpsnapError) -> bool:
        self.errors.append(error)
        found = self.reconnects.pop(0) if self.reconnects else False
        if found:
            self.fails.clear()
        return found

    # --- what is composed

    def verb(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        does = {Verb.SET_SPEED: Does.SPEED}.get(verb) or Does(verb.value)
        return step(does, verb, id=job, bandwidth=bandwidth)

    def dismiss(self, job: JobReport) -> Step | None:
        return step(Does.DISMISS, id=job.id) if job.ours else None

    def unsafe(self, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        return ()

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        return self.left_over

    def below_again(self, plan: MergePlan) -> Step | None:
        return None

    def snapshot(
        self,
        disks: Disks,
        plans: Sequence[CreatePlan],
        overlays: Sequence[Overlay],
        state: State,
    ) -> SnapshotSteps:
        self.plans = plans
        made = [not overlay.is_there for overlay in overlays]
        paths = [plan.overlay for plan in plans]
        return SnapshotSteps(
            hold=(step(Does.HOLD),) if self.is_off else (),
            release=step(Does.RELEASE) if self.is_off else None,
            make=tuple((step(Does.MAKE, path=path),) for path in paths),
            open=tuple(step(Does.OPEN, path=path) for path in paths),
            switch=step(Does.SWITCH),
            close=tuple(step(Does.CLOSE, path=path) for path in paths),
            discard=tuple(
                step(Does.DISCARD, path=path) if new else None
                for path, new in zip(paths, made, strict=True)
            ),
            notes=self.notes,
        )

    def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
        self.plan, self.options = plan, options
        return MergeSteps(
            job=JOB,
            forget=step(Does.FORGET) if self.forgets else None,
            start=step(Does.START, speed=options.bandwidth),
            flush=step(Does.FLUSH) if self.flushes else None,
            commit=step(Does.COMMIT),
            cancel=step(Does.CANCEL),
            dismiss=step(Does.DISMISS),
            settle=(step(Does.DISMISS), *self.settles),
            otherwise=self.otherwise,
            hold=step(Does.HOLD) if self.is_off else None,
            redefine=step(Does.REDEFINE) if self.is_off else None,
            release=step(Does.RELEASE) if self.is_off else None,
        )

    def header(self, plan: HeaderPlan) -> HeaderSteps:
        self.plan = plan
        return HeaderSteps(
            job=JOB,
            start=step(Does.START),
            cancel=step(Does.CANCEL),
            settle=self.header_settles,
            hold=step(Does.HOLD) if self.is_off else None,
            release=step(Does.RELEASE) if self.is_off else None,
        )

    def freeze(self, limit_s: float) -> tuple[Step, Step]:
        if "compose-freeze" in self.fails:
            raise self.fails["compose-freeze"]
        return step(Does.FREEZE), step(Does.THAW)

    def flush(self, layer: VolumeLayer, disk: str) -> Step | None:
        return step(Does.FLUSH)

    # --- acts

    def take(self, step: Step) -> object:
        if step is SYNC:
            return None
        self._call(step.does)
        answer: object = None
        path = str(step.arguments.get("path", ""))
        match step.does:
            case Does.MAKE:
                self.existing.add(path)
                answer = self.made_as
            case Does.DISCARD:
                self.existing.discard(path)
            case Does.OPEN:
                self.nodes.add(path)
            case Does.CLOSE:
                self.nodes.discard(path)
            case Does.SWITCH:
                self._switch()
            case Does.FREEZE:
                answer = self.frozen = self.filesystems
            case Does.THAW:
                answer, self.frozen = self.thaws or Thawed(count=self.frozen, frozen_s=0.01), 0
            case Does.FLUSH:
                answer = self.said
            case Does.CANCEL:
                self.views = list(self.cancelled) or self.views
                if not self.can_cancel:
                    raise NotNow("cancel", "it is ending")
            case Does.COMMIT:
                if not (self.pivots.pop(0) if len(self.pivots) > 1 else self.pivots[0]):
                    raise NotNow("commit", "not ready")
            case Does.SPEED:
                self.speeds.append(int(str(step.arguments["bandwidth"])))
            case _:
                pass
        if step.does in self.fails_after:
            raise self.fails_after[step.does]
        return answer

    def _switch(self) -> None:
        self.was_frozen.append(self.frozen)
        for plan in self.plans:
            overlay = samples.layer(
                plan.file, virtual_size=plan.virtual_size, identity=self.switched_as
            )
            layers = samples.linked([overlay, *plan.disk.layers])
            self.guest = with_layers(self.guest, layers, plan.disk.disk)
            self.nodes.remove(plan.overlay)

    def _do_the_work(self) -> None:
        plan = self.plan
        if isinstance(plan, MergePlan):
            self.becomes(samples.linked(plan.remaining))
        elif plan is not None:
            now = [
                replace(one, backing_name=plan.name, backing_format=plan.base.format)
                if one.path == plan.top.path
                else one
                for one in self.guest.disk(plan.disk.disk).layers
            ]
            self.guest = with_layers(self.guest, now, plan.disk.disk)

    def becomes(self, layers: Iterable[Layer]) -> None:
        """The first disk has other layers from now on."""
        self.guest = with_layers(self.guest, layers)


def report(*, type_: str, view: JobView) -> JobReport:
    """A job of this tool on the first disk."""
    return JobReport(id=JOB, type=type_, disk="vda", view=view, bandwidth=0, ours=True)


def with_layers(guest: Disks, layers: Iterable[Layer], name: str | None = None) -> Disks:
    """The guest with other layers on one disk, by default the first."""
    name, layers = name or guest.disks[0].disk, tuple(layers)
    disks = (replace(one, layers=layers) if one.disk == name else one for one in guest.disks)
    return replace(guest, disks=tuple(disks))
