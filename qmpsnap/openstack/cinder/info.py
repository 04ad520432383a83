"""
Cinder's `volume-<id>.info`: which file is active, and which one each snapshot has.

Stock Cinder truncates and rewrites it in place; killed in between, it leaves an empty file, and the
volume cannot be attached. Here the new one comes under a temporary name, is synced, and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.ledger.values import Kind, Operation
from qmpsnap.openstack.cinder.names import UNFINISHED

Run = Callable[..., object]
"""A driver's `_execute`."""


def after(info: Mapping[str, str], operation: Operation) -> dict[str, str]:
    """
    `.info` once an operation has been recorded. Applied again, it changes nothing.

    Args:
        info: As it is; empty where there is none.
        operation: The operation, its files in the order of `Intent`.
    """
    found = dict(info)
    file, onto, snapshot = operation.file, operation.onto, operation.snapshot
    if operation.kind is Kind.CREATE:
        assert file is not None
        return found | {"active": file, snapshot: file}
    found.pop(snapshot, None)
    if file is not None and onto is not None:
        # A snapshot's file is the one written to after it: what was merged away has gone into it.
        found = {key: onto if name == file else name for key, name in found.items()}
    return found


def write(
    path: str, content: Mapping[str, str], *, run: Run, as_root: bool, permissions: str
) -> None:
    """
    Replace the file in one step; what stands on disk is the old or the new one, never a part.

    What an earlier write has left unfinished is overwritten.

    Args:
        path: Of the `.info` file.
        content: As upstream has it: `active`, and a file by snapshot id.
        run: The driver's `_execute`; used only where the process itself may not write.
        as_root: Whether the driver runs commands as root.
        permissions: For chmod(1), of a new file.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(content, indent=1, sort_keys=True)
    temporary = path + UNFINISHED
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        mine = True
    except PermissionError:
        # A share whose folder belongs to root: there upstream makes files by truncate(1) as well.
        run("truncate", "-s0", temporary, run_as_root=as_root)
        run("chmod", permissions, temporary, run_as_root=as_root)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        mine = False
    with os.fdopen(descriptor, "w") as file:
        if mine:
            os.fchmod(descriptor, 0o660 if permissions == "660" else 0o666)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    if mine:
        os.replace(temporary, path)
    else:
        run("mv", "-f", temporary, path, run_as_root=as_root)
    sync_folder(os.path.dirname(path))
