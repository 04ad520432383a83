"""
The API extension: takes over `os-update_snapshot_status`.

Cinder overwrites an action's handler with that of an extension that is loaded later
(cinder/api/openstack/wsgi.py, register_extensions), so this one stands behind
`standard_extensions`. Compute asks `GET /extensions/os-qmpsnap` whether it is there.
"""

from __future__ import annotations

import copy
import logging
import re
from http import HTTPStatus
from typing import Any, Final

import webob
from cinder import context as cinder_context
from cinder import objects
from cinder.api import extensions, validation
from cinder.api.contrib import snapshot_actions
from cinder.api.openstack import wsgi
from cinder.api.schemas import snapshot_actions as schemas
from cinder.db import api as db
from oslo_config import cfg

from qmpsnap.errors import QmpsnapError
from qmpsnap.ledger.judge import Accepted, Reason, Verdict
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.machine import Event
from qmpsnap.ledger.store import met_another
from qmpsnap.ledger.values import REPORTED, Update
from qmpsnap.openstack.cinder import bus, policy
from qmpsnap.openstack.cinder.books import Books, own_version
from qmpsnap.openstack.cinder.missed import StartedController
from qmpsnap.openstack.cinder.names import ledger_id
from qmpsnap.status import ACTION

log = logging.getLogger(__name__)
ALIAS: Final = "os-qmpsnap"
COMPLETE: Final = "_compute_complete"
TRIES: Final = 10
"""When another transaction was in the way."""
OWN: Final = re.compile(r"[0-9a-f-]{36}")
"""What stands behind the dot in the name of an overlay: a snapshot's id."""


def _widened() -> dict[str, Any]:
    """Upstream's schema, and two keys more: old bodies, and old messages about bad ones, stay."""
    schema: dict[str, Any] = copy.deepcopy(schemas.update_snapshot_status)
    schema["properties"][ACTION]["properties"] |= {
        "file_format": {
            "type": "object",
            "maxProperties": 64,
            "additionalProperties": {"type": "string", "maxLength": 64},
        },
        "operation": {"type": "string", "minLength": 1, "maxLength": 64},
    }
    return schema


SCHEMA: Final = _widened()


