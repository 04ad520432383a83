"""
`--verify`: what a merge must not change is read before and after it, and compared.

    commit          what the layer above reads below itself; the guest may go on writing
    active commit   what the guest reads: only where it cannot write at the time (paused, or off)
    pull            the same
"""

from __future__ import annotations

import msgspec

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Disk
from qmpsnap.operations.flushed import taken
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.run_state import OFF, STILL
from qmpsnap.operations.volume import VolumeLayer, usable


class GuestMayWrite(Refused):
    """There is nothing to compare with: the content changes while it is merged."""

    msg = "a {self.kind} of {self.file} cannot be verified while the guest runs: it may write"
    remedy = "Pause the guest (`virsh suspend`; QMP `stop`), shut it down, or leave `--verify` out."

    kind: str
    file: str


class ContentDiffers(Failed):
    """The merge ended without an error, but what is read is not what was read before."""

    msg = (
        "after the {self.kind} of {self.file}, what is read is not what was read before: "
        "{self.before} became {self.after}"
    )
    remedy = (
        "Remove no file. Shut the guest down, and compare the files that left the chain with those "
        "that are in it (`qemu-img compare -f FORMAT -F FORMAT`)."
    )

    kind: str
    file: str
    before: str
    after: str


class Proof(msgspec.Struct, frozen=True):
    """What was read before the merge."""

    digest: str

    @classmethod
    def begin(cls, guest: Guest, plan: MergePlan) -> Proof:
        """
        Read what the merge must not change.

        Raises:
            GuestMayWrite: It changes meanwhile.
            CannotVerify: It cannot be read.
        """
        if plan.kind != "commit":
            _check_still(guest, plan, plan.disk.layers[0])
        return cls(guest.files.digest(_from(plan.disk.layers, _upper(plan))))

    def end(self, guest: Guest, plan: MergePlan, after: Disk) -> str:
        """
        Read it again; returns how it was proven.

        Raises:
            ContentDiffers: It is not the same.
            GuestMayWrite: The guest goes on meanwhile, so it cannot be told.
            CannotVerify: It cannot be read.
        """
        layers = usable(after).layers
        first = plan.written
        if plan.kind != "commit":
            first = layers[0]
            _check_still(guest, plan, first)
        digest = guest.files.digest(_from(layers, first))
        if digest != self.digest:
            raise ContentDiffers(plan.kind, plan.top.file, self.digest, digest)
        what = "all that the guest reads" if plan.kind != "commit" else f"all below {_above(plan)}"
        return f"verified: {what} is as before, SHA-256 {digest}"


def _check_still(guest: Guest, plan: MergePlan, active: VolumeLayer) -> None:
    """
    Make sure that the guest cannot write now, and that all it wrote is in the files.

    Raises:
        GuestMayWrite: It can, or that cannot be made sure of.
    """
    run = guest.state().run
    if run == OFF:
        return
    flush = guest.compose.flush(active, plan.disk.disk)
    if run not in STILL or flush is None:
        raise GuestMayWrite(plan.kind, plan.top.file)
    if not taken(guest, flush).flushed:
        raise GuestMayWrite(plan.kind, plan.top.file)


def _upper(plan: MergePlan) -> VolumeLayer:
    return plan.top if plan.kind == "commit" else plan.disk.layers[0]


def _above(plan: MergePlan) -> str:
    return plan.above.file if plan.above is not None else plan.top.file


def _from(layers: tuple[VolumeLayer, ...], first: VolumeLayer) -> tuple[VolumeLayer, ...]:
    """The chain from one of its layers down."""
    position = [layer.path for layer in layers].index(first.path)
    return layers[position:]
