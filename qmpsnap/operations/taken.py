"""An overlay that is there already: whether somebody else uses it, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.operations.guards import taken_for_left_over
from qmpsnap.operations.guest import Guest, Overlay
from qmpsnap.operations.plan_snapshot import CreatePlan


class OverlayInUse(Refused):
    """
    The file that is to become the overlay is somebody else's.

    The fresh disk of another guest is an empty overlay over the same file as well, and nothing in it
    tells that it is not the one that the volume service has made.
    """

    msg = "{self.path} cannot become the overlay: it is used by {self.by}"
    remedy = "Choose another name."

    path: str
    by: str


def check_free(
    guest: Guest, plans: Iterable[CreatePlan], overlays: Iterable[Overlay]
) -> tuple[str, ...]:
    """
    Ask who uses the overlays that are there; returns what was not looked at, or is not certain.

    Raises:
        OverlayInUse: Another guest names one, a process has it open, or an image rests on it.
    """
    notes = [
        note
        for plan, overlay in zip(plans, overlays, strict=True)
        if overlay.is_there
        for note in _check_free(guest, plan)
    ]
    return tuple(dict.fromkeys(notes))


def _check_free(guest: Guest, plan: CreatePlan) -> tuple[str, ...]:
    overlay = replace(plan.active, path=plan.overlay, file=plan.file)
    # As if it lay below: of an active file whoever has it open is taken for the guest.
    around = guest.neighbours(replace(plan.disk, layers=(plan.active, overlay)))
    by = (
        *around.readers.get(plan.overlay, ()),
        *(f"{image}, by its header" for image in around.resting.get(plan.overlay, ())),
    )
    if by:
        raise OverlayInUse(plan.overlay, ", ".join(by))
    older = around.older.get(plan.overlay, ())
    return (*around.notes, *taken_for_left_over(plan.file, older, "choose another name"))
