"""
The part of a driver that settles what a crash has left, and takes answers that come late.

Before Cinder's own clean-up, which sets every snapshot that is `creating` to `error` whatever the
guest does by then. What compute has not answered yet is looked at again while the service runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from cinder import context as cinder_context
from cinder import coordination, exception, objects
from cinder.volume import rpcapi

from qmpsnap.ledger.machine import Next, State, after_a_restart
from qmpsnap.ledger.snapshots import MISSED
from qmpsnap.ledger.values import File, Kind, Operation, Place
from qmpsnap.openstack.cinder.books import Books, own_version
from qmpsnap.openstack.cinder.bus import Alarm
from qmpsnap.openstack.cinder.calling import was_refused
from qmpsnap.openstack.cinder.concluding import NotProven
from qmpsnap.openstack.cinder.names import ledger_id
from qmpsnap.openstack.cinder.temporary import Temporary
from qmpsnap.openstack.cinder.waiting import LIMIT_S

log = logging.getLogger(__name__)
LOOK_S: Final = 5.0
"""How often operations are looked at that nobody in this process works on."""
_BEHIND: Final = (
    ("creating", State.AVAILABLE),
    ("creating", State.ERROR),
    ("deleting", State.DELETED),
    ("deleting", State.ERROR_DELETING),
)
"""Statuses of rows that a manager has not brought up to what has become of the snapshot."""
_UNBEGUN: Final = (State.AVAILABLE, State.ERROR, State.ERROR_DELETING)
"""Of a snapshot that nobody has begun to delete, or not again."""
ASK_S: Final = 30.0
"""How often the deletion of a snapshot is asked for again that a crash has interrupted."""


def _follow(snapshot: Any, before: str, after: str) -> None:
    """Have a row say what has become of the snapshot, where nobody waits who would."""
    snapshot.refresh()
    if snapshot.status == before:
        snapshot.status = after
        snapshot.save()


class Starting(Temporary):
    """Settles open operations: at the start, and whenever compute answers late."""

    _books: Books | None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._alarm = Alarm()
        self._shown: dict[str, float] = {}
        self._working: set[str] = set()
        self._asked: dict[str, float] = {}
        self._left: set[str] = set()
        """Snapshots of which only Cinder's own part of a deletion is left to do."""
        self._lost: set[str] = set()
        """Snapshots whose deletion was asked for before the start, and that no operation is open on."""
        self._thread: threading.Thread | None = None
        self._since = time.time()

    def set_initialized(self: Any) -> None:
        """Settle what a crash has left, before the manager's clean-up begins."""
        if self._books is not None:
            try:
                self._ensure_shares_mounted()
                self._announce()
                self._settle()
                self._end_clone()
                self._settle_rows()
                self._find_lost()
                self._remove_left()
                self._alarm.listen(self.host)
            except Exception:
                # An API may serve other back ends, and this one can still do without snapshots.
                log.exception("the ledger could not be settled: `qmpsnap cinder check`")
            self._look_out()
        super().set_initialized()

    def _announce(self: Any) -> None:
        self._books.run(lambda ledger: ledger.present("volume", self.host or "", own_version()))

    def _settle_rows(self: Any) -> None:
        """Have rows follow where the driver had done its part, and the manager not yet its own."""
        admin = cinder_context.get_admin_context()
        for status, state in _BEHIND:
            # Cinder's own filter by host finds none of them (29.0.0) when a status is given too.
            for row in objects.SnapshotList.get_all(admin, {"status": status}):
                standing = self._books.standing(row.id)
                if standing is None or standing.state is not state or not self._is_mine(row):
                    continue
                if row.id in self._over:
                    continue  # it is about to be deleted, whatever its state
                if state is State.DELETED:
                    self._left.add(row.id)
                    continue
                row.status = state.status
                if state is State.AVAILABLE:
                    row.progress = "100%"
                row.save()

    def _find_lost(self: Any) -> None:
        """Find deletions that died while they waited, and so were never written into the ledger."""
        rows = objects.SnapshotList.get_all(
            cinder_context.get_admin_context(), {"status": "deleting"}
        )
        for row in rows:
            standing = self._books.standing(row.id)
            is_settled = standing is None or standing.state in _UNBEGUN
            if is_settled and self._is_mine(row):
                self._lost.add(row.id)

    def _ask_for_lost(self: Any) -> None:
        """Ask for them once, when requests that the bus has kept have had time to arrive."""
        if not self._lost or time.time() - self._since < ASK_S:
            return
        admin = cinder_context.get_admin_context()
        for one in self._lost - {*self._over}:
            try:
                snapshot = objects.Snapshot.get_by_id(admin, one)
                if snapshot.status == "deleting" and snapshot.volume.status != "deleting":
                    log.info("asking for the deletion of snapshot %s again", one)
                    rpcapi.VolumeAPI().delete_snapshot(admin, snapshot)
            except exception.NotFound:
                pass  # it has been deleted since
            except Exception:
                log.exception("snapshot %s is not asked for", one)
                continue
            self._lost.discard(one)

    def _remove_left(self: Any) -> None:
        """Remove what has left a volume's chain, and is there still for a crash."""
        files = self._books.look(lambda ledger: ledger.files())
        left = [one for one in files if one.place is Place.LEFT]
        if not left:
            return
        admin = cinder_context.get_admin_context()
        volumes = objects.VolumeList.get_all_by_host(admin, self.host)
        mine = {ledger_id(volume): volume for volume in volumes}
        for one in left:
            if one.volume in mine:
                try:
                    self._remove_unnamed(mine[one.volume], one)
                except Exception:  # the next start tries again; the other files are removed now
                    log.exception("%s of volume %s is not removed", one.file, one.volume)

    def _remove_unnamed(self: Any, volume: Any, file: File) -> None:
        """
        Remove a file that `.info` does not name, for no snapshot either.

        That it has left may be an operator's word alone. `cinder check` tells of such a volume.
        """
        content = self._read_info_file(self._local_path_volume_info(volume), empty_if_missing=True)
        if file.file in content.values():
            log.warning(
                "%s has left volume %s, and `.info` names it still: kept", file.file, volume.id
            )
        else:
            self._remove(volume, file.file)

    @contextmanager
    def _at_work(self: Any, operation: Operation) -> Iterator[None]:
        self._working.add(operation.token)
        try:
            yield
        finally:
            self._working.discard(operation.token)

    def _warn_without_extension(self: Any) -> None:
        """An extension that does not load is only a warning in Cinder's log, once."""
        found = self._books.look(lambda ledger: ledger.presences())
        if not any(one.kind == "api" for one in found):
            log.warning(
                "no API has loaded qmpsnap.openstack.cinder.Extension: compute's formats cannot "
                "be heard, and are inferred (`qmpsnap cinder check`)"
            )

    def _look_out(self: Any) -> None:
        """Start to look after what nobody in this process waits for; once."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._keep_looking, name="qmpsnap-ledger", daemon=True
            )
            self._thread.start()

    def _keep_looking(self: Any) -> None:
        while True:
            self._alarm.any.wait(LOOK_S)
            self._alarm.any.clear()
            try:
                self._settle()
            except Exception:
                log.exception("cannot look after open operations; again in %g s", LOOK_S)
                time.sleep(LOOK_S)

    def _settle(self: Any) -> None:
        """Settle every operation of this back end that nobody here works on."""
        host = self.host or ""
        admin = cinder_context.get_admin_context()
        for one in [*self._left] if self.initialized else ():
            self._left.discard(one)
            with suppress(exception.NotFound):
                snapshot = objects.Snapshot.get_by_id(admin, one)
                if snapshot.status == "error_deleting":
                    snapshot.status = "deleting"
                    snapshot.save()
                rpcapi.VolumeAPI().delete_snapshot(admin, snapshot)
        if self.initialized:
            self._ask_for_over()
            self._ask_for_lost()
        for operation in self._books.look(lambda ledger: ledger.open_operations(host=host)):
            if operation.token in self._working:
                continue
            try:
                self._settle_one(admin, operation)
            except exception.NotFound as error:
                log.warning("operation %s: %s", operation.token, error)
            except Exception:
                log.exception("operation %s is not settled", operation.token)

    def _settle_one(self: Any, admin: Any, operation: Operation) -> None:
        snapshot = objects.Snapshot.get_by_id(admin, operation.snapshot)
        name = f"{self.driver_prefix}-{snapshot.volume.id}"

        @coordination.synchronized(name)  # type: ignore[untyped-decorator]
        def settle() -> None:
            standing = self._books.standing(operation.snapshot)
            if standing is None or standing.operation != operation.token:
                return
            recorded = self._is_recorded(operation)
            what = after_a_restart(standing.state, is_recorded=recorded)
            if what is Next.RECORD:
                with self._at_work(operation):
                    self._take_late(snapshot, operation)
            elif what is Next.ROLL_BACK and operation.kind is Kind.CREATE:
                self._roll_back(snapshot, operation)
            elif what is Next.ASK_AGAIN and operation.kind is Kind.CREATE:
                self._ask_for_creation(snapshot, operation, is_missed=standing.why == MISSED)
                self._give_up_in_time(snapshot, operation, standing.state)

        settle()
        if operation.kind is not Kind.CREATE:
            self._ask_for_deletion(admin, snapshot, operation)

    def _take_late(self: Any, snapshot: Any, operation: Operation) -> None:
        """It was done while nobody waited, or all but what follows from it."""
        try:
            self._take(snapshot, operation)
        except NotProven:
            _follow(snapshot, "deleting", "error_deleting")
            return
        log.info("settled the %s of snapshot %s", operation.kind, snapshot.id)
        snapshot.refresh()
        if operation.kind is Kind.CREATE and snapshot.status in ("creating", "error"):
            snapshot.status, snapshot.progress = "available", "100%"
            snapshot.save()
        if operation.kind is not Kind.CREATE and snapshot.status == "error_deleting":
            self._left.add(snapshot.id)

    def _roll_back(self: Any, snapshot: Any, operation: Operation) -> None:
        """Compute was never asked, and nobody uses the file that was made."""
        self._books.run(lambda ledger: ledger.fail(operation.token, "interrupted before it began"))
        self._remove(snapshot.volume, str(operation.file))
        _follow(snapshot, "creating", "error")

    def _ask_for_creation(
        self: Any, snapshot: Any, operation: Operation, *, is_missed: bool
    ) -> None:
        """
        Ask compute once more for what a crash of either side has interrupted, with the same token.

        Whether it was asked is not known. Ours answers by the token what it has done; a stock one
        that has done it already fails, and the file is `unsure` then.
        """
        before = operation.begun.timestamp() < self._since
        is_due = is_missed or (before and operation.token not in self._asked)
        if not is_due or not self.initialized:
            return
        self._asked[operation.token] = time.monotonic()
        log.info("asking for snapshot %s again", snapshot.id)
        self._books.run(lambda ledger: ledger.hand_over(operation.token))
        try:
            self._call_create(snapshot, operation)
        except Exception as error:
            log.warning("snapshot %s: the call to Nova: %s", snapshot.id, error)
            if was_refused(error):
                why = f"the call to Nova: {error}"
                self._books.run(lambda ledger: ledger.refused(operation.token, why))
                _follow(snapshot, "creating", "error")

    def _give_up_in_time(self: Any, snapshot: Any, operation: Operation, state: State) -> None:
        age = time.time() - operation.begun.timestamp()
        if state is State.CREATING_AT_COMPUTE and age > LIMIT_S[Kind.CREATE]:
            why = f"no answer in {age:.0f} s"
            self._books.run(lambda ledger: ledger.give_up(operation.token, why))
            _follow(snapshot, "creating", "error")

    def _ask_for_deletion(self: Any, admin: Any, snapshot: Any, operation: Operation) -> None:
        """
        Have this very service delete a snapshot whose deletion was interrupted.

        Over the bus, so that its manager does its own part as well (quota, the row). It takes the
        operation up where it stands.
        """
        snapshot.refresh()
        if snapshot.status != "deleting" or not self.initialized or snapshot.id in self._over:
            return
        if time.monotonic() - self._asked.get(operation.token, -ASK_S) < ASK_S:
            return
        self._asked[operation.token] = time.monotonic()
        log.info("asking for the interrupted deletion of snapshot %s again", snapshot.id)
        rpcapi.VolumeAPI().delete_snapshot(admin, snapshot)
