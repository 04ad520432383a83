"""What a snapshot came to: its headers, its size and its consistency, once the switch has happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qmpsnap.errors import Failed
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.guest import Guest, Overlay
from qmpsnap.operations.headers import ensured
from qmpsnap.operations.names import name_beside
from qmpsnap.operations.outcome import HeaderWrong
from qmpsnap.operations.plan_header import name_kept
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import Moment, NotConsistent, Policy, Quiesce


class SizeChanged(Failed):
    """Somebody resized a disk while its snapshot was taken."""

    msg = (
        "the snapshot is there, and disk {self.disk} has {self.size} bytes now: it was resized to "
        "{self.wanted} bytes while the snapshot was taken"
    )
    remedy = (
        "All data is in the file below. Give the disk its size (`virsh blockresize`; QMP "
        "`block_resize`) before the guest is started again."
    )

    disk: str
    size: int
    wanted: int


def mend_headers(guest: Guest, plans: Sequence[CreatePlan], afters: Sequence[Disk]) -> None:
    """
    Let each overlay name what it really lies over.

    Between our last look and libvirt's switch, somebody may have taken a snapshot: QEMU puts our
    overlay on top of theirs, and its header names the file two below.

    Raises:
        HeaderWrong: It could not be mended.
    """
    for plan, after in zip(plans, afters, strict=True):
        if not is_in(plan, after) or after.paths[-1] == plan.overlay:
            continue
        place = after.paths.index(plan.overlay)
        above, below = after.layers[place : place + 2]
        name = name_kept(above, below, name_beside(above, below))
        try:
            ensured(guest, after, above, below, name)
        except HeaderWrong as error:
            # libvirt (9.0) takes a relative name from our header, as it was, for that of the other
            # overlay, and writes it again.
            try:
                ensured(guest, after, above, below, below.path or below.file)
            except HeaderWrong:
                raise error from None


def is_in(plan: CreatePlan, after: Disk) -> bool:
    return plan.overlay in after.paths


def check_size(disk: Disk) -> None:
    """
    An overlay is made in the size of the plan, and whoever resizes in between is not kept out.

    Names of nodes do not show it, so it is looked at when all is read again.
    """
    overlay, below = disk.layers[0].virtual_size, disk.layers[1].virtual_size
    if overlay is not None and below is not None and overlay != below:
        raise SizeChanged(disk.disk, overlay, below)


def check_consistent(quiesce: Quiesce, moment: Moment, files: str) -> None:
    """What was required must have been had. With `try`, the notes say it."""
    if quiesce.policy is not Policy.REQUIRE:
        return
    if moment.not_thawed is not None:
        raise moment.not_thawed
    if moment.consistency != "filesystem":
        raise NotConsistent(files, moment.broken or "it was interrupted")


def forgotten(plan: CreatePlan, after: Disk) -> tuple[str, ...]:
    """libvirt opens an overlay without `detect_zeroes`, and adds it with the next start (9.0)."""
    before, now = plan.active.node_details, after.layers[0].node_details
    if before is None or now is None or now.detect_zeroes or not before.detect_zeroes:
        return ()
    return (
        f"{plan.file} was opened without detect-zeroes, which {plan.active.file} has: until the "
        "guest is started again, zeroes that it writes take room",
    )


_BESIDES: Final = {
    "nvram": "the firmware's settings (nvram)",
    "TPM": "the state of the TPM",
}


def left_out(guest: Disks) -> tuple[str, ...]:
    """What a snapshot of disks does not hold, and a revert does not bring back."""
    words = [_BESIDES[one] for one in guest.besides]
    return (f"not part of a snapshot: {' and '.join(words)}",) if words else ()


def corrected(plan: CreatePlan, overlay: Overlay) -> tuple[str, ...]:
    """What was wrong in the header of an overlay that was handed over."""
    if overlay.recorded is None or overlay.recorded[1] == plan.backing_format:
        return ()
    was = overlay.recorded[1] or "nothing"
    return (f"corrected the header of {plan.file}: backing format {was} -> {plan.backing_format}",)
