"""
`--verify`: what a merge must not change is read before and after it, and compared.

    commit          what the layer above reads below itself; the guest may go on writing
    active commit   what the guest reads: only where it cannot write meanwhile (paused, or off)
    pull            the same
"""

from __future__ import annotations

from dataclasses import dataclass

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.plan_merge import MergePlan


class GuestMayWrite(Refused):
    """There is nothing to compare with: the content changes while it is merged."""

    msg = "a {self.kind} of {self.file} cannot be verified while the guest runs: it may write"
    remedy = "Pause the guest (`virsh suspend`; QMP `stop`), shut it down, or leave `--verify` out."

    kind: str
    file: str


class ContentDiffers(Failed):
    """The merge ended without an error, and what is read is not what was read before."""

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


@dataclass(frozen=True, slots=True)
class Proof:
    """What was read before the merge."""

    digest: str

    @classmethod
    def begin(cls, host: Guest, plan: MergePlan) -> Proof:
        """
        Read what the merge must not change.

        Raises:
            GuestMayWrite: It changes meanwhile.
            CannotVerify: It cannot be read.
        """
        if plan.kind != "commit" and not host.is_still(plan.disk):
            raise GuestMayWrite(plan.kind, plan.top.file)
        return cls(host.digest(_from(plan.disk, _upper(plan))))

    def end(self, host: Guest, plan: MergePlan, after: Disk) -> str:
        """
        Read it again; returns how it was proven.

        Raises:
            ContentDiffers: It is not the same.
            GuestMayWrite: The guest was started meanwhile, so it cannot be told.
            CannotVerify: It cannot be read.
        """
        if plan.kind != "commit" and not host.is_still(after):
            raise GuestMayWrite(plan.kind, plan.top.file)
        layers = _from(after, after.layers[0] if plan.kind != "commit" else plan.written)
        digest = host.digest(layers)
        if digest != self.digest:
            raise ContentDiffers(plan.kind, plan.top.file, self.digest, digest)
        what = "all that the guest reads" if plan.kind != "commit" else f"all below {_above(plan)}"
        return f"verified: {what} is as before, SHA-256 {digest}"


def _upper(plan: MergePlan) -> Layer:
    return plan.top if plan.kind == "commit" else plan.disk.layers[0]


def _above(plan: MergePlan) -> str:
    assert plan.above is not None  # a commit that is not an active one has a layer above
    return plan.above.file


def _from(disk: Disk, first: Layer) -> tuple[Layer, ...]:
    """The chain from one of its layers down."""
    position = [layer.path for layer in disk.layers].index(first.path)
    return disk.layers[position:]
