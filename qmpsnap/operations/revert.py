"""
Going back to a snapshot: an overlay over an older layer of a guest that is off. Pure.

It is a snapshot in its acts (`snapshot.py`): a new, empty file, and a definition that names it.
Nothing that was written is touched. What lay above stays as it was, with its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.operations.names import BadSnapshotName, check_name, snapshots
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.run_state import OFF

_CLOCK: Final = re.compile(r"(^|-)\d{8}-\d{6}$")


class GuestRuns(Refused):
    """A disk was to go back under a guest that runs."""

    msg = (
        "{self.guest} runs, and has parts of the newer state in its memory: it would write them over "
        "the older one"
    )
    remedy = "{self.advice}"

    guest: str
    advice: str


def check_off(plans: Sequence[CreatePlan], disks: Disks, run: str | None, road: str) -> None:
    """
    See that no disk goes back while its guest runs.

    Args:
        plans: What is to be done.
        disks: All disks of the guest.
        run: In which state it is.
        road: How it was reached; see `Where`.

    Raises:
        GuestRuns: It does.
    """
    back = next((plan for plan in plans if plan.kept), None)
    if back is None or run == OFF:
        return
    advice = "Shut it down (`virsh shutdown`), then give the same command again."
    if road == "qmp":
        advice = (
            "End it, make an overlay (`qemu-img create -f qcow2 -b "
            f"{back.active.path} -F {back.active.format} {back.overlay}`), and start it from that."
        )
    raise GuestRuns(disks.guest or "the guest", advice)


def name_after(snapshot: str, clock: str) -> str:
    """
    Name what is written after a revert: by the snapshot and the time of day.

    Args:
        snapshot: What was gone back to.
        clock: The time, as a name.
    """
    name = f"{_CLOCK.sub('', snapshot)}-{clock}"
    try:
        check_name(name)
    except BadSnapshotName:
        return clock
    return name


def remarks_of(
    plans: Sequence[CreatePlan], requests: Iterable[CreateRequest], before: Disks
) -> tuple[str, ...]:
    """What an operator should know after a revert; nothing after a snapshot."""
    said = []
    for plan in plans:
        if not plan.kept:
            continue
        was = plan.kept[0]
        over = f", over {plan.below[0].file}"
        files = ", ".join(layer.file for layer in plan.kept)
        said.append(
            f"what {plan.disk.disk} held until now is kept in {files} ({was.format}){over}, as long as "
            f"{plan.below[0].file} is not changed or removed"
        )
        if was.virtual_size not in (None, plan.virtual_size):
            said.append(
                f"{plan.disk.disk} has {plan.virtual_size} bytes again, and had {was.virtual_size}"
            )
    back = {request.over for request in requests} - {None}
    here = {plan.disk.disk for plan in plans}
    for disk in before.disks:
        names = {one.name for one in snapshots(disk)} & back
        if disk.disk not in here and names:
            said.append(
                f"{disk.disk} has a snapshot {min(map(str, names))} as well, and stays as it is"
            )
    return tuple(said)
