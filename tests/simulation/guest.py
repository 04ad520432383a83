"""The model as a guest: the acts of the product's own composer for QMP, taken on the model."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity, Layer
from qmpsnap.guests.qmp.names import OURS
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.monitor.base import CommandFailed, ConnectionLost, LostInMidCommand
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Outline, Overlay, State
from qmpsnap.operations.job.states import Heard, JobReport, JobStatus, JobView
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.volume import VolumeLayer
from qmpsnap.operations.where import Where
from tests.simulation.block_layer import BlockLayer
from tests.unit import samples
from tests.unit.fake_guest import FakeClaim

DISK = "vda"
_TIMELY = (Does.COMMIT, Does.CANCEL, Does.DISMISS)


class Composer(QmpComposer):
    """The product's, which finds what a dead call has left without a graph."""

    def __init__(self, model: BlockLayer) -> None:
        super().__init__(lambda _command: True)
        self._model = model

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """Nodes of ours that nothing reads, and jobs of ours that have ended."""
        model = self._model
        names = [one for one in model.nodes if one not in model.chain and one.startswith(OURS)]
        closing = [
            Step(does=Does.CLOSE, by="qmp", what="blockdev-del", arguments={"node-name": one})
            for one in names
        ]
        ended = [one for one in jobs if one.view.status is JobStatus.CONCLUDED]
        return (*closing, *(step for one in ended if (step := self.dismiss(one)) is not None))


class Files:
    """Looks at the model's files."""

    def __init__(self, model: BlockLayer) -> None:
        self._model = model

    @contextmanager
    def claim(self) -> Iterator[FakeClaim]:
        yield FakeClaim()

    def overlay(self, plan: CreatePlan) -> Overlay:
        file = self._model.files.get(plan.overlay)
        if file is None:
            return Overlay(is_there=False)
        return Overlay(is_there=True, recorded=(file.header or "", plan.backing_format))

    def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
        raise AssertionError

    def identity(self, path: str) -> Identity | None:
        return None

    def room(self, path: str) -> Room | None:
        return None


class SimulatedGuest:
    """One connection to the model; see `operations.guest.Guest`."""

    def __init__(self, model: BlockLayer) -> None:
        self.model = model
        self.compose = Composer(model)
        self.files = Files(model)
        self.where = Where(road="qmp", at="/simulated", process=(1, model.process))
        self.lose_next = False
        """Whether the reply to the next act is lost."""
        self.can_reconnect = True

    def _look(self) -> None:
        if not self.model.is_running:
            raise ConnectionLost("query-jobs", "QEMU closed the connection")
        self.model.tick()

    def read(self) -> Disks:
        self._look()
        return disks_of(self.model)

    def state(self) -> State:
        self._look()
        return State(run="running")

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        return (None,) * len(disks)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        return Surroundings()

    def jobs(self) -> tuple[JobReport, ...]:
        self._look()
        return tuple(
            JobReport(
                id=job.id,
                type="stream" if job.type == "stream" else "commit",
                disk=DISK,
                view=JobView(status=job.status, error=job.error),
                bandwidth=0,
                ours=job.id.startswith(OURS),
            )
            for job in self.model.jobs.values()
        )

    def follow(self, job: str) -> None:
        self._look()

    def view(self, job: str) -> JobView:
        found = next((one for one in self.jobs() if one.id == job), None)
        return JobView(status=JobStatus.NULL) if found is None else found.view

    def wait(self, job: str, timeout: float) -> Heard:
        """Events come late, twice or never; time is what the model makes of it."""
        before = self.model.jobs.get(job)
        self._look()
        says = before is not None and self.model.chance.random() < 0.3
        if says and before is not None and before.status is JobStatus.CONCLUDED:
            return Heard(ended=True, failed=before.error is not None, reason=before.error)
        return Heard()

    def reconnect(self, error: QmpsnapError) -> bool:
        lost = isinstance(error, ConnectionLost | LostInMidCommand)
        return lost and self.model.is_running and self.can_reconnect

    def take(self, step: Step) -> object:
        if step.by == "file":
            return take_file(self.model, step)
        self._look()
        try:
            answer = self.model.execute(step.what, dict(step.arguments))
        except CommandFailed as error:
            if step.does in _TIMELY:
                raise NotNow(step.what, error.description) from error
            raise
        if self.lose_next:
            self.lose_next = False
            raise LostInMidCommand(step.what, "the reply was lost")
        return answer


def take_file(model: BlockLayer, step: Step) -> object:
    """Change a file of the model."""
    path = str(step.arguments.get("path"))
    match step.what:
        case "make-overlay":
            assert path not in model.files
            model.make(path, "qcow2", str(step.arguments["backing"]))
        case "record-backing":
            model.files[path].header = str(step.arguments["backing"])
        case "unlink":
            model.unlink(path)
        case "fsync":  # of a raw file that is all there is to it
            if model.files[path].format == "raw":
                model.files[path].flush()
        case "compare-tables":
            file = model.files[path]
            return "" if file.disk == file.memory else "not all is on the disk"
        case _:
            raise AssertionError(step)
    return None


def disks_of(model: BlockLayer) -> Disks:
    """What a reading shows."""
    layers: list[Layer] = []
    for node in model.chain:
        path = model.nodes[node]
        name, file = os.path.basename(path), model.files[path]
        layer = samples.layer(name, file.format)
        details = layer.node_details
        assert details is not None
        layers.append(
            replace(
                layer,
                path=path,
                node=node,
                top_node=node,
                protocol_node=f"{node}-file",
                nodes=(node,),
                node_details=replace(details, name=node, filename=path),
            )
        )
    linked = [
        replace(layer, backing_name=model.files[str(layer.path)].header)
        for layer in samples.linked(layers)
    ]
    disk = samples.disk()
    return samples.guest(replace(disk, disk=DISK, layers=tuple(linked), root=model.chain[0]))
