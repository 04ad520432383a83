"""
The API's ear for a compute service that has started: which calls have died with the one before.

    POST …/os-qmpsnap {"started": {"host": …, "volumes": […], "operations": […]}}
    202 {"missed": [snapshot, …]}

Nova answers a call before compute has written it down, so a call can die with compute and leave no
trace there. Only our compute side reports its start, with the volumes of its guests. So a stock one,
which would do the work twice, is never asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

import webob
from cinder import context as cinder_context
from cinder import exception, objects
from cinder.api import validation
from cinder.api.openstack import wsgi

from qmpsnap.errors import QmpsnapError
from qmpsnap.ledger.values import Operation
from qmpsnap.openstack.cinder import bus, policy
from qmpsnap.openstack.cinder.books import Books

log = logging.getLogger(__name__)
_NAMES: Final = {
    "type": "array",
    "maxItems": 1000,
    "items": {"type": "string", "minLength": 1, "maxLength": 64},
}
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "started": {
            "type": "object",
            "properties": {
                "host": {"type": "string", "minLength": 1, "maxLength": 255},
                "volumes": _NAMES,
                "operations": _NAMES,
            },
            "required": ["host", "volumes", "operations"],
            "additionalProperties": False,
        },
    },
    "required": ["started"],
    "additionalProperties": False,
}


class StartedController(wsgi.Controller):  # type: ignore[misc]
    """Has asked again for what a compute service that has started does not know of."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books

    @wsgi.response(202)  # type: ignore[untyped-decorator]
    @validation.schema(SCHEMA)  # type: ignore[untyped-decorator]
    def create(self, req: Any, body: dict[str, Any]) -> dict[str, list[str]]:
        """
        Hear which volumes its guests have, and which operations it knows of.

        Returns:
            The snapshots of the other operations on these volumes, of which compute is asked again.
        """
        if not policy.allows(req.environ["cinder.context"]):
            raise webob.exc.HTTPForbidden(
                explanation="Only a service or an administrator may report what compute has done."
            )
        said = body["started"]
        try:
            operations = self._books.look(lambda ledger: ledger.open_operations())
            unknown = [one for one in operations if one.token not in said["operations"]]
            missed = [one.snapshot for one in unknown if self._has_missed(one, said["volumes"])]
        except QmpsnapError as error:
            log.exception("the ledger cannot be used: `qmpsnap cinder check`")
            raise webob.exc.HTTPServiceUnavailable(explanation=str(error)) from error
        log.info("compute on %s has started; missed: %s", said["host"], missed or "nothing")
        return {"missed": missed}

    def _has_missed(self, operation: Operation, volumes: Collection[str]) -> bool:
        """Whether an operation on one of these volumes is still waited for; if so, wake the waiter."""
        admin = cinder_context.get_admin_context()
        try:
            snapshot = objects.Snapshot.get_by_id(admin, operation.snapshot)
        except exception.SnapshotNotFound:
            return False
        volume = snapshot.volume
        if volume.id not in volumes:
            return False
        if not self._books.run(lambda ledger: ledger.missed(operation.token)):
            return False
        if volume.host:
            clustered = volume.cluster_name is not None
            bus.wake(admin, volume.host, snapshot.id, clustered=clustered)
        return True
