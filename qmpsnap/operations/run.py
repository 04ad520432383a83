"""
The one loop: carry a plan out on a host, and prove the outcome by a fresh reading.

Everything that decides is in the plans and in `jobs`; everything that acts is behind `Host`. This
module holds the order of the steps, and what each interruption leaves behind:

    create   prepare the overlay file ─► switch the guest ─► read again
             before the switch: at most an unused, empty overlay, which the next try takes
    delete   start the job ─► wait ─► (pivot | flush, finalize) ─► dismiss ─► read again
             at any time: the job goes on in QEMU; the same command attaches to it again
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qmpsnap.errors import Failed, QmpsnapError, Unknown, Unreachable
from qmpsnap.formats.layers import DiskReport, GuestReport
from qmpsnap.formats.verdict import Verdict, Witness
from qmpsnap.operations.disks import find_disk
from qmpsnap.operations.host import Host
from qmpsnap.operations.jobs import Action, JobFailed, JobView, next_action
from qmpsnap.operations.plan_create import plan_create
from qmpsnap.operations.plan_delete import MergePlan, plan_delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Events wake the loop; this is the safety net for one that was lost."""
XML_LAG_S: Final = 5.0
"""libvirt's XML was seen 3 to 19 ms behind QEMU; five seconds mean that it will not follow."""

