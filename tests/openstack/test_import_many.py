"""
`qmpsnap cinder import` on a share of many volumes, killed, interrupted, and run again.

    QMPSNAP_IMPORT_VOLUMES=10000 pytest -s tests/openstack/test_import_many.py    prints how long
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tests.openstack.rig.databases import engine_of
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

VOLUMES: Final = int(os.environ.get("QMPSNAP_IMPORT_VOLUMES", "400"))
DEEP: Final = 3
"""One volume in so many has two snapshots."""
_TABLES: Final = {"volumes": "id", "volume_admin_metadata": "volume_id"}


@pytest.fixture
def volumes(stock: Rig) -> Iterator[list[str]]:
    """Copies of one volume, in Cinder's database and on the share."""
    first = stock.create_volume()
    made = [str(uuid.uuid4()) for _ in range(VOLUMES)]
    with engine_of(stock.folder).begin() as database:
        for table, key in _TABLES.items():
            _copy(database, table, key, first, made)
    overlay = _overlay(stock.folder, first)
    for number, volume in enumerate(made):
        _lay_down(stock.share, volume, overlay.replace(first.encode(), volume.encode()), number)
    try:
        yield made
    finally:
        with engine_of(stock.folder).begin() as database:
            for table, key in (*_TABLES.items(), ("qmpsnap_files", "volume")):
                delete = sa.text(f"delete from {table} where {key} = :volume")
                database.execute(delete, [{"volume": one} for one in made])
        for volume in made:
            for path in stock.share.glob(f"volume-{volume}*"):
                path.unlink()


def _copy(database: Connection, table: str, key: str, first: str, made: list[str]) -> None:
    kinds = {one["name"]: one["type"] for one in sa.inspect(database).get_columns(table)}
    counted = {one for one, kind in kinds.items() if isinstance(kind, sa.Integer)} - {"size"}
    columns = ", ".join(kinds.keys() - counted - {key})
    insert = sa.text(
        f"insert into {table} ({key}, {columns}) "
        f"select :volume, {columns} from {table} where {key} = :first"
    )
    database.execute(insert, [{"volume": one, "first": first} for one in made])


def _overlay(folder: Path, volume: str) -> bytes:
    """An overlay over `volume-<id>`; ids are of one length, so that it can be renamed in place."""
    path = folder / "overlay.qcow2"
    base = ["-u", "-b", f"volume-{volume}", "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, path, "1G"], check=True)
    return path.read_bytes()


def _lay_down(share: Path, volume: str, overlay: bytes, number: int) -> None:
    base = share / f"volume-{volume}"
    with base.open("wb") as file:
        file.truncate(1 << 30)
    if number % DEEP == 0:
        snapshot = str(uuid.uuid4())
        (share / f"volume-{volume}.{snapshot}").write_bytes(overlay)
        active = f"volume-{volume}.{snapshot}"
        (share / f"volume-{volume}.info").write_text(
            json.dumps({"active": active, snapshot: active})
        )


def begun(rig: Rig) -> subprocess.Popen[str]:
    """The command, where the share is mounted."""
    pid = (rig.folder / "init.pid").read_text()
    command = [sys.executable, "-m", "qmpsnap", "cinder", "import", "-o", "json"]
    config = ["--config-file", str(rig.folder / "cinder.conf")]
    return subprocess.Popen(
        ["nsenter", f"--target={pid}", "--mount", "--", *command, *config],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def known(rig: Rig) -> int:
    """How many volumes the ledger knows."""
    if not sa.inspect(engine_of(rig.folder)).has_table("qmpsnap_files"):
        return 0
    ((count,),) = rig.rows("select count(distinct volume) from qmpsnap_files")
    return int(count)


@pytest.mark.timeout(600 + VOLUMES)
def test_an_import_is_killed_interrupted_and_run_again(stock: Rig, volumes: list[str]) -> None:
    before = known(stock)
    for part, how in ((10, signal.SIGKILL), (4, signal.SIGINT)):
        process = begun(stock)
        read_until(lambda: known(stock) - before, lambda it, p=part: it >= VOLUMES // p)  # type: ignore[misc]
        process.send_signal(how)
        process.communicate()
        assert process.returncode != 0
    so_far = known(stock)
    since = time.perf_counter()
    counts = json.loads(begun(stock).communicate()[0])["counts"]
    print(f"{counts['imported']} of {VOLUMES} volumes in {time.perf_counter() - since:.1f} s")
    assert counts["imported"] >= VOLUMES - (so_far - before)
    assert known(stock) >= before + VOLUMES
    since = time.perf_counter()
    counts = json.loads(begun(stock).communicate()[0])["counts"]
    print(f"again: {time.perf_counter() - since:.1f} s")
    assert counts["imported"] == 0
    assert counts["known"] >= VOLUMES
    query = "select volume, count(*) from qmpsnap_files where believed group by volume"
    files = dict(stock.rows(query))
    assert [files[one] for one in volumes] == [
        2 if number % DEEP == 0 else 1 for number in range(VOLUMES)
    ]
