"""
How an attachment and an offline operation on the same volume keep out of each other's way.

An attachment first sets the volume's row to `reserved` or `attaching`, and then asks the driver for the
file. An operation is first opened in the ledger, and then reads the row. So at least one of the two
sees the other, even across processes, and waits. The volume's lock would not do: a clone holds it
while it copies its source, and the source may be attached during that time.

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

    A commit or a pull in a running guest never changes the active file, so it is not waited for: a
    guest can be evacuated from a host that died during one.

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
    Reload a volume, and wait until an attachment or a detachment that is under way has ended.

    Any other new status was set by a request that now waits for the lock of the volume.

    Raises:
        InvalidVolume: It does not end in time.
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
    Check that nobody has been told the file that an offline operation is about to change.

    Once an operation is open, no attachment is told a file. So if this one was taken up again, only an
    attachment that has been told its file by now counts.

    Raises:
        InvalidVolume: Somebody may have been told it.
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
