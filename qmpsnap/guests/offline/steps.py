"""
The acts of each operation on a guest that is off, put together from a plan.

    create   hold the chain ─► make the overlay ─► point the definition to it ─► let go
    revert   the same, with an overlay over a lower layer
    delete   hold the chain ─► (where the definition names what leaves) take that out of it ─►
             the same job as with a guest ─► (where it named it, or the active file has left)
             name what is left in the definition ─► let go

The chain is held by a QEMU without a machine, with QEMU's own locks, so a guest that somebody
starts now does not start. Whatever is killed, the definition names a chain with all data: after an
active commit the overlay that it still names reads the same through its changed base.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.verdict import Witness
from qmpsnap.guests.files.steps import discard_steps, make_steps
from qmpsnap.guests.offline.definition import Edit, Place, Redefine, names_below
from qmpsnap.guests.qmp.flush_steps import heard_flushes
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.operations.guest import HeaderSteps, MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.headers import by_hand
from qmpsnap.operations.job.states import JobReport, Verb
from qmpsnap.operations.names import tidy
from qmpsnap.operations.options import MergeOptions, OnError, PauseUnsupported
from qmpsnap.operations.plan_header import HeaderPlan
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.run_state import OFF, how_to_be_heard
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import DiskUnsuitable, Volume, VolumeLayer

RELEASE = Step(does=Does.RELEASE, by="file", what="close-chain")


class MemorySaved(Refused):
    """
    The next start continues from a saved memory, with the files that the guest had then.

    Over an overlay that has come since, it would write into the file below; without one that has
    gone, it would not start.
    """

    msg = "the guest {self.guest!r} has a saved memory, which names its files as they are"
    remedy = (
        "Start it, and give the same command again. Or forget its memory, as with a power cut "
        "(`virsh managedsave-remove {self.guest}`)."
    )

    guest: str


class BaseElsewhere(Refused):
    """
    What a disk would go back to lies in another folder than its active file.

    Of a guest that is off, no header is followed out of its folder: it may have come with an image
    that somebody uploaded. So the new chain could not be read again.
    """

    msg = "{self.base} does not lie in the folder of the active file"
    remedy = (
        "By hand: `qemu-img create -f qcow2 -b {self.base} -F {self.format} {self.overlay}`, then "
        "have the definition name {self.overlay} (`virsh edit`)."
    )

    base: str
    overlay: str
    format: str


class OfflineComposer:
    """Puts the acts together for one guest that is off."""

    def __init__(self, guest: str, definition: Callable[[], str]) -> None:
        """
        Ask nothing yet.

        Args:
            guest: The guest's name.
            definition: Gives its definition as it is now.
        """
        self._guest = guest
        self._definition = definition
        # Each layer is opened with its own driver, so every base has a node that tells its format.
        self._qmp = QmpComposer(lambda _command: False)

    def verb(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """See `Composer.verb`."""
        return self._qmp.verb(verb, job, bandwidth)

    def dismiss(self, job: JobReport) -> Step | None:
        """See `Composer.dismiss`: a job ends with the call that runs it."""
        return None

    def unsafe(self, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """See `Composer.unsafe`: a job here ends with the process that started it."""
        return ()

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """See `Composer.leftovers`: a chain that a dead call had open was let go with it."""
        return ()

    def snapshot(
        self,
        disks: Disks,
        plans: Sequence[CreatePlan],
        overlays: Sequence[Overlay],
        state: State,
    ) -> SnapshotSteps:
        """
        See `Composer.snapshot`.

        Raises:
            MemorySaved: The guest is to go on with the chain as it is.
            BaseElsewhere: What the disk is to go back to lies in another folder.
        """
        self._check_memory(state)
        for plan in plans:
            if plan.kept and not _beside(plan):
                raise BaseElsewhere(plan.active.path, plan.overlay, plan.active.format)
        edits = {plan.disk.disk: _with_overlay(plan) for plan in plans}
        return SnapshotSteps(
            hold=tuple(_hold(plan.disk) for plan in plans),
            make=make_steps(plans, overlays),
            switch=self._redefine(Does.SWITCH, edits),
            release=RELEASE,
            discard=discard_steps(plans, overlays),
        )

    def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
        """
        See `Composer.merge`. Nodes are not closed one by one: they go with the QEMU that has them.

        Raises:
            PauseUnsupported: Nobody but this call can reach the job, so nobody could resume it.
            MemorySaved: The guest is to go on with the chain as it is.
            DiskUnsuitable: A header is silent where only the definition tells a format, or leads
                to another folder.
        """
        if options.on_error is OnError.PAUSE:
            raise PauseUnsupported("the guest is off, and no other call could resume the job")
        self._check_memory(state)
        _check_headers(plan.disk)
        forget, redefine = self._definition_of(plan)
        steps = self._qmp.merge(plan, options, state)
        return replace(
            steps,
            hold=_hold(plan.disk),
            forget=forget,
            settle=tuple(_settling(plan, steps)),
            redefine=redefine,
            release=RELEASE,
        )

    def below_again(self, plan: MergePlan) -> Step | None:
        """See `Composer.below_again`: libvirt had the definition end where the pull left the chain."""
        target, definition = plan.disk.disk, self._definition()
        is_encrypted = plan.top.secret is not None  # no header tells a secret
        if not names_below(definition, target, 0) and not is_encrypted:
            return None
        left = [layer.path for layer in plan.remaining]
        whole = tuple(
            replace(place, was=left.index(place.path) if place.path in left else None)
            for place in _places(plan.disk, plan.disk.layers)
        )
        edit = Edit(old=tuple(left), new=whole, least=len(whole) if is_encrypted else 1)
        return self._redefine(Does.REDEFINE, {target: edit})

    def header(self, plan: HeaderPlan) -> HeaderSteps:
        """See `Composer.header`."""
        return replace(self._qmp.header(plan), hold=_hold(plan.disk), release=RELEASE)

    def freeze(self, limit_s: float) -> tuple[Step, Step]:
        """
        See `Composer.freeze`.

        Raises:
            CannotFreeze: Always: nothing writes, and there is nobody to ask.
        """
        raise CannotFreeze("the guest is off", advice=how_to_be_heard(OFF))

    def flush(self, layer: VolumeLayer, disk: str) -> Step | None:
        """See `Composer.flush`: nothing is in anybody's memory."""
        return None

    def _definition_of(self, plan: MergePlan) -> tuple[Step | None, Step | None]:
        """What the definition is before the job and after it, where that is not as it is now."""
        target, definition = plan.disk.disk, self._definition()
        after = Edit(old=_paths(plan.disk), new=_places(plan.disk, plan.remaining))
        if plan.kind == "active-commit":
            return None, Redefine.of(Does.REDEFINE, definition, {target: after})
        position = 0 if plan.above is None else after.old.index(plan.above.path)
        if not names_below(definition, target, position):
            return None, None
        _check_followed(plan.disk, position)
        whole = _places(plan.disk, plan.disk.layers)
        before = Edit(old=after.old, new=whole, names=position + 1)
        return (
            Redefine.of(Does.FORGET, definition, {target: before}),
            Redefine.of(Does.REDEFINE, definition, {target: after}),
        )

    def _redefine(self, does: Does, edits: Mapping[str, Edit]) -> Step:
        return Redefine.of(does, self._definition(), edits)

    def _check_memory(self, state: State) -> None:
        if state.saved:
            raise MemorySaved(self._guest)


