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

from qmpsnap.openstack.cinder.family import Family

log = logging.getLogger(__name__)
_NAME: Final = "tmp-snap-"
"""How its name begins; the id of the clone follows."""
AGAIN_S: Final = 120.0
"""How often its deletion is asked for. One may wait for an attachment, and others for it."""
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
        self._over: dict[str, float] = {}
        """When the deletion of each is due, by time.monotonic()."""

    def _end_clone(self: Any, clone: str | None = None) -> None:
        """
        Have the temporary snapshots deleted of a clone that has failed.

        Args:
            clone: Its id; None: of all that this back end has begun, at its start.
        """
        wanted = {"use_quota": False} | ({"display_name": f"{_NAME}{clone}"} if clone else {})
        for row in objects.SnapshotList.get_all(cinder_context.get_admin_context(), wanted):
            if not (row.display_name or "").startswith(_NAME):
                continue
            if (row.volume.host or "").split("#")[0] == self.host:
                self._over[row.id] = time.monotonic()

    def _ask_for_over(self: Any) -> None:
        """Ask this very service, over the bus, for what is due, until the row is gone."""
        admin, now = cinder_context.get_admin_context(), time.monotonic()
        for one in [key for key, due in [*self._over.items()] if due <= now]:
            try:
                snapshot = objects.Snapshot.get_by_id(admin, one)
            except exception.SnapshotNotFound:
                del self._over[one]
                continue
            self._over[one] = now + AGAIN_S
            log.info("asking for the deletion of %s", snapshot.display_name)
            snapshot.status = "deleting"
            snapshot.save()
            rpcapi.VolumeAPI().delete_snapshot(admin, snapshot)
