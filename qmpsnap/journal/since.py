"""
Whether a file was written that nobody should have written since an operation broke off.

After a switch the guest writes to the overlay, and after a pivot to the base. Somebody may have started
the guest from the other file since, and stopped it again. No graph shows that, and no tool can say
which of the two files is wanted. Modification times show it: two files of one share have one clock.
That of this host is another one, so no time of a file is compared with it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files import census, qemu_img
from qmpsnap.guests.files.birth import born
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.overlay import readable
from qmpsnap.journal.identities import modified
from qmpsnap.journal.left_over import Among
from qmpsnap.journal.named import names_its_active
from qmpsnap.journal.proven import as_it_was_closed, intended
from qmpsnap.journal.record import Entry, Record
from qmpsnap.operations.names import tidy
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.step import Does


def not_switched(entry: Entry, written: Sequence[CreatePlan]) -> str:
    """
    Why overlays that hold data do not show that the guest was switched to all of them, in words.

    One transaction switches all disks. Whoever has started the guest from one of the files since has
    gone on from another state.
    """
    names = ", ".join(plan.file for plan in written)
    if not intended(entry, Does.SWITCH):
        return f"{names} holds data, and the switch to it was not sent"
    others = [plan.file for plan in entry.record.creates if not names_its_active(plan)]
    if others:
        return f"{names} holds data, and {', '.join(others)} is not there or rests on another file"
    below = _written_below(entry.record.creates, written)
    if not below:
        return ""
    return f"{below} was written after {names}: somebody has started the guest from there"


def _written_below(plans: Sequence[CreatePlan], written: Sequence[CreatePlan]) -> str:
    """
    Which files below overlays were written after the guest was switched to these; empty: none.

    It wrote to some of the overlays, so the switch of all had been by then. Each is compared with its
    own overlay where that was written: somebody may have started the guest from the files of some
    disks and the overlays of others, and written to both.
    """
    times = {plan.overlay: at for plan in written if (at := modified(plan.overlay)) is not None}
    latest = max(times.values(), default=None)
    found = []
    for plan in plans:
        switched, at = times.get(plan.overlay, latest), modified(plan.active.path)
        if switched is not None and at is not None and at > switched:
            found.append(plan.active.file)
    return ", ".join(found)


def stale_written(entry: Entry, plan: MergePlan) -> str:
    """
    Whether an overlay was written after its pivot was proven, in words; empty: no.

    QEMU may write to it until its node is closed, and the journal has its time as it was then. An older
    one may be what a power failure has left, or the share's clock was set back; then, and where the
    journal has none, it must not be newer than the base.
    """
    base, now, closed = plan.base, modified(plan.top.path), as_it_was_closed(entry)
    if base is None or now is None or now == closed:
        return ""
    if (closed is None or now < closed) and now <= (modified(base.path) or 0):
        return ""
    return f"{plan.top.file} was written after the pivot to {base.file}"


def written_since(record: Record, paths: Collection[str]) -> str:
    """
    Which of the files were written since the operation began, which reads them only; empty: none.

    An older time says nothing: QEMU flushes by fdatasync(2), which need not keep it in a power failure.
    """
    before = {one.path: one.written for one in record.files}
    return ", ".join(
        os.path.basename(path)
        for path in paths
        if (was := before.get(path)) is not None and (modified(path) or 0) > was
    )


def gone_on_from(record: Record, paths: Iterable[str], left_over: Among) -> str:
    """
    Whether images beside files, written since the operation began, rest on them, in words.

    Somebody has taken a snapshot with another tool then, and the guest has written there. What
    earlier merges have left names those files as well: it is older, or the journal knows it.
    """
    own = {tidy(one) for one in record.paths}
    same = {identity(one) for one in own} - {None}
    found = []
    for path in dict.fromkeys(paths):
        newer = [
            image
            for image in census.images_resting_on([path])[0].get(path, ())
            if tidy(image) not in own
            and identity(image) not in same
            and not _is_older(image, record, path)
        ]
        known = left_over(newer) if newer else ()
        if names := [os.path.basename(image) for image in newer if image not in known]:
            found.append(f"{', '.join(names)} rests on {os.path.basename(path)}")
    return f"{'; '.join(found)}: somebody has gone on from there" if found else ""


def _is_older(image: str, record: Record, path: str) -> bool:
    """
    Whether an image is older than the operation, by the clock of its own share; in doubt it is not.

    An overlay was made for the operation, and what had been written to its other files had been by then.
    """
    of_it = (one.overlay for one in record.creates if path in (one.overlay, one.active.path))
    moments = [(name, born(name)) for name in of_it]
    moments += [(one.path, one.written) for one in record.files if one.path == path]
    for name, at in moments:
        if at is not None and _are_on_one_share(name, image):
            return max(born(image) or 0, modified(image) or 0) < at
    return False


def _are_on_one_share(one: str, other: str) -> bool:
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev
    except OSError:
        return False


def is_empty(path: str) -> bool:
    """Whether nothing was ever written to an overlay, or it is not there."""
    if not os.path.lexists(path):
        return True
    try:
        with readable(path) as file:
            return qemu_img.is_empty(file)
    except (OSError, QmpsnapError):
        return False
