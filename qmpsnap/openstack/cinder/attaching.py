"""
An attachment and an offline operation on the same volume, each of which looks for the other.

Who attaches a volume sets its row to `reserved` or `attaching`, and then asks the driver for its file;
who works on it opens an operation in the ledger, and then reads the row. So at least one of them sees
the other, in whatever processes they are, and waits. No lock is held for it: a clone holds that of its
source for as long as it copies, and may be attached to meanwhile.

Source: cinder/volume/api.py, _attachment_reserve; cinder/volume/manager.py, attachment_update.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from cinder import exception

from qmpsnap.ledger.machine import State
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.values import Kind, Operation
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.names import ledger_id

log = logging.getLogger(__name__)
IN_BETWEEN: Final = ("reserved", "attaching", "detaching")
"""Of a volume: its file may have been told already, and `attach_status` says nothing of it yet."""
_OVERWRITTEN: Final = "restoring-backup"
"""Of a volume whose own file the backup service writes to, by its name."""
LIMIT_S: Final = 30.0
"""An attachment's caller waits for 60 s: oslo.messaging, rpc_response_timeout."""
POLL_S: Final = 0.5


def await_operation(books: Books, volume: Any) -> None:
    """
    Wait for the operation that is open on a volume, if another file may become the active one by it.

    A commit or a pull by the guest never changes that. So a guest can be evacuated from a host that
    has died of one.

    Raises:
        OperationUnsettled: It does not end in time.
    """
    key, deadline, told = ledger_id(volume), time.monotonic() + LIMIT_S, False
    while (unsettled := books.open_on(key)) is not None:
        standing = books.standing(unsettled.snapshot)
        is_offline = standing is None or standing.state is State.DELETING
        if unsettled.kind is not Kind.CREATE and not is_offline:
            return
        if not told:
            log.info("volume %s waits for %s %s", key, unsettled.kind, unsettled.token)
            told = True
        if time.monotonic() > deadline:
            raise OperationUnsettled(
                key, unsettled.snapshot, unsettled.kind, unsettled.token,
                "not known" if standing is None else standing.state.word,
            )  # fmt: skip
        time.sleep(POLL_S)


def await_attachment(volume: Any) -> None:
    """
    Read a volume anew, and wait while it is neither attached nor detached.

    What else its status says is of a request that waits for the lock of this one.

    Raises:
        InvalidVolume: It stays in between.
    """
    deadline = time.monotonic() + LIMIT_S
    volume.refresh()
    if volume.status in IN_BETWEEN:
        log.info("volume %s is %s: that is waited for", volume.id, volume.status)
    while volume.status in IN_BETWEEN:
        if time.monotonic() > deadline:
            raise _in_between(volume)
        time.sleep(POLL_S)
        volume.refresh()


def see_detached(volume: Any, operation: Operation) -> None:
    """
    See that nobody was told the file that an offline operation is about to change.

    Once that is open nobody has been. So of one that is taken up, only who has been told it counts.

    Raises:
        InvalidVolume: Somebody may have been.
    """
    volume.refresh()
    if operation.again:
        told = any(one.attach_status == "attaching" for one in volume.volume_attachment)
    else:
        told = volume.status in (*IN_BETWEEN, _OVERWRITTEN)
    if told or volume.attach_status == "attached":
        raise _in_between(volume)


def _in_between(volume: Any) -> Exception:
    reason = f"it is {volume.status} just now, and was not touched: try again"
    error: Exception = exception.InvalidVolume(reason=reason)
    return error
