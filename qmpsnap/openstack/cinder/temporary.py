"""
The part of a driver that sees to a clone's temporary snapshot: not counted, and deleted until it is gone.

Upstream's clone of a volume takes one, copies it, and deletes it. Where that fails or is killed, a row
stays that no API call deletes, and a layer that nobody has asked for.
Source: cinder/volume/drivers/remotefs.py, _create_cloned_volume; cinder 29.0.0.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from cinder import context as cinder_context
from cinder import exception, objects
from cinder.volume import rpcapi

from qmpsnap.openstack.cinder.attaching import IN_BETWEEN
from qmpsnap.openstack.cinder.family import Family

log = logging.getLogger(__name__)
_NAME: Final = "tmp-snap-"
"""How its name begins; the id of the clone follows."""
AGAIN_S: Final = 120.0
"""How long after a try its deletion is asked for again; twice as long after each, up to `LOST_S`."""
LOST_S: Final = 3600.0
"""How long the answer to a request is waited for: it may wait for the lock that a clone holds."""
_is_cloning: ContextVar[bool] = ContextVar("is_cloning", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """
    Have a snapshot that is created in this block say that no quota counts it.

    Upstream's clone makes one that is not counted, and does not say so. Whoever deletes it after a
    crash takes it off the project's quota.
    """
    token = _is_cloning.set(True)
    try:
        yield
    finally:
        _is_cloning.reset(token)


def say_uncounted(snapshot: Any) -> None:
    """Say it of a snapshot that is created in such a block."""
    if _is_cloning.get() and snapshot.use_quota:
        snapshot.use_quota = False
        snapshot.save()


class Temporary(Family):  # type: ignore[misc]
    """Deletes the temporary snapshots of clones that are over."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._over: dict[str, tuple[float, float]] = {}
        """When the deletion of each is due, by time.monotonic(), and seconds until the next try."""

    def _is_mine(self: Any, snapshot: Any) -> bool:
        """Whether the volume of a snapshot is one of this back end's, whatever its pool."""
        return bool((snapshot.volume.host or "").split("#")[0] == self.host)

    def _end_clone(self: Any, clone: str | None = None) -> None:
        """
        Have the temporary snapshots deleted of a clone that has failed.

        Args:
            clone: Its id; None: of all that this back end has begun, at its start.
        """
        wanted = {"use_quota": False} | ({"display_name": f"{_NAME}{clone}"} if clone else {})
        for row in objects.SnapshotList.get_all(cinder_context.get_admin_context(), wanted):
            if (row.display_name or "").startswith(_NAME) and self._is_mine(row):
                self._over[row.id] = (time.monotonic(), AGAIN_S)

    def _ask_for_over(self: Any) -> None:
        """
        Ask this very service, over the bus, for what is due, until the row is gone.

        One request at a time: each waits in a thread of its own, of which there are not many.
        """
        admin, now = cinder_context.get_admin_context(), time.monotonic()
        for one, (due, after) in [*self._over.items()]:
            if due > now:
                continue
            try:
                snapshot = objects.Snapshot.get_by_id(admin, one)
                if snapshot.volume.status in IN_BETWEEN:
                    self._over[one] = (now + AGAIN_S, after)
                    continue
                self._over[one] = (now + LOST_S, after)
                log.info("asking for the deletion of %s", snapshot.display_name)
                snapshot.status = "deleting"
                snapshot.save()
                rpcapi.VolumeAPI().delete_snapshot(admin, snapshot)
            except exception.SnapshotNotFound:
                self._over.pop(one, None)
            except Exception:
                log.exception("snapshot %s is not deleted", one)

    def _was_tried(self: Any, snapshot: str) -> None:
        """Its deletion has ended, well or not."""
        found = self._over.get(snapshot)
        if found is not None:
            _, after = found
            self._over[snapshot] = (time.monotonic() + after, min(2 * after, LOST_S))