Progress = Callable[[MergePlan, JobView], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was done, as a fresh reading shows it."""

    disk: DiskReport
    """The disk afterwards."""
    file_format: Mapping[str, str]
    """Format by bare name of every changed file."""
    dropped: tuple[str, ...] = ()
    """Paths of files that left the chain, and that nothing in this guest has open any more. They
    are still there; another guest may read them."""
    held: tuple[str, ...] = ()
    """Paths of files that left the chain, and that this guest has open all the same."""
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Interrupted(Unknown):
    """Ctrl-C while a job was running. The job goes on in QEMU."""

    msg = "interrupted; the {self.kind} of {self.file} goes on in the guest"
    remedy = "Give the same command again: it takes up the running job and finishes it."

    kind: str
    file: str


@dataclass(eq=False)
class OutcomeUnknown(Unknown):
    """The guest could not be asked any more after something had been changed."""

    msg = "the connection broke during the {self.kind} of {self.file}: {self.reason}"
    remedy = (
        "Look at the guest with `qmpsnap chain`. If it still runs, give the same command again: "
        "it takes up a job that goes on. Remove no file before that."
    )

    kind: str
    file: str
    reason: str


@dataclass(eq=False)
class ChainUnexpected(Failed):
    """It ended without an error, and the chain is neither the old nor the new one."""

    msg = "after the {self.kind} the chain is {self.found}, and should be {self.expected}"
    remedy = "Somebody else changed this guest at the same time. Remove no file; look at `qmpsnap chain`."

    kind: str
    found: str
    expected: str


@dataclass(eq=False)
class XmlBehind(Failed):
    """QEMU's graph has changed and libvirt's picture has not followed."""

    msg = "QEMU's chain is {self.chain}, and libvirt's XML has not followed: {self.reason}"
    remedy = (
        "Remove no file, and do not restart the guest before `virsh dumpxml` shows the chain that "
        "QEMU has."
    )

    reason: str
    chain: str


@dataclass(eq=False)
class HeaderWrong(Failed):
    """The graph is right, and the header of the layer above would mislead the next start."""

    msg = "the chain is as it should be, but the header above {self.file} is not: {self.reason}"
    remedy = (
        "Do not restart the guest from this file before its header is mended: with the guest off, "
        "`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`."
    )

    file: str
    reason: str


def create(host: Host, request: CreateRequest) -> Result:
    """
    Take a snapshot of one disk.

    Raises:
        Refused: Nothing was touched.
        Failed: The overlay could not be made or put on; the chain is as it was.
        OutcomeUnknown: The connection broke before the outcome could be seen.
    """
    plan = plan_create(host.read(), request)
    overlay = host.prepare(plan)
    problem: BaseException | None = None
    try:
        host.switch(plan)
    except (QmpsnapError, KeyboardInterrupt) as error:
        # Whatever was said, the graph decides: a reply that was lost may have been a yes.
        problem = error
    try:
        guest, after = _fresh(host, plan.disk)
    except (Unknown, Unreachable) as error:
        raise OutcomeUnknown("snapshot", plan.file, str(error)) from error
    if _paths(after) == (plan.overlay, *_paths(plan.disk)):
        _check_header(after, after.layers[1].file)
        format_ = after.layers[0].format
        assert format_ is not None  # a fresh overlay's node states it
        return Result(disk=after, file_format={plan.file: format_}, notes=overlay.notes)
    if _paths(after) != _paths(plan.disk):
        raise ChainUnexpected("snapshot", _chain(after), f"{plan.file} over {_chain(plan.disk)}")
    if overlay.made and plan.overlay not in guest.open_files:
        host.discard(plan)
    raise problem or ChainUnexpected("snapshot", _chain(after), f"{plan.file} on top")


def delete(
    host: Host,
    request: DeleteRequest | NamedDeleteRequest,
    progress: Progress | None = None,
    *,
    poll_s: float = POLL_S,
) -> Result:
    """
    Delete a snapshot: commit, active commit or pull, whichever the request and the chain ask for.

    Raises:
        Refused: Nothing was touched.
        JobFailed: The job ended without doing its work; the chain is as it was.
        Interrupted: Ctrl-C; the job goes on, and the same call attaches to it.
        OutcomeUnknown: The connection broke while the job ran.
        HeaderWrong, ChainUnexpected: It ran, and the outcome is not what it should be.
    """
    plan = plan_delete(host.read(), request)
    try:
        job = host.attach(plan) or host.start(plan)
    except KeyboardInterrupt:
        raise Interrupted(plan.kind, plan.top.file) from None
    try:
        error = _drive(host, plan, job, progress, poll_s)
        notes = () if error else host.settle(plan)
        guest, after = _fresh(host, plan.disk)
    except KeyboardInterrupt:
        raise Interrupted(plan.kind, plan.top.file) from None
    except (Unknown, Unreachable) as lost:
        raise OutcomeUnknown(plan.kind, plan.top.file, str(lost)) from lost
    return _proven(plan, guest, after, error, notes)


def _drive(
    host: Host, plan: MergePlan, job: str, progress: Progress | None, poll_s: float
) -> str | None:
    """See a job through to its end; returns its error."""
    done: set[Action] = set()
    while True:
        view = host.view(job)
        log.debug("job %s: %s %d/%d", job, view.status, view.current, view.total)
        if progress is not None:
            progress(plan, view)
        match next_action(view):
            case Action.END:
                host.dismiss(job)
                return view.error
            case Action.PIVOT if Action.PIVOT not in done:
                if host.pivot(job):
                    done.add(Action.PIVOT)
            case Action.FINALIZE if Action.FINALIZE not in done:
                host.finalize(plan, job)
                done.add(Action.FINALIZE)
        host.wait(job, poll_s)


def _proven(
    plan: MergePlan,
    guest: GuestReport,
    after: DiskReport,
    error: str | None,
    notes: tuple[str, ...],
) -> Result:
    """Compare a fresh reading with the plan: only the graph tells what really happened."""
    expected = tuple(layer.path for layer in plan.remaining)
    found = _paths(after)
    if found == _paths(plan.disk):
        # A cancel after READY ends with the same events as success, and without an error.
        reason = error or "it ended without an error, but nothing was merged (was it cancelled?)"
        raise JobFailed(plan.kind, plan.top.file, reason, _chain(after))
    if error is not None or found != expected:
        names = " <- ".join(layer.file for layer in reversed(plan.remaining))
        said = f" (the job ended with: {error})" if error else ""
        raise ChainUnexpected(plan.kind, _chain(after) + said, names)
    if plan.above is not None:
        if plan.base is not None:
            _check_header(after, plan.base.file)
        elif after.layers[-1].backing_name is not None:
            raise HeaderWrong(after.layers[-1].file, "it still names a backing file")
    formats = {layer.path: layer.format for layer in after.layers}
    left = [layer.path or "" for layer in plan.dropped]
    return Result(
        disk=after,
        file_format={layer.file: formats[layer.path] or "" for layer in plan.reported},
        dropped=tuple(path for path in left if path not in guest.open_files),
        held=tuple(path for path in left if path in guest.open_files),
        notes=notes,
    )


def _check_header(after: DiskReport, file: str) -> None:
    """The layer above `file` must record its format, and nobody may contradict."""
    layer = next(layer for layer in after.layers if layer.file == file)
    says = [one for one in layer.evidence if one.witness is Witness.HEADER]
    if not says:
        raise HeaderWrong(file, "it records no backing format")
    if layer.verdict is Verdict.CONFLICT:
        raise HeaderWrong(file, f"{says[0].detail}: {says[0].format}, not {layer.format}")


def _fresh(host: Host, disk: DiskReport) -> tuple[GuestReport, DiskReport]:
    """Read again, and give libvirt's XML the time to follow QEMU."""
    deadline = time.monotonic() + XML_LAG_S
    while True:
        guest = host.read()
        after = find_disk(guest, disk.disk)
        lagging = after.xml_differs is not None or after.mirror is not None
        if not lagging:
            return guest, after
        if time.monotonic() > deadline:
            raise XmlBehind(after.xml_differs or f"it still shows a {after.mirror}", _chain(after))
        time.sleep(0.005)


def _paths(disk: DiskReport) -> tuple[str | None, ...]:
    return tuple(layer.path for layer in disk.layers)


def _chain(disk: DiskReport) -> str:
    return " <- ".join(layer.file for layer in reversed(disk.layers))