def _settling(plan: MergePlan, steps: MergeSteps) -> Iterator[Step]:
    """The export that holds the chain forbids a resize, so a pull is flushed as before its end."""
    for step in steps.settle:
        if step.does is Does.FLUSH:
            yield from heard_flushes(plan.written)
        elif step.does is not Does.CLOSE:
            yield step


def node_name(position: int) -> str:
    """Name of the format node of a layer, counted from the active one."""
    return f"layer-{position}"


def with_nodes(disk: Disk) -> Disk:
    """The disk of a guest that is off; its layers have the nodes that they will be opened by."""
    if not disk.layers:
        return replace(disk, off=True)
    layers = tuple(_with_nodes(layer, node_name(n)) for n, layer in enumerate(disk.layers))
    return replace(disk, layers=layers, root=node_name(0), off=True)


def _with_nodes(layer: Layer, name: str) -> Layer:
    protocol = f"{name}-file"
    nodes = (name, protocol)
    return replace(layer, node=name, top_node=name, protocol_node=protocol, nodes=nodes)


def _check_headers(disk: Volume) -> None:
    """
    While a job runs, and for whoever starts the guest after a crash, the headers alone must do.

    Raises:
        DiskUnsuitable: One of them records no format.
    """
    for above, layer in pairwise(disk.layers):
        if not any(one.witness is Witness.HEADER for one in layer.evidence):
            name = above.backing_name or layer.path
            raise DiskUnsuitable(
                disk.disk,
                f"that {layer.file} is {layer.format} stands in the definition alone, and not in "
                f"the header of {above.file}",
                f"Record it there: `{by_hand(above, layer, name)}`.",
            )


def _check_followed(disk: Volume, position: int) -> None:
    """
    While a job runs, the definition ends above what it takes out: then headers alone lead on.

    The lowest file may lie elsewhere under its whole name: by that it is known again.

    Raises:
        DiskUnsuitable: One of them leads to another folder, and what it names could not be read.
    """
    for above, layer in pairwise(disk.layers[position:]):
        is_last = layer is disk.layers[-1]
        if tidy(os.path.dirname(above.path)) == tidy(os.path.dirname(layer.path)):
            continue
        if is_last and above.backing_name == layer.path:
            continue
        command = by_hand(above, layer, layer.path)
        raise DiskUnsuitable(
            disk.disk,
            f"{layer.file} lies in another folder than {above.file}, whose header alone would name "
            "it while the merge runs, and of a guest that is off no header is followed out of its "
            "folder",
            f"Have that header name the whole path: `{command}`. Then give the same command again."
            if is_last
            else "Start the guest, and give the same command again.",
        )


def _paths(disk: Volume) -> tuple[str, ...]:
    return tuple(layer.path for layer in disk.layers)


def _with_overlay(plan: CreatePlan) -> Edit:
    overlay = Place(path=plan.overlay, format="qcow2", secret=plan.secret, was=None)
    new = (overlay, *_places(plan.disk, plan.below))
    least = 1 if _beside(plan) and plan.secret is None else 2
    return Edit(old=_paths(plan.disk), new=new, least=least)


def _beside(plan: CreatePlan) -> bool:
    """Whether the overlay lies in the folder of what it lies over."""
    return tidy(os.path.dirname(plan.overlay)) == tidy(os.path.dirname(plan.active.path))


def _places(before: Volume, layers: Sequence[VolumeLayer]) -> tuple[Place, ...]:
    """Layers of a chain with the positions that they had in it."""
    paths = _paths(before)
    return tuple(
        Place(
            path=layer.path,
            format=layer.format,
            is_block=layer.protocol == "host_device",
            secret=layer.secret,
            was=paths.index(layer.path),
        )
        for layer in layers
    )


def _hold(disk: Disk) -> Step:
    files = [{"path": layer.path, "format": layer.format} for layer in disk.layers]
    arguments = {"disk": disk.disk, "chain": files}
    return Step(does=Does.HOLD, by="file", what="open-chain", arguments=arguments)
