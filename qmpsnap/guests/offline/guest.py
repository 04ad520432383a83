"""
A guest of libvirt that is off: the same operations, by QEMU's block layer without a guest.

    create   prepare the overlay ─► point the definition to it
    delete   open the chain (a QEMU without a machine) ─► the same job as with a guest
             active commit: point the definition to the base; then let the chain go

It holds QEMU's locks, so a guest that is started in the middle does not start. Whatever
is killed, the definition names a chain with all data: after an active commit the overlay that it
still names reads the same through its changed base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree

from qmpsnap.errors import Failed, QmpsnapError, Refused
from qmpsnap.formats.from_headers import next_below, with_chain
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.graph import xml
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.content import digest_of_layers
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.neighbours import layer_paths, other_users, room_of, space_of
from qmpsnap.guests.files.overlay import discard_overlay, prepare_overlay
from qmpsnap.guests.libvirt.snapshots import recorded_snapshots
from qmpsnap.guests.offline.block_layer import opened
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Overlay, Thawed
from qmpsnap.operations.job.states import JobReport, JobView, Verb
from qmpsnap.operations.options import (
    DEFAULT_OPTIONS,
    MergeOptions,
    OnError,
    PauseUnsupported,
)
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step


@dataclass(eq=False)
class GuestStarted(Refused):
    """Somebody started the guest after it had been seen to be off."""

    msg = "the guest {self.guest!r} has been started"
    remedy = "Give the same command again: it works on the running guest then."

    guest: str


@dataclass(eq=False)
class MemorySaved(Refused):
    """
    The next start goes on from a saved memory, with the files that the guest had then.

    Over an overlay that has come since, it would write into the file below; without one that has
    gone, it would not start.
    """

    msg = "the guest {self.guest!r} has a saved memory, which names its files as they are"
    remedy = (
        "Start it, and give the same command again. Or forget its memory, as with a power cut "
        "(`virsh managedsave-remove {self.guest}`)."
    )

    guest: str


@dataclass(eq=False)
class CannotRedefine(Failed):
    """libvirt did not take the changed definition; the guest would start as before."""

    msg = "libvirt refused the changed definition of {self.guest!r}: {self.reason}"
    remedy = "Mend the cause, then give the same command again. Remove no file before that."
    changed = "no"

    guest: str
    reason: str


class OfflineGuest(Closable):
    """One guest that is defined and does not run."""

    def __init__(self, domain: Any, *, closes: Any = None) -> None:
        """
        Use a `virDomain`.

        Args:
            domain: The guest.
            closes: A connection that `close` closes; None: the domain's stays open.

        Raises:
            LibvirtMissing: libvirt-python is not installed.
        """
        self._domain = domain
        self._libvirt = libvirt_module()
        self._owned: list[Any] = [] if closes is None else [closes]
        self._open = ExitStack()
        self._locked: dict[str, QmpGuest] = {}
        self._direct: QmpGuest | None = None

    def clear(self) -> None:
        """See `Guest.clear`: a chain that a dead call had open was let go with it."""

    def read(self) -> Disks:
        """
        See `Guest.read`: the definition, and the headers on disk.

        Raises:
            GuestStarted: It runs by now.
            MalformedXml: The definition cannot be read.
        """
        if self._domain.isActive():
            raise GuestStarted(self._domain.name())
        domain = xml.parse(self._definition())
        headers = {
            path: header for disk in domain.disks for path, header in _followed(disk).items()
        }
        domain = replace(domain, disks=tuple(with_chain(disk, headers) for disk in domain.disks))
        note = "the guest is off: formats by its definition and the headers of its files"
        report = guest_from_xml(domain, headers=headers, notes=(note,))
        return replace(report, disks=tuple(self._named(disk) for disk in report.disks))

    def _definition(self) -> str:
        flags = self._libvirt.VIR_DOMAIN_XML_INACTIVE | self._libvirt.VIR_DOMAIN_XML_SECURE
        return str(self._domain.XMLDesc(flags))

    def _named(self, disk: Disk) -> Disk:
        """Give the layers the names of the nodes that they will be opened by."""
        if not disk.layers:
            return disk
        layers = tuple(
            replace(
                layer, node=f"layer-{n}", top_node=f"layer-{n}", protocol_node=f"layer-{n}-file"
            )
            for n, layer in enumerate(disk.layers)
        )
        active = layers[0]
        if active.virtual_size is None and active.format == "raw":
            size = self._domain.blockInfo(disk.disk)[0]
            layers = (replace(active, virtual_size=int(size)), *layers[1:])
        return replace(disk, layers=layers, root="layer-0")

    def surroundings(self, disk: Disk) -> Surroundings:
        """See `Guest.surroundings`: every process that has a layer open is somebody else."""
        paths = layer_paths(disk)
        readers, notes = other_users(paths, "")
        allocated, free = space_of(paths)
        return Surroundings(
            readers=readers,
            recorded=recorded_snapshots(self._domain),
            allocated=allocated,
            free=free,
            notes=notes,
        )

    def migration(self) -> str | None:
        """See `Guest.migration`: what is off does not migrate."""
        return None

    def run_state(self) -> str | None:
        """See `Guest.run_state`; no word of QEMU's, which is not there."""
        return "off"

    def is_still(self, disk: Disk) -> bool:
        """See `Guest.is_still`: it is off."""
        return not self._domain.isActive()

    def digest(self, layers: tuple[Layer, ...]) -> str:
        """See `Guest.digest`."""
        return digest_of_layers(layers)

    def prepare(self, plan: CreatePlan) -> Overlay:
        """See `Guest.prepare`; from here on the chain is locked."""
        self._lock(plan.disk)
        return prepare_overlay(plan)

    def discard(self, plan: CreatePlan) -> None:
        """See `Guest.discard`."""
        discard_overlay(plan)

    def open(self, plans: Sequence[CreatePlan]) -> None:
        """See `Guest.open`: the overlays need no opening."""

    def switch(self, plans: Sequence[CreatePlan]) -> None:
        """
        Point the definition to the overlays, all in one.

        Raises:
            CannotRedefine: libvirt did not take it.
        """
        self._point_to({plan.disk.disk: (plan.overlay, "qcow2") for plan in plans})
        self._unlock()

    def retract(self, plans: Sequence[CreatePlan]) -> None:
        """See `Guest.retract`: let the chains go."""
        self._unlock()

    def freeze(self, limit_s: float) -> int:
        """
        See `Guest.freeze`.

        Raises:
            CannotFreeze: Always: nothing writes, and there is nobody to ask.
        """
        raise CannotFreeze("the guest is off")

    def thaw(self, limit_s: float) -> Thawed:
        """See `Guest.thaw`."""
        return Thawed(count=0)

    def attach(self, plan: MergePlan) -> None:
        """See `Guest.attach`: a job here ends with the process that started it."""

    def start(self, plan: MergePlan, options: MergeOptions = DEFAULT_OPTIONS) -> str:
        """
        See `Guest.start`.

        Raises:
            PauseUnsupported: Nobody but this call can reach the job, so nobody could resume it.
            CannotOpen: The chain is locked by somebody else, or not as it is said to be.
            MemorySaved: The guest is to go on with the chain as it is.
        """
        if options.on_error is OnError.PAUSE:
            raise PauseUnsupported("the guest is off, and no other call could resume the job")
        return self._lock(plan.disk).start(plan, options)

    def _lock(self, disk: Disk) -> QmpGuest:
        """
        Open the chain for writing, as a guest would; once, until it is let go.

        Raises:
            MemorySaved: The guest is to go on with the chain as it is.
        """
        self._check_memory()
        if disk.disk not in self._locked:
            layers = [(layer.path or "", layer.format or "") for layer in disk.layers]
            # No guest waits for this QEMU.
            direct = QmpGuest(self._open.enter_context(opened(layers)), max_stall_s=None)
            self._locked[disk.disk] = direct
        self._direct = self._locked[disk.disk]
        return self._direct

    def _check_memory(self) -> None:
        if self._domain.hasManagedSaveImage():
            raise MemorySaved(self._domain.name())

    @property
    def _engine(self) -> QmpGuest:
        assert self._direct is not None  # start() has opened it
        return self._direct

    def steps_of_create(self, plans: Sequence[CreatePlan]) -> tuple[Step, ...]:
        """See `Guest.steps_of_create`."""
        self._check_memory()
        active = {plan.disk.disk: plan.overlay for plan in plans}
        return (Step(by="libvirt", what="defineXML", arguments={"active files": active}),)

    def steps_of_freeze(self) -> tuple[Step, Step]:
        """
        See `Guest.steps_of_freeze`.

        Raises:
            CannotFreeze: Always.
        """
        raise CannotFreeze("the guest is off")

    def steps_of_merge(self, plan: MergePlan, options: MergeOptions) -> tuple[Step, ...]:
        """See `Guest.steps_of_merge`: the chain is opened, for the plan too, and nothing written."""
        try:
            steps = self._lock(plan.disk).steps_of_merge(plan, options)
        finally:
            self._unlock()
        if plan.kind != "active-commit" or plan.base is None:
            return steps
        active = {plan.disk.disk: plan.base.path}
        return (*steps, Step(by="libvirt", what="defineXML", arguments={"active files": active}))

    def view(self, job: str) -> JobView:
        """See `Guest.view`."""
        return self._engine.view(job)

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Guest.jobs`: a job of a guest that is off belongs to the call that runs it."""
        return ()

    def follow(self, job: str) -> None:
        """See `Guest.follow`."""
        self._engine.follow(job)

    def cancel(self, job: str) -> bool:
        """See `Guest.cancel`."""
        return self._engine.cancel(job)

    def pause(self, job: str) -> None:
        """See `Guest.pause`."""
        self._engine.pause(job)

    def resume(self, job: str) -> None:
        """See `Guest.resume`."""
        self._engine.resume(job)

    def set_speed(self, job: str, bandwidth: int) -> None:
        """See `Guest.set_speed`."""
        self._engine.set_speed(job, bandwidth)

    def step_of(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """See `Guest.step_of`."""
        return self._engine.step_of(verb, job, bandwidth)

    def room(self, layer: Layer) -> Room | None:
        """See `Guest.room`."""
        return room_of(layer.path)

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Guest.reconnect`: when the QEMU of this call is gone, so is its job."""
        return False

    def wait(self, job: str, timeout: float) -> None:
        """See `Guest.wait`."""
        self._engine.wait(job, timeout)

    def pivot(self, job: str) -> bool:
        """See `Guest.pivot`."""
        return self._engine.pivot(job)

    def finalize(self, plan: MergePlan, job: str) -> None:
        """See `Guest.finalize`."""
        self._engine.finalize(plan, job)

    def dismiss(self, job: str) -> None:
        """See `Guest.dismiss`."""
        self._engine.dismiss(job)

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        """
        See `Guest.settle`; point the definition to a base that has become active.

        Raises:
            NotFlushed: What was merged may not be on disk.
            CannotRedefine: libvirt did not take the definition; the one it has is still right.
        """
        notes = self._engine.settle(plan)
        if plan.rewrites_only:
            return notes  # in the middle of an operation, which lets the chain go
        if plan.kind == "active-commit" and plan.base is not None:
            self._point_to({plan.disk.disk: (plan.base.path or "", plan.base.format or "")})
        self._unlock()
        return notes

    def _point_to(self, active: Mapping[str, tuple[str, str]]) -> None:
        text = pointed_to(self._definition(), active)
        try:
            self._domain.connect().defineXML(text)
        except self._libvirt.libvirtError as error:
            raise CannotRedefine(self._domain.name(), str(error)) from error

    def _unlock(self) -> None:
        """Let the chain go; a job that still runs is cancelled."""
        self._open.close()
        self._locked.clear()
        self._direct = None

    def _let_go(self) -> None:
        self._unlock()
        while self._owned:
            with suppress(self._libvirt.libvirtError):
                self._owned.pop().close()


def pointed_to(definition: str, active: Mapping[str, tuple[str, str]]) -> str:
    """
    Change the active files in a definition.

    What it says of the chain below is taken out: it was true of the old file, and libvirt would
    believe it rather than the headers.

    Args:
        definition: The domain's inactive XML.
        active: Path and format by target.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    root = etree.fromstring(definition.encode(), parser)
    for disk in root.iterfind("./devices/disk"):
        target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
        name = str(target.get("dev")) if target is not None else ""
        if name not in active or source is None:
            continue
        path, format_ = active[name]
        source.set("file", path)
        if driver is None:
            driver = etree.SubElement(disk, "driver", name="qemu")
        driver.set("type", format_)
        for below in disk.findall("backingStore"):
            disk.remove(below)
    return etree.tostring(root, encoding="unicode")


def _followed(disk: xml.XmlDisk) -> dict[str, Header]:
    """Headers of a chain by path, as far as each is stated to be qcow2 by the one above."""
    headers: dict[str, Header] = {}
    active = disk.layers[0] if disk.layers else None
    path, stated = (active.path, active.format) if active else (None, None)
    while path is not None and stated == "qcow2" and path not in headers:
        try:
            headers[path] = read_header(path)
        except (OSError, BadHeader):
            break
        header = headers[path]
        path, stated = next_below(path, header), header.backing_format
    return headers
