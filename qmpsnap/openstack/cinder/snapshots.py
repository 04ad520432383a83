"""The part of a driver that creates and deletes snapshots: intent first, proof before removal."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final

from cinder import context as cinder_context
from cinder import exception, objects
from cinder.db import api as db

from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.machine import COMPLETE, State
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.values import File, Intent, Kind, Operation
from qmpsnap.openstack.cinder import adopt, waiting
from qmpsnap.openstack.cinder.attaching import IN_BETWEEN, await_attachment, see_detached
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.bus import Alarm
from qmpsnap.openstack.cinder.calling import was_refused
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import ledger_id
from qmpsnap.openstack.cinder.temporary import say_uncounted

log = logging.getLogger(__name__)
_CREATE_STATES: Final = ("available", "in-use", "backing-up")
_DELETE_STATES: Final = ("available", "in-use", "backing-up", "deleting", "downloading")
"""Of the volume. Source: cinder/volume/drivers/remotefs.py, _create_snapshot, _delete_snapshot."""


class Snapshots(Family):  # type: ignore[misc]
    """Creates and deletes snapshots, online and offline."""

    _books: Books | None
    _alarm: Alarm

    def _intend(
        self: Any, snapshot: Any, kind: Kind, file: str | None, onto: str | None
    ) -> Operation:
        """Write down what is going to be done; the same again is taken up where it stands."""
        intent = Intent(
            volume=ledger_id(snapshot.volume),
            snapshot=snapshot.id,
            kind=kind,
            file=file,
            onto=onto,
            host=self.host or "",
        )

        def work(ledger: Any) -> Operation:
            if kind is not Kind.CREATE:
                ledger.adopt(intent.volume, snapshot.id)
            begun: Operation = ledger.begin(intent)
            return begun

        operation: Operation = self._books.run(work)
        return operation

    # -- create -----------------------------------------------------------------------------------

    def _create_snapshot(self: Any, snapshot: Any) -> None:
        if self._books is None:
            super()._create_snapshot(snapshot)
            return
        volume = snapshot.volume
        say_uncounted(snapshot)
        states = [*_CREATE_STATES]
        if (snapshot.display_name or "").startswith("tmp-snap-"):
            states.append("downloading")
        self._validate_state(volume.status, (*states, *IN_BETWEEN))
        await_attachment(volume)
        chain = self._adopted(volume)
        path = self._get_new_snap_path(snapshot)
        operation = self._intend(snapshot, Kind.CREATE, os.path.basename(path), chain.active.file)
        with self._at_work(operation):
            try:
                if self._is_volume_attached(volume):
                    self._create_snapshot_online(snapshot, chain.active.file, path)
                else:
                    see_detached(volume, operation)
                    self._do_create_snapshot(snapshot, chain.active.file, path)
                    self._books.run(lambda ledger: ledger.made(operation.token))
            except Exception as error:
                self._fail(volume, operation, error)
                raise
            self._conclude(snapshot, operation)

    def _create_snapshot_online(
        self: Any, snapshot: Any, backing_filename: str, new_snap_path: str
    ) -> None:
        if self._books is None:
            super()._create_snapshot_online(snapshot, backing_filename, new_snap_path)
            return
        operation = self._books.open_on(ledger_id(snapshot.volume))
        self._do_create_snapshot(snapshot, backing_filename, new_snap_path)
        self._books.run(lambda ledger: ledger.made(operation.token))
        self._ask(
            snapshot.obj_context,
            operation,
            "creating",
            lambda: self._call_create(snapshot, operation),
        )

    def _call_create(self: Any, snapshot: Any, operation: Operation) -> None:
        create_info = {
            "type": "qcow2",
            "new_file": operation.file,
            "snapshot_id": snapshot.id,
            "id": operation.token,
        }
        self._nova.create_volume_snapshot(snapshot.obj_context, snapshot.volume_id, create_info)

    def _ask(
        self: Any,
        context: Any,
        operation: Operation,
        status: str,
        call: Callable[[], object],
        is_done: Callable[[], bool] | None = None,
    ) -> None:
        """
        Hand an operation over to compute, and wait until it is done; again where compute lost it.

        An earlier call for it may be answered at any moment, and nothing of that is overwritten.
        """
        self._alarm.listen(self.host)
        event = self._alarm.expect(operation.snapshot)
        self._warn_without_extension()
        try:
            # What an earlier try has left there is nobody's answer to this one.
            db.snapshot_update(context, operation.snapshot, {"status": status, "progress": "0%"})
            while calls := self._call(operation, call):
                looks = is_done if calls > 1 else None
                if waiting.wait(self._books, context, operation, event, is_done=looks):
                    return
                log.info("snapshot %s: compute has lost the call", operation.snapshot)
        finally:
            self._alarm.forget(operation.snapshot)

    def _call(self: Any, operation: Operation, call: Callable[[], object]) -> int:
        """Call compute; returns how many calls may be at work, 0 where it has answered by now."""
        calls: int = self._books.run(lambda ledger: ledger.before_call(operation.token))
        if not calls:
            return 0
        try:
            call()
        except Exception as error:
            log.warning("snapshot %s: the call to Nova: %s", operation.snapshot, error)
            if was_refused(error):
                why = f"the call to Nova: {error}"
                self._books.run(lambda ledger: ledger.refused(operation.token, why))
                raise
            # It may have come through: waited for as if it had.
        return calls

    def _fail(self: Any, volume: Any, operation: Operation, error: Exception) -> None:
        """Settle what did not come about; what may still be at compute stays open."""
        standing = self._books.standing(operation.snapshot)
        settled = (State.CREATING, State.DELETING, State.ERROR, State.ERROR_DELETING)
        if standing is None or standing.operation != operation.token:
            return
        if standing.state in settled:
            self._books.run(lambda ledger: ledger.fail(operation.token, str(error)))
            if operation.kind is Kind.CREATE:
                self._remove(volume, str(operation.file))

    # -- delete -----------------------------------------------------------------------------------

    def _delete_snapshot(self: Any, snapshot: Any) -> None:
        if self._books is None:
            super()._delete_snapshot(snapshot)
            return
        volume = snapshot.volume
        standing = self._books.standing(snapshot.id)
        if standing is not None and standing.state is State.DELETED:
            count_once(snapshot)
            return  # done, and told too late to whoever asked
        unfinished = self._books.open_on(ledger_id(volume))
        own = unfinished is not None and unfinished.snapshot == snapshot.id
        self._validate_state(volume.status, (*_DELETE_STATES, *IN_BETWEEN))
        if own:  # who attaches the volume waits for this one
            volume.refresh()
        else:
            await_attachment(volume)
        if own and self._is_complete(unfinished):  # `.info` may not say so yet: before `_adopted`
            self._take(snapshot, unfinished)
            if unfinished.kind is not Kind.CREATE:
                return
        content = self._read_info_file(self._local_path_volume_info(volume), empty_if_missing=True)
        chain = self._adopted(volume)
        if snapshot.id not in content:
            log.info("snapshot %s has no file: its deletion changes nothing else", snapshot.id)
            operation = self._intend(snapshot, Kind.NOTHING, None, None)
            self._conclude(snapshot, operation)
            return
        self._delete_file(snapshot, chain, content)

    def _is_complete(self: Any, operation: Operation) -> bool:
        standing = self._books.standing(operation.snapshot)
        is_done = standing is not None and standing.state in COMPLETE
        return is_done or self._is_recorded(operation)

    def _is_recorded(self: Any, operation: Operation) -> bool:
        return bool(self._books.look(lambda ledger: ledger.is_recorded(operation.token)))

    def _delete_file(self: Any, snapshot: Any, chain: Chain[File], content: dict[str, str]) -> None:
        volume = snapshot.volume
        layer = chain.layer(content[snapshot.id])
        if layer is None:
            reason = f"{content[snapshot.id]} of snapshot {snapshot.id} is not in it"
            raise adopt.ChainBroken(volume.name, reason)
        base = None if layer.backing is None else chain.layer(layer.backing)
        if base is None:
            self._forget_stale(snapshot, content)
            return
        attached = self._is_volume_attached(volume)
        pulls = attached and layer is chain.active
        kind = Kind.PULL if pulls else Kind.COMMIT
        pair = (base.file, layer.file) if pulls else (layer.file, base.file)
        self._let_go(snapshot, kind)
        operation = self._intend(snapshot, kind, *pair)
        with self._at_work(operation):
            try:
                if attached:
                    ids = {file: one for one, file in content.items() if one != adopt.ACTIVE}
                    below = None if base.backing is None else chain.layer(base.backing)
                    self._delete_snapshot_online(
                        snapshot._context,
                        snapshot,
                        {
                            "active_file": chain.active.file,
                            "snapshot_file": layer.file,
                            "base_file": base.file,
                            "base_id": ids.get(base.file),
                            "new_base_file": None if below is None else below.file,
                        },
                    )
                else:
                    see_detached(volume, operation)
                    self._delete_offline(volume, chain, operation)
            except Exception as error:
                self._fail(volume, operation, error)
                raise
            self._conclude(snapshot, operation)

    def _forget_stale(self: Any, snapshot: Any, content: dict[str, str]) -> None:
        """An earlier pull has ended, and `.info` was not told: only that is left to do."""
        operation = self._intend(snapshot, Kind.NOTHING, None, None)
        left = {key: file for key, file in content.items() if key != snapshot.id}
        self._write_info_file(self._local_path_volume_info(snapshot.volume), left)
        self._conclude(snapshot, operation)

    def _let_go(self: Any, snapshot: Any, kind: Kind) -> None:
        """
        End this snapshot's own interrupted deletion of another kind: it was attached or detached.

        Only while compute was not asked; then `OperationUnsettled` says what an operator can do.
        """
        unfinished = self._books.open_on(ledger_id(snapshot.volume))
        if unfinished is None or unfinished.snapshot != snapshot.id or unfinished.kind is kind:
            return
        if self._books.standing(snapshot.id).state is State.DELETING:
            why = f"interrupted, and it is a {kind} now"
            self._books.run(lambda ledger: ledger.fail(unfinished.token, why))

    def _delete_offline(self: Any, volume: Any, chain: Chain[File], operation: Operation) -> None:
        """
        Commit a snapshot's file into its base; the file itself goes once that is recorded.

        Killed in between, it is done again, up to where the header of the file above names the
        base: that was written last.

        Raises:
            OperationUnsettled: Compute was asked to, and has not answered.
        """
        standing = self._books.standing(operation.snapshot)
        if standing.state is not State.DELETING:
            raise OperationUnsettled(
                operation.volume, operation.snapshot, operation.kind, operation.token,
                standing.state.word,
            )  # fmt: skip
        above, named = self._named_above(volume, operation)
        if above is not None and named == operation.onto:
            log.info("%s is backed by %s already", above, named)
            return
        self._mend_headers(volume, chain)
        merged = next(at for at, one in enumerate(chain.layers) if one.file == operation.file)
        self._commit_into(volume, chain.layers[merged:])
        if above is not None:
            base = chain.layers[merged + 1]
            self._name_below(volume, chain.layers[merged - 1], base.file, str(base.format))

    def _delete_snapshot_online(
        self: Any, context: Any, snapshot: Any, info: dict[str, Any]
    ) -> None:
        if self._books is None:
            super()._delete_snapshot_online(context, snapshot, info)
            return
        operation = self._books.open_on(ledger_id(snapshot.volume))
        pull = info["active_file"] == info["snapshot_file"]
        new_base = None if info["base_id"] is None else info["new_base_file"]
        delete_info = {
            "file_to_merge": new_base if pull else info["snapshot_file"],
            "merge_target_file": None if pull else info["base_file"],
            "type": "qcow2",
            "volume_id": snapshot.volume.id,
            "operation": operation.token,
        }
        if not self._was_done_before(snapshot.volume, operation):
            self._nova_assisted_vol_snap_delete(context, snapshot, delete_info)
        self._prove(snapshot.volume, operation)

    def _nova_assisted_vol_snap_delete(
        self: Any, context: Any, snapshot: Any, delete_info: dict[str, Any]
    ) -> None:
        if self._books is None:
            super()._nova_assisted_vol_snap_delete(context, snapshot, delete_info)
            return
        operation = self._books.open_on(ledger_id(snapshot.volume))
        self._ask(
            context,
            operation,
            "deleting",
            lambda: self._nova.delete_volume_snapshot(context, snapshot.id, delete_info),
            lambda: self._is_shown_done(snapshot.volume, operation),
        )


def count_once(snapshot: Any) -> None:
    """
    Have the manager take a snapshot off the quota only if it has not done so: its row is gone then.

    It is asked twice where the bus has kept a request for which the start has asked again.
    Source: cinder/volume/manager.py, delete_snapshot, which goes by the message's object.
    """
    try:
        objects.Snapshot.get_by_id(cinder_context.get_admin_context(), snapshot.id)
    except exception.SnapshotNotFound:
        snapshot.use_quota = False
