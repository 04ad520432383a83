"""
The acts of each operation in libvirt's API, put together from a plan. Pure.

libvirt keeps its own picture of the graph and never asks QEMU for edges; a snapshot that is taken
behind its back leaves its XML wrong for ever, and the next start opens the old file. So nothing
but its own functions changes a chain here.

Layers are named by libvirt's own numbers, `vda[3]`: names may be relative or ambiguous. Disks are
named by their targets, not by paths as Nova does: a path may stand in two disks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks, Layer
from qmpsnap.guests.files.steps import (
    discard_steps,
    disk_steps,
    make_steps,
    sync_step,
    unwatch_step,
    watch_step,
)
from qmpsnap.guests.libvirt.encryption import luks
from qmpsnap.guests.qmp.flush_steps import heard_flushes, otherwise
from qmpsnap.operations.guest import HeaderSteps, MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.job.states import JobReport, Verb
from qmpsnap.operations.options import MergeOptions, OnError, PauseUnsupported
from qmpsnap.operations.plan_header import HeaderPlan
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.run_state import SUSPENDED
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import VolumeLayer


class NotByLibvirt(Refused):
    """libvirt's API cannot do this to a block job."""

    msg = "libvirt cannot {self.verb} the job of {self.job}"
    remedy = (
        "Limit it (`qmpsnap job set-speed`), cancel it (`qmpsnap job cancel`) and delete again later, or "
        "pause the guest (`virsh suspend`)."
    )

    verb: str
    job: str


class GuestSleeps(Refused):
    """
    libvirt takes no snapshot of a guest that is suspended to RAM, though QEMU could.

    Source: qemuSnapshotCreateXML(), qemu_snapshot.c.
    """

    msg = "libvirt takes no snapshot of a guest that sleeps, and {self.guest} does"
    remedy = "Wake it (`virsh dompmwakeup {self.guest}`), then give the same command again."

    guest: str


class ActiveHeaderOnly(Refused):
    """libvirt has calls that write the header of a lower layer, but none without a merge."""

    msg = "libvirt can write the header of the active file anew, and {self.file} is not it"
    remedy = "Mend it when the guest is off."

    file: str


class RelativeNotKept(Refused):
    """
    libvirt keeps a relative name only where all names on the way to the base are relative.

    Source: virStorageSourceGetRelativeBackingPath(), storage_source.c; seen with libvirt 9.0.
    """

    msg = (
        "libvirt can't keep relative backing relationship: {self.above} names its backing file "
        "relatively, and {self.file} by {self.name}"
    )
    remedy = (
        "Do it with the guest off: then qmpsnap writes the header itself. Or give {self.file} a "
        "relative name for its backing file then (`qemu-img rebase -u -f qcow2 -b NAME -F FORMAT "
        "{self.path}`)."
    )

    above: str
    file: str
    path: str
    name: str