class SnapshotActionsController(snapshot_actions.SnapshotActionsController):  # type: ignore[misc]
    """Takes status updates from compute, in the specification's dialect and in stock's."""

    def __init__(self, *args: Any, books: Books | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._books = books or Books()

    def announce(self) -> None:
        """Leave a note in the ledger that the extension is here."""
        try:
            self._books.run(lambda ledger: ledger.present("api", cfg.CONF.host, own_version()))
        except QmpsnapError:
            log.exception("the ledger cannot be told of this API: `qmpsnap cinder check`")

    @wsgi.action(ACTION)  # type: ignore[untyped-decorator]
    @validation.schema(SCHEMA)  # type: ignore[untyped-decorator]
    def _update_snapshot_status(self, req: Any, id: str, body: dict[str, Any]) -> Any:
        """Store an update of a snapshot's status, or say why not."""
        context, said = req.environ["cinder.context"], body[ACTION]
        if not policy.allows(context):
            # Whoever may not see the snapshot learns by 404 no more than before.
            snapshot = objects.Snapshot.get_by_id(context, id)
            self._count(snapshot.id, context)
            raise webob.exc.HTTPForbidden(
                explanation="Only a service or an administrator may report what compute has done."
            )
        # A service has a project of its own.
        admin = cinder_context.get_admin_context()
        snapshot = objects.Snapshot.get_by_id(admin, id)
        update = Update(
            volume=ledger_id(snapshot.volume),
            snapshot=snapshot.id,
            status=said["status"],
            progress=said.get("progress") or None,
            file_format=said.get("file_format") or {},
            operation=said.get("operation"),
            is_service=True,
            by=str(context.user_id or ""),
        )
        verdict = self._stored(admin, update)
        if verdict is None:
            return self._as_upstream(req, snapshot, update)
        if not isinstance(verdict, Accepted):
            log.warning("refused for snapshot %s: %s", snapshot.id, verdict)
            raise webob.exc.HTTPBadRequest(explanation=f"{verdict.reason}: {verdict.detail}")
        log.info("snapshot %s: %s (%s)", snapshot.id, update.status, verdict.operation)
        host = snapshot.volume.host
        if host and verdict.event is not Event.RUNNING:
            clustered = snapshot.volume.cluster_name is not None
            bus.wake(admin, host, snapshot.id, clustered=clustered)
        return webob.Response(status_int=HTTPStatus.ACCEPTED)

    def _stored(self, admin: Any, update: Update) -> Verdict | None:
        """
        Put an update into the ledger and the row, in one transaction.

        Returns:
            The ledger's verdict; None where it does not know the snapshot: another back end's.

        Raises:
            HTTPServiceUnavailable: The ledger cannot be used; compute is to try again.
        """
        try:
            self._books.store  # noqa: B018  makes the tables, before a transaction begins
            for tried in range(TRIES):
                try:
                    return self._store_once(admin, update)
                except Exception as error:
                    if tried == TRIES - 1 or not met_another(error):
                        raise
        except QmpsnapError as error:
            log.exception("the ledger cannot be used: `qmpsnap cinder check`")
            raise webob.exc.HTTPServiceUnavailable(explanation=str(error)) from error
        raise AssertionError  # pragma: no cover

    def _store_once(self, admin: Any, update: Update) -> Verdict | None:
        with db.main_context_manager.writer.using(admin) as session:
            ledger = Ledger(session.connection())
            if ledger.snapshot(update.snapshot) is None:
                return None
            verdict = ledger.accept(update)
            if isinstance(verdict, Accepted) and not verdict.again and not verdict.is_doubted:
                _set_row(admin, update)
            return verdict

    def _count(self, snapshot: str, context: Any) -> None:
        by, reason = str(context.user_id or ""), Reason.NOT_A_SERVICE
        log.warning("refused for snapshot %s: %s %s", snapshot, reason, by)
        try:
            self._books.run(lambda ledger: ledger.refuse(snapshot, reason, by))
        except QmpsnapError:
            log.exception("the ledger cannot be told: `qmpsnap cinder check`")

    def _as_upstream(self, req: Any, snapshot: Any, update: Update) -> Any:
        """
        Answer for a snapshot that the ledger does not know: upstream's rules, and ours of formats.

        The formats are kept nowhere: only the volume service writes them.
        """
        name = snapshot.volume.name
        for file, stated in update.file_format.items():
            if file != name and not OWN.fullmatch(file.removeprefix(f"{name}.")):
                reason = Reason.FOREIGN_FILE
            elif stated not in REPORTED:
                reason = Reason.FORMAT
            else:
                continue
            raise webob.exc.HTTPBadRequest(explanation=f"{reason}: {file!r}: {stated!r}"[:300])
        plain = {"status": update.status.removesuffix(COMPLETE)}
        if update.progress is not None:
            plain["progress"] = update.progress
        return super()._update_snapshot_status(req, snapshot.id, body={ACTION: plain})


def _set_row(admin: Any, update: Update) -> None:
    """
    Set Cinder's own row, in the transaction of the ledger's entry.

    Never the literal new status: to such a row Cinder answers HTTP 500 (SnapshotStatusField).
    """
    values = {"status": update.status.removesuffix(COMPLETE)}
    if update.progress is not None:
        values["progress"] = update.progress
    db.snapshot_update(admin, update.snapshot, values)


class Extension(extensions.ExtensionDescriptor):  # type: ignore[misc]
    """`osapi_volume_extension = qmpsnap.openstack.cinder.Extension`."""

    name = "Qmpsnap"
    alias = ALIAS
    updated = "2026-11-26T00:00:00+00:00"

    def __init__(self, ext_mgr: Any) -> None:
        policy.register()
        self._books = Books()
        super().__init__(ext_mgr)

    def get_resources(self) -> list[Any]:
        """Where a compute service says that it has started."""
        return [extensions.ResourceExtension(ALIAS, StartedController(self._books))]

    def get_controller_extensions(self) -> list[Any]:
        """The handler, and a note in the ledger that it is here."""
        controller = SnapshotActionsController(books=self._books)
        controller.announce()
        return [extensions.ControllerExtension(self, "snapshots", controller)]
