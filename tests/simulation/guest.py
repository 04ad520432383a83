"""
The model as a guest: the acts of the product's own composers, taken on the model.

`SimulatedGuest` runs, and is reached by QMP; `OffGuest` does not, and libvirt has its definition.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity, Layer
from qmpsnap.graph import xml
from qmpsnap.guests.offline.definition import Redefine
from qmpsnap.guests.offline.steps import OfflineComposer
from qmpsnap.guests.qmp.names import OURS
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.monitor.base import CommandFailed, ConnectionLost, LostInMidCommand
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Outline, Overlay, State
from qmpsnap.operations.job.states import Heard, JobReport, JobStatus, JobView
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.run_state import OFF
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.volume import VolumeLayer
from qmpsnap.operations.where import Where
from tests.simulation.block_layer import BlockLayer
from tests.unit import samples
from tests.unit.fake_guest import FakeClaim

AT: Final = "/simulated"
_TIMELY = (Does.COMMIT, Does.CANCEL, Does.DISMISS)


class Composer(QmpComposer):
    """The product's, which finds what a dead call has left without a graph."""

    def __init__(self, model: BlockLayer) -> None:
        super().__init__(lambda _command: True)
        self._model = model

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """Nodes of ours that nothing reads, and jobs of ours that have ended."""
        model = self._model
        names = [one for one in model.nodes if one not in model.in_chains and one.startswith(OURS)]
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
        self.where = Where(road="qmp", at=AT, process=(1, model.process))
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
                disk=job.disk,
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
    """What a reading of a guest that runs shows."""
    return samples.guest(
        *(
            _disk(disk, _seen(model, chain, [model.nodes[node] for node in chain]))
            for disk, chain in model.chains.items()
        )
    )


_Seen = tuple[str, str, str, str | None]
"""A layer: its node and path, its format, and what its header names."""


def _seen(model: BlockLayer, nodes: Sequence[str], paths: Sequence[str]) -> tuple[_Seen, ...]:
    files = [model.files[path] for path in paths]
    return tuple(
        (node, path, file.format, file.header)
        for node, path, file in zip(nodes, paths, files, strict=True)
    )


@lru_cache(maxsize=256)
def _disk(name: str, layers: tuple[_Seen, ...]) -> Disk:
    """Made once: half the time of a run went into it."""
    found: list[Layer] = []
    for node, path, format_, _header in layers:
        layer = samples.layer(os.path.basename(path), format_)
        details = layer.node_details
        assert details is not None
        found.append(
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
        replace(layer, backing_name=header)
        for layer, (_, _, _, header) in zip(samples.linked(found), layers, strict=True)
    ]
    root = layers[0][0]
    return replace(
        samples.disk(), disk=name, serial=name, layers=tuple(linked), root=root, qdev=name
    )


DEFINITION: Final = """<domain type='qemu'><name>web1</name><devices>{disks}</devices></domain>"""
_A_DISK: Final = """<disk type='file' device='disk'><driver name='qemu' type='{format}'/>
<source file='{path}'/><target dev='{disk}'/></disk>"""


@dataclass
class OffGuest(SimulatedGuest):
    """A guest that was shut down: its definition names the active files, headers the rest."""

    model: BlockLayer

    def __post_init__(self) -> None:
        super().__init__(self.model)
        self.compose: Any = OfflineComposer("web1", lambda: self.model.definition)
        self.where = Where(road="offline", at=AT)

    def _look(self) -> None:
        assert not self.model.is_running

    def state(self) -> State:
        return State(run=OFF)

    def read(self) -> Disks:
        disks = []
        for disk, path in defined(self.model).items():
            paths = self.model.by_headers(path)
            nodes = [f"layer-{n}" for n in range(len(paths))]
            found = _disk(disk, _seen(self.model, nodes, paths))
            disks.append(replace(found, off=True))
        return samples.guest(*disks)

    def take(self, step: Step) -> object:
        if step.does in (Does.HOLD, Does.RELEASE):
            return None
        if isinstance(step, Redefine):
            same = os.path.samefile
            self.model.definition = str(
                step.again_from(self.model.definition, same).arguments["xml"]
            )
            return None
        return take_file(self.model, step)


def define(model: BlockLayer, active: Mapping[str, str]) -> None:
    """Have a definition name the active files."""
    disks = [
        _A_DISK.format(disk=disk, path=path, format=model.files[path].format)
        for disk, path in active.items()
    ]
    model.definition = DEFINITION.format(disks="".join(disks))


def defined(model: BlockLayer) -> dict[str, str]:
    """The active file of each disk, as the definition has it."""
    disks = xml.parse(model.definition).disks
    return {one.target: str(one.layers[0].path) for one in disks}
