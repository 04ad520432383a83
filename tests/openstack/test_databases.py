"""Cinder's services as processes of their own, on real database servers; both sides are ours."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.openstack.interrupted import DYING, dies_at, written
from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.pairings import Pairing, in_processes
from tests.openstack.rig.rig import Rig, running
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked, check, holds, open_operations
from tests.rig import mariadb, postgresql

AT_ONCE = 3
Server = postgresql.Server | mariadb.Server
on_postgresql = pytest.mark.parametrize("server", [postgresql], ids=["postgresql"], indirect=True)
on_both = pytest.mark.parametrize(
    "server", [postgresql, mariadb], ids=["postgresql", "mariadb"], indirect=True
)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A database server."""
    with request.param.Server() as made:
        yield made


@pytest.fixture(scope="module")
def rig(server: Server) -> Iterator[Rig]:
    """Cinder as it is installed."""
    ours = Pairing(name="ours", nova=pairings.NOVA, cinder=DYING)
    with running(in_processes(ours, server.database(server.of_cinder))) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_is_stuck(rig: Rig) -> Iterator[None]:
    """Whatever a test does: nobody is at work afterwards, and each row says so."""
    yield
    assert open_operations(rig) == ()
    assert {*rig.rows("select status from snapshots where not deleted")} <= {("available",)}


@on_both
def test_the_tables_are_made_by_the_command(rig: Rig, server: Server, tmp_path: Path) -> None:
    """In a database that Cinder has not seen; where the rig's is, the services have made them."""
    text = (rig.folder / "cinder.conf").read_text()
    (before,) = [one for one in text.splitlines() if one.startswith("connection = ")]
    config = tmp_path / "cinder.conf"
    config.write_text(text.replace(before, f"connection = {server.database(server.of_cinder)}"))
    said = [_db_sync(one) for one in (config, rig.folder / "cinder.conf")]
    assert said == ["the ledger's tables are made", "up to date (were version 1)"]
    found = rig.rows("select kind, host from qmpsnap_presence order by kind")
    assert found == [("api", "rig"), ("volume", "rig@nfs1")]


def _db_sync(config: Path) -> str:
    command = [sys.executable, "-m", "qmpsnap", "cinder", "db-sync", "--config-file", str(config)]
    return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()


@on_both
def test_volumes_at_once(rig: Rig) -> None:
    """The whole life of several, each at its own pace: on and off, commit and pull."""
    begun = [written(rig) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(story, rig, volume, guest) for volume, guest in begun]:
            done.result()


def story(rig: Rig, volume: str, guest: Guest) -> None:
    """A volume from its first snapshot to its last."""
    chain = [""]
    for number in (2, 3):
        snapshot, became, _ = rig.snapshot(volume)
        assert became == "available"
        chain.insert(0, snapshot)
        guest.io(f"write -P {number} {number - 1}M 1M")
        check(rig, volume, chain, guest)
    newer, older, _ = chain
    assert rig.delete(older)[0] is None  # a commit
    check(rig, volume, [newer, ""], guest)
    assert rig.delete(newer)[0] is None  # a pull
    check(rig, volume, [newer], guest)
    guest.detach()
    offline, became, _ = rig.snapshot(volume)
    assert became == "available"
    check(rig, volume, [offline, newer])
    assert rig.delete(offline)[0] is None
    check(rig, volume, [newer])
    assert all(holds(rig, volume, n, f"{n - 1}M", "1M") for n in (1, 2, 3))


@on_both
def test_the_api_dies_before_it_wakes_anybody(rig: Rig) -> None:
    taken_up_after(rig, "wake")


@on_postgresql
def test_the_volume_service_dies_after_the_switch(rig: Rig) -> None:
    taken_up_after(rig, "recorded")


def taken_up_after(rig: Rig, point: str) -> None:
    """One of the processes dies at a create and at a delete, which compute has finished."""
    volume, guest = written(rig)
    body = {"snapshot": {"volume_id": volume, "force": True}}
    dies_at(rig, point, "POST", "/snapshots", body, "3.50")
    ((snapshot,),) = rig.rows("select id from snapshots where volume_id = ?", volume)
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "available")
    guest.io("write -P 2 1M 1M")
    check(rig, volume, [snapshot, ""], guest)
    dies_at(rig, point, "DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    check(rig, volume, [snapshot], guest)
    guest.detach()
    assert holds(rig, volume, 1, "0", "1M")
    assert holds(rig, volume, 2, "1M", "1M")


@on_postgresql
def test_an_offline_delete_is_taken_up(rig: Rig) -> None:
    volume, guest = written(rig)
    guest.detach()
    snapshot, _, _ = rig.snapshot(volume)
    dies_at(rig, "committed", "DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    check(rig, volume, [""])
    assert holds(rig, volume, 1, "0", "1M")


@on_postgresql
def test_the_whole_volume_service_is_killed_while_compute_is_at_work(rig: Rig) -> None:
    volume, guest = written(rig)
    rig.nova("POST", "delay", {"create": 600})
    try:
        snapshot = begun(rig, volume)
        rig.stop("cinder-volume", signal.SIGKILL)
    finally:
        rig.nova("POST", "delay", {"create": 0})
        rig.nova("POST", "release")
    read_until(lambda: rig.progress(snapshot), lambda it: it == ("creating", "90%"))
    rig.start("cinder-volume")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "available")
    check(rig, volume, [snapshot, ""], guest)
    guest.detach()


@on_both
def test_the_database_is_away_while_the_volume_service_waits(rig: Rig, server: Server) -> None:
    """It ends all connections, and takes none until that is noticed; the row never says error."""
    volume, guest = written(rig)
    rig.nova("POST", "delay", {"create": 600})
    try:
        snapshot = begun(rig, volume)
        with server.away():
            log, noticed = rig.folder / "log/cinder.log", f"{snapshot} is waited for, without"
            read_until(lambda: noticed in log.read_text(errors="replace"), bool)
    finally:
        rig.nova("POST", "delay", {"create": 0})
        rig.nova("POST", "release")
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == "available"
    check(rig, volume, [snapshot, ""], guest)
    guest.detach()


def begun(rig: Rig, volume: str) -> str:
    """A snapshot that compute has been asked for."""
    rig.nova("GET", "log")  # what was said before
    snapshot = rig.begin_snapshot(volume)
    asked(rig, "POST")
    return snapshot
