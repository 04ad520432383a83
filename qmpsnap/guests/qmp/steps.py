"""
The acts of each operation in QMP, put together from a plan. Pure but for what this QEMU can do.

Names of nodes and ids of jobs follow from the plan, so that what is shown is what is sent, and the
same command given again finds what an earlier one has left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.graph.drivers import DriverKind, kind_of
from qmpsnap.graph.nodes import Node
from qmpsnap.guests.files.steps import discard_steps, make_steps, sync_step
from qmpsnap.guests.qmp.flush_steps import heard_flush, otherwise
from qmpsnap.guests.qmp.leftovers import leftovers
from qmpsnap.guests.qmp.names import FORMAT, job_id, named, protocol_node_of
from qmpsnap.guests.qmp.overlay_node import open_step, overlay_opening, zeroes_of
from qmpsnap.guests.qmp.unchangeable import check_changeable
from qmpsnap.operations.guest import HeaderSteps, MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.job.states import JobReport, JobStatus, Verb
from qmpsnap.operations.options import MergeOptions, OnError
from qmpsnap.operations.plan_header import HeaderPlan
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import VolumeLayer

_VERBS: Final = {
    Verb.CANCEL: Does.CANCEL,
    Verb.PAUSE: Does.PAUSE,
    Verb.RESUME: Does.RESUME,
}


class FormatNotRecordable(Refused):
    """
    This QEMU would write a wrong backing format into a header.

    Without `backing-mask-protocol` (QEMU 9.0) it records the name of the base's driver, and over
    a base that is open without a raw node that is `file`, which libvirt 9.0 then takes for a
    licence to probe. Putting a raw node in by `blockdev-reopen` was tried and given up: on 7.2 a
    guest's write failed now and then (twice in some 60 merges under load).
    """

    msg = (
        "this QEMU would record {self.driver!r} as the format of {self.file}, because the guest "
        "has it open without a raw node"
    )
    remedy = (
        "Delete the newest snapshots first (an active commit writes no header), or pull the whole "
        "chain; or use QEMU 9.0 or later, or start the guest with a raw node over {self.file}."
    )

    driver: str
    file: str


class FilterInTheWay(Refused):
    """Between two layers lies a filter, which a rewrite of the header would take out."""

    msg = "a filter ({self.node}) lies between the layer above {self.file} and this file"
    remedy = "Take the filter out, or mend the header when the guest is off."

    node: str
    file: str


class QmpComposer:
    """Puts QMP together for one QEMU."""

    def __init__(
        self,
        masks: Callable[[str], bool],
        *,
        has_agent: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        """
        Ask nothing yet.

        Args:
            masks: Whether a command of this QEMU takes `backing-mask-protocol`.
            has_agent: Whether the way to the guest agent is known.
            arguments: The command line of this QEMU, where it is known.
        """
        self._masks = masks
        self._has_agent = has_agent
        self._arguments = arguments

    def verb(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """
        See `Composer.verb`.

        `job-cancel` cancels by force: a ready mirror ends with an error as well, and not as it
        does after `block-job-cancel`, which looks like success (qmp_job_cancel(), job-qmp.c).
        `job-resume` forgets the error that the job had paused itself on.
        """
        if verb is Verb.SET_SPEED:
            speed = {"device": job, "speed": bandwidth}
            return Step(does=Does.SPEED, by="qmp", what="block-job-set-speed", arguments=speed)
        return _of_job(_VERBS[verb], f"job-{verb}", job)

    def dismiss(self, job: JobReport) -> Step | None:
        """See `Composer.dismiss`: what somebody else has started, that one dismisses."""
        return _dismiss(job.id) if job.ours else None

    def unsafe(self, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """
        See `Composer.unsafe`: our streams that have ended.

        QEMU 7.2 crashes on `query-named-block-nodes` while one is not dismissed (12 times of 12;
        bdrv_refresh_filename() on an implicit filter without a child).
        """
        return tuple(
            _dismiss(job.id)
            for job in jobs
            if job.ours and job.type == "stream" and job.view.status is JobStatus.CONCLUDED
        )

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """
        See `Composer.leftovers`: jobs that have ended, and nodes that nothing reads.

        A job is dismissed after the nodes: as long as it is there, it tells whose they are.
        """
        ended = [
            job.id
            for job in jobs
            if job.ours and job.type != "stream" and job.view.status is JobStatus.CONCLUDED
        ]
        nodes = leftovers(disks.graph, ended) if disks.graph is not None else ()
        return (*(_close(name) for name in nodes), *(_dismiss(job) for job in ended))

    def snapshot(
        self,
        disks: Disks,
        plans: Sequence[CreatePlan],
        overlays: Sequence[Overlay],
        state: State,
    ) -> SnapshotSteps:
        """
        See `Composer.snapshot`: the overlays are opened without their backing files.

        `blockdev-snapshot` attaches the active node as it is open then; what the header says is
        not consulted, which is why the overlay was checked. One transaction: QEMU carries it out
        as a whole or not at all. Filters above the active node stay above the overlay.
        """
        for plan in plans:
            check_changeable(plan.disk, self._arguments)
        openings = [overlay_opening(plan, disks.graph, self._arguments) for plan in plans]
        names = [
            named(plan.overlay, plan.active.node, opening)
            for plan, (opening, _) in zip(plans, openings, strict=True)
        ]
        actions = [
            {
                "type": "blockdev-snapshot",
                "data": {"node": plan.active.node, "overlay": f"{name}{FORMAT}"},
            }
            for plan, name in zip(plans, names, strict=True)
        ]
        return SnapshotSteps(
            make=make_steps(plans, overlays),
            open=tuple(
                open_step(plan, name, opening)
                for plan, name, (opening, _) in zip(plans, names, openings, strict=True)
            ),
            switch=Step(
                does=Does.SWITCH,
                by="qmp",
                what="transaction",
                arguments={"actions": actions},
                again=False,
            ),
            close=tuple(_close(f"{name}{FORMAT}") for name in names),
            discard=discard_steps(plans, overlays),
            notes=tuple(note for _, note in openings),
        )

    def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
        """
        See `Composer.merge`: `block-commit` or `block-stream`.

        The job keeps itself in `query-jobs` when it ends, so that its error cannot be lost, and
        stops before it changes the graph, so that what it wrote can be flushed first. Not so for
        an active commit: it would hold up the guest's requests while it waits, and a mirror
        flushes its target by itself. A pull is flushed once more afterwards, with its new header.

        Raises:
            FormatNotRecordable: The header of the layer above would get a wrong format.
        """
        check_changeable(plan.disk, self._arguments)
        job = job_id(plan.kind, plan.disk.disk, plan.top, plan.base)
        dismiss = _dismiss(job)
        close = tuple(_close(name) for layer in plan.dropped for name in closable(layer, plan.disk))
        active = plan.kind == "active-commit"
        settle: tuple[Step, ...] = (dismiss, *close)
        if active:
            # As long as the job is there, `leftovers` knows its nodes.
            settle = (*close, dismiss)
        elif plan.kind == "pull":
            settle = (dismiss, self.resize(plan.top), *close)
        return MergeSteps(
            job=job,
            start=self._start(plan, options, job),
            flush=None if active else heard_flush(plan.written),
            commit=_of_job(Does.COMMIT, "job-complete" if active else "job-finalize", job),
            cancel=self.verb(Verb.CANCEL, job),
            dismiss=dismiss,
            settle=settle,
            otherwise=() if active else otherwise(plan, by_qemu=True),
        )

    def _start(self, plan: MergePlan, options: MergeOptions, job: str) -> Step:
        active = plan.kind == "active-commit"
        command = "block-stream" if plan.kind == "pull" else "block-commit"
        arguments: dict[str, object] = {
            "job-id": job,
            "auto-finalize": active,
            "auto-dismiss": False,
        }
        if options.bandwidth is not None:
            arguments["speed"] = options.bandwidth
        if options.on_error is OnError.PAUSE:
            # Not `enospc`: an input/output error is to pause it as well.
            arguments["on-error"] = "stop"
        if plan.above is not None and plan.base is not None:
            arguments |= self._backing(command, plan.backing_name, plan.base)
        if plan.kind == "pull":
            arguments["device"] = plan.top.node
            if plan.base is not None:
                arguments["base-node"] = plan.base.node
        else:
            arguments["device"] = plan.disk.root
            arguments["top-node"] = plan.top.node
            arguments["base-node"] = plan.base.node if plan.base else None
        return Step(does=Does.START, by="qmp", what=command, arguments=arguments, again=False)

    def below_again(self, plan: MergePlan) -> Step | None:
        """See `Composer.below_again`: there is no definition."""
        return None

    def header(self, plan: HeaderPlan) -> HeaderSteps:
        """
        See `Composer.header`: a stream down to the very next layer, which copies nothing.

        It does all by itself, and goes: killed at any moment, the tool leaves nothing that
        somebody would have to finish.

        Raises:
            FilterInTheWay: The stream would take a filter out.
            FormatNotRecordable: The header would get a wrong format.
        """
        backing = self._backing("block-stream", plan.name, plan.base)
        if plan.base.top_node != plan.base.node:
            raise FilterInTheWay(plan.base.top_node or "", plan.base.file)
        job = job_id("header", plan.disk.disk, plan.top, plan.base)
        arguments = {
            "job-id": job,
            "auto-finalize": True,
            "auto-dismiss": True,
            **backing,
            "device": plan.top.node,
            "base-node": plan.base.node,
        }
        settle = [sync_step(plan.top.path or plan.top.file)]
        details = plan.top.node_details
        if details is not None and details.read_only:
            options = {"options": [_read_only(details, plan)]}
            settle.append(
                Step(does=Does.REOPEN, by="qmp", what="blockdev-reopen", arguments=options)
            )
        return HeaderSteps(
            job=job,
            start=Step(does=Does.START, by="qmp", what="block-stream", arguments=arguments),
            cancel=self.verb(Verb.CANCEL, job),
            settle=tuple(settle),
        )

    def _backing(self, command: str, name: str | None, base: Layer) -> dict[str, object]:
        """How the header is to name the base."""
        if self._masks(command):
            return {"backing-file": name, "backing-mask-protocol": True}
        _check_recordable(base)
        return {"backing-file": name}

    def freeze(self, limit_s: float) -> tuple[Step, Step]:
        """See `Composer.freeze`."""
        if not self._has_agent:
            advice = "Give the agent's socket by `--agent`, or do without: `--quiesce try`."
            raise CannotFreeze("its socket was not given", advice=advice)
        limit = {"limit_s": limit_s}
        return (
            Step(does=Does.FREEZE, by="agent", what="guest-fsfreeze-freeze", arguments=limit),
            Step(does=Does.THAW, by="agent", what="guest-fsfreeze-thaw", arguments=limit),
        )

    def flush(self, layer: VolumeLayer, disk: str) -> Step | None:
        """See `Composer.flush`."""
        return heard_flush(layer)

    @staticmethod
    def resize(layer: VolumeLayer) -> Step:
        """
        Resize a node to the size that it has, which flushes it.

        Checked on 7.2 and 11.1; it reports a flush that fails.
        """
        size = {"node-name": layer.node, "size": layer.virtual_size}
        return Step(does=Does.FLUSH, by="qmp", what="block_resize", arguments=size)


def closable(layer: Layer, disk: Disk) -> tuple[str, ...]:
    """
    The nodes of a layer that stay when it has left the chain, each above what it reads.

    With `-blockdev` they stay open, hold their locks, and an overlay that stays above the new root
    makes the next `block-commit` fail ("Need a root block node"). What QEMU has named by itself
    goes by itself, and so does the protocol node of an overlay that this tool has opened.

    The filters above the active layer are the device's: after a pivot they read the base.
    """
    inner = protocol_node_of(layer.node)
    names = layer.nodes
    if layer.path == disk.layers[0].path and layer.node in names:
        names = names[names.index(layer.node) :]
    return tuple(name for name in names if not name.startswith("#") and name != inner)


def _check_recordable(base: Layer) -> None:
    """Refuse what would make a header name a protocol as its backing format."""
    driver = base.node_details.driver if base.node_details is not None else ""
    if kind_of(driver) is DriverKind.PROTOCOL:
        raise FormatNotRecordable(driver, base.file)


def _of_job(does: Does, what: str, job: str) -> Step:
    return Step(does=does, by="qmp", what=what, arguments={"id": job})


def _dismiss(job: str) -> Step:
    return _of_job(Does.DISMISS, "job-dismiss", job)


def _close(name: str) -> Step:
    return Step(does=Does.CLOSE, by="qmp", what="blockdev-del", arguments={"node-name": name})


def _read_only(node: Node, plan: HeaderPlan) -> dict[str, object]:
    """A qcow2 node as `blockdev-reopen` takes it, to be opened for reading only."""
    return {
        "driver": node.driver,
        "node-name": node.name,
        "read-only": True,
        "cache": {"direct": node.cache.direct, "no-flush": node.cache.no_flush},
        **zeroes_of(node),
        "file": plan.top.nodes[plan.top.nodes.index(node.name) + 1],
        "backing": plan.base.top_node,
    }
