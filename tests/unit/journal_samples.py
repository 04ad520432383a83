"""Operations as a journal has them: values for tests."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from qmpsnap.journal.record import Act, Record, Seen, Wishes
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.where import Where
from tests.unit import samples

REQUEST: Final = NamedDeleteRequest(disk="vda", snapshot="s1")
WHERE: Final = Where(road="qmp", at="/run/web1.qmp", process=(42, 4711))


def without_log(journal: Path) -> None:
    """Bring all of a journal into its own file: since Python 3.12 it stays in the log beside it."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def merging(id_: str = "a", **changes: Any) -> Record:
    """A commit of a middle layer."""
    plan = plan_delete(samples.guest(samples.disk(3)), REQUEST)
    values: dict[str, Any] = {
        "id": id_,
        "kind": plan.kind,
        "guest": "web1",
        "where": WHERE,
        "deleting_named": REQUEST,
        "disks": ("vda",),
        "before": {layer.file: layer.format for layer in plan.disk.layers},
        "merge": plan,
        "wishes": Wishes(options=MergeOptions(bandwidth=1), allow=(Guard.SPACE,), remove=True),
        "files": (Seen(path="/share/volume-1", inode=7, born=8, size=9),),
        "by": "root",
        "host": "here",
        "begun": 1000.0,
    }
    return Record(**{**values, **changes})


def creating(id_: str = "c", *, begun: float = 1000.0) -> Record:
    """A snapshot."""
    request = CreateRequest(disk="vda", new_file=None, snapshot="new")
    plans = plan_creates(samples.guest(samples.disk(2)), [request])
    return Record(
        id=id_,
        kind="create",
        guest="web1",
        where=WHERE,
        creating=(request,),
        disks=("vda",),
        creates=plans,
        made_here=(True,),
        begun=begun,
    )


def pulling(id_: str = "p") -> Record:
    """A pull of everything."""
    request = DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None)
    plan = plan_delete(samples.guest(samples.disk(2)), request)
    return merging(id_, kind="pull", merge=plan, deleting=request, deleting_named=None)


def act(number: int = 1, **changes: Any) -> Act:
    """One act."""
    values: dict[str, Any] = {
        "number": number,
        "at": 1001.0,
        "does": "start",
        "by": "qmp",
        "what": "block-commit",
        "arguments": {"job-id": "a", "auto-finalize": False},
    }
    return Act(**{**values, **changes})