class LibvirtComposer:
    """Puts calls of libvirt's API together for one guest."""

    def __init__(self, libvirt: Any, guest: str, *, passthrough: bool) -> None:
        """
        Ask nothing.

        Args:
            libvirt: The module, for its constants.
            guest: The guest's name.
            passthrough: Whether QMP can be had besides.
        """
        self._libvirt = libvirt
        self._guest = guest
        self._passthrough = passthrough

    def verb(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """
        See `Composer.verb`: `virDomainBlockJobAbort` and `virDomainBlockJobSetSpeed`.

        libvirt's API has no pause, and 1 byte a second is no pause.

        Raises:
            NotByLibvirt: There is no such function.
        """
        if verb is Verb.CANCEL:
            return self._abort(Does.CANCEL, job, self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC)
        if verb is not Verb.SET_SPEED:
            raise NotByLibvirt(verb, job)
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
        arguments = {"disk": job, "bandwidth": bandwidth, "flags": flags}
        return _call(Does.SPEED, "virDomainBlockJobSetSpeed", arguments)

    def dismiss(self, job: JobReport) -> Step | None:
        """See `Composer.dismiss`: libvirt dismisses its jobs by itself."""
        return None

    def unsafe(self, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """See `Composer.unsafe`: libvirt dismisses its jobs by itself."""
        return ()

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """See `Composer.leftovers`: libvirt clears away by itself."""
        return ()

    def snapshot(
        self,
        disks: Disks,
        plans: Sequence[CreatePlan],
        overlays: Sequence[Overlay],
        state: State,
    ) -> SnapshotSteps:
        """
        See `Composer.snapshot`: one `virDomainSnapshotCreateXML`, which is one transaction.

        Raises:
            GuestSleeps: libvirt would refuse the switch.
        """
        if state.run == SUSPENDED:
            raise GuestSleeps(self._guest)
        flags = snapshot_flags(self._libvirt)
        arguments = {"xmlDesc": snapshot_xml(disks, plans), "flags": flags}
        return SnapshotSteps(
            make=make_steps(plans, overlays),
            switch=_call(Does.SWITCH, "virDomainSnapshotCreateXML", arguments, again=False),
            discard=discard_steps(plans, overlays),
        )

    def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
        """
        See `Composer.merge`: `virDomainBlockCommit`, `virDomainBlockPull` or `virDomainBlockRebase`.

        libvirt finalizes and dismisses its jobs by itself. It does not flush after a pull: with
        9.0 and QEMU 7.2 killed at the completion event, 16 MiB of 16 were gone, 3 times of 3;
        after a resize to the same size nothing was lost. Of a commit QEMU flushes the base, and
        does not say when that fails. Without passthrough the base is opened before the job, to
        hear what the kernel could not write of it.

        Raises:
            RelativeNotKept: A header would have to name its backing file by an absolute name.
            PauseUnsupported: libvirt gives QEMU no `on-error` for these jobs
                (qemuMonitorJSONBlockCommit(), qemu_monitor_json.c, read in one that has
                `backing-mask-protocol`); `<driver error_policy>` is about the guest's requests.
        """
        if options.on_error is OnError.PAUSE:
            raise PauseUnsupported("libvirt's commits and pulls end on an error")
        _check_relative(plan)
        disk, bandwidth = plan.disk.disk, options.bandwidth or 0
        hold = commit = release = None
        settle: tuple[Step, ...] = ()
        if plan.kind == "pull":
            start = self._pull(disk, plan.base, plan.backing_name, bandwidth)
            settle = (self._resize(plan.top, disk),)
        else:
            start = self._commit(plan, bandwidth)
        if plan.kind == "commit":
            settle = heard_flushes(plan.written) if self._passthrough else ()
            if not settle:
                path = plan.written.path
                hold, release, settle = watch_step(path), unwatch_step(path), disk_steps(plan)
        if plan.kind == "active-commit":
            # ASYNC, or the call would last until the mirror has caught up with a guest that writes.
            flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
            flags |= self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
            commit = self._abort(Does.COMMIT, disk, flags)
        return MergeSteps(
            job=disk,
            hold=hold,
            start=start,
            commit=commit,
            cancel=self.verb(Verb.CANCEL, disk),
            settle=settle,
            otherwise=self._otherwise(plan, settle),
            release=release,
        )

    def _otherwise(self, plan: MergePlan, settle: tuple[Step, ...]) -> tuple[tuple[Step, ...], ...]:
        if plan.kind == "active-commit":
            return ()
        every = otherwise(plan, by_qemu=self._passthrough)
        return tuple(acts for acts in every if acts != settle)

    def _commit(self, plan: MergePlan, bandwidth: int) -> Step:
        disk, base = plan.disk.disk, plan.base
        flags = self._libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        top: str | None = _numbered(disk, plan.top)
        if plan.kind == "active-commit":
            flags |= self._libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            top = None
        elif _is_relative(plan.backing_name):
            flags |= self._libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE
        arguments = {
            "disk": disk,
            "base": base and _numbered(disk, base),
            "top": top,
            "bandwidth": bandwidth,
            "flags": flags,
        }
        return _call(Does.START, "virDomainBlockCommit", arguments, again=False)

    def _pull(self, disk: str, base: Layer | None, name: str | None, bandwidth: int) -> Step:
        if base is None:
            flags = self._libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES
            arguments = {"disk": disk, "bandwidth": bandwidth, "flags": flags}
            return _call(Does.START, "virDomainBlockPull", arguments, again=False)
        flags = self._libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES
        flags |= self._libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE if _is_relative(name) else 0
        rebase = {
            "disk": disk,
            "base": _numbered(disk, base),
            "bandwidth": bandwidth,
            "flags": flags,
        }
        return _call(Does.START, "virDomainBlockRebase", rebase, again=False)

    def below_again(self, plan: MergePlan) -> Step | None:
        """See `Composer.below_again`: libvirt writes the definition of a guest that runs."""
        return None

    def header(self, plan: HeaderPlan) -> HeaderSteps:
        """
        See `Composer.header`: a pull down to the very next layer.

        Raises:
            ActiveHeaderOnly: The header of a lower layer is to be written, and nothing merged.
        """
        if plan.top.path != plan.disk.layers[0].path:
            raise ActiveHeaderOnly(plan.top.file)
        disk = plan.disk.disk
        sync = sync_step(plan.top.path or plan.top.file)
        return HeaderSteps(
            job=disk,
            start=self._pull(disk, plan.base, plan.name, 0),
            cancel=self.verb(Verb.CANCEL, disk),
            settle=(sync,),
        )

    def freeze(self, limit_s: float) -> tuple[Step, Step]:
        """See `Composer.freeze`."""
        limit = {"limit_s": limit_s}
        return (
            _call(Does.FREEZE, "virDomainFSFreeze", limit),
            _call(Does.THAW, "virDomainFSThaw", limit),
        )

    def flush(self, layer: VolumeLayer, disk: str) -> Step | None:
        """See `Composer.flush`."""
        return self._resize(layer, disk)

    def _resize(self, layer: VolumeLayer, disk: str) -> Step:
        """Resize a disk to the size that it has, which flushes it and reports a flush that fails."""
        arguments = {
            "disk": disk,
            "size": layer.virtual_size,
            "flags": self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES,
        }
        return _call(Does.FLUSH, "virDomainBlockResize", arguments)

    def _abort(self, does: Does, disk: str, flags: int) -> Step:
        return _call(does, "virDomainBlockJobAbort", {"disk": disk, "flags": flags})


def snapshot_flags(libvirt: Any) -> int:
    """All disks or none, over files that are there, and no record of it is kept."""
    flags: int = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    )
    return flags


def snapshot_xml(disks: Disks, plans: Sequence[CreatePlan]) -> str:
    """The description of a snapshot that leaves all other disks of the guest alone."""
    chosen = {plan.disk.disk for plan in plans}
    document = E.domainsnapshot(
        E.disks(
            *(
                E.disk(
                    E.driver(type="qcow2"),
                    E.source(*_encryption(plan), file=plan.overlay),
                    name=plan.disk.disk,
                    snapshot="external",
                    type="file",
                )
                for plan in plans
            ),
            *(
                E.disk(name=one.disk, snapshot="no")
                for one in disks.disks
                if one.disk not in chosen
            ),
        )
    )
    return etree.tostring(document, encoding="unicode")


def _encryption(plan: CreatePlan) -> list[Any]:
    """
    The overlay is opened with the secret of the file below it, as both are encrypted.

    Without it QEMU refuses the overlay: `Parameter 'encrypt.key-secret' is required for cipher`.
    """
    if plan.secret is None:
        return []
    return [luks(plan.secret)]


def _call(does: Does, what: str, arguments: Mapping[str, object], *, again: bool = True) -> Step:
    return Step(does=does, by="libvirt", what=what, arguments=arguments, again=again)


def _numbered(disk: str, layer: Layer) -> str:
    return f"{disk}[{layer.index}]"


def _check_relative(plan: MergePlan) -> None:
    if plan.above is None or plan.base is None or not _is_relative(plan.backing_name):
        return
    layers = plan.disk.layers
    for layer in layers[layers.index(plan.above) : layers.index(plan.base)]:
        name = layer.backing_name
        if name is not None and not _is_relative(name):
            raise RelativeNotKept(plan.above.file, layer.file, layer.path, name)


def _is_relative(name: str | None) -> bool:
    return name is not None and not name.startswith("/")
