"""`qmpsnap cinder`: a share is taken over, checked, and given back."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest

from qmpsnap.ledger.chain import ChainUnknown
from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.seen import check, formats


def cinder(rig: Rig, *words: str) -> tuple[int, Any]:
    """Run a command where the share is mounted; its exit code and document."""
    pid = (rig.folder / "init.pid").read_text()
    enter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--"]
    command = [sys.executable, "-m", "qmpsnap", "cinder", *words]
    config = ["--config-file", str(rig.folder / "cinder.conf")]
    done = subprocess.run(
        [*enter, *command, *config], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if "json" in words else done.stdout


def test_a_share_of_stock_volumes_is_taken_over_and_given_back(stock: Rig) -> None:
    rig = stock
    plain, deep, old = rig.create_volume(), rig.create_volume(), rig.create_volume()
    guest = Guest(rig, deep)
    guest.start()
    guest.io("write -P 3 0 1M")
    snapshot, became, _ = rig.snapshot(deep)
    assert became == "available"
    rig.rows("delete from volume_admin_metadata where volume_id = ?", old)
    failed = _failed(rig)
    assert cinder(rig, "db-sync")[0] == 0
    code, found = cinder(rig, "import", "-o", "json")
    assert code == 3
    unknown = {one["volume"]: one for one in found["volumes"]}
    assert unknown[old]["result"] == "unknown"
    assert "--place left" in unknown[failed]["remedy"]
    assert formats(rig, plain) == {"": "raw"}
    assert formats(rig, deep) == {snapshot: "qcow2", "": "raw"}
    assert cinder(rig, "import", "-o", "json")[1]["counts"]["imported"] == 0  # again
    kinds = {one["kind"] for one in cinder(rig, "check", "-o", "json")[1]["findings"]}
    assert {"stock-driver", "unknown-format", "unsure"} <= kinds
    with rig.configured(pairings.OUR_CINDER, "cinder"):
        Guest(rig, failed)
        check(rig, failed, [""])
        check(rig, deep, [snapshot, ""], guest)
        assert rig.delete(snapshot)[0] is None
        check(rig, deep, [snapshot], guest)
        second, became, _ = rig.snapshot(deep)
        assert became == "available"
        services = cinder(rig, "status", "-o", "json")[1]["services"]
        assert {one["kind"] for one in services} == {"api", "volume"}
        rig.rows("update volume_admin_metadata set value = 'raw' where volume_id = ?", deep)
        code, found = cinder(rig, "export", "-o", "json")
        assert code == 3  # the one that nobody states
    assert rig.metadata(deep) == {"format": "qcow2", "base_format": "qcow2"}
    cinder(rig, "import", "--again", "-o", "json")  # what other tests have done on this rig, too
    third, became, _ = rig.snapshot(deep)  # by stock
    assert became == "available"
    assert cinder(rig, "import", "--again", "-o", "json")[1]["counts"]["imported"] == 1
    assert list(formats(rig, deep)) == [third, second, snapshot]
    guest.close()


def _failed(rig: Rig) -> str:
    """
    A volume with the file of a snapshot that Nova has failed to take, and that was deleted since.

    Stock makes it, asks Nova, and writes `.info` and the row only when Nova has done its part.
    """
    volume = rig.create_volume()
    name = f"volume-{volume}"
    words = ["-f", "qcow2", "-b", name, "-F", "raw", str(rig.share / f"{name}.{uuid.uuid4()}")]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    return volume


def test_volumes_of_another_back_end_are_left_alone(stock: Rig) -> None:
    """SQL's LIKE takes `_` for any character, and SQLite and MySQL capitals for small letters."""
    volume = stock.create_volume()
    ((host,),) = stock.rows("select host from volumes where id = ?", volume)
    assert cinder(stock, "db-sync")[0] == 0
    stock.rows("update volumes set host = ? where id = ?", host.swapcase(), volume)
    cinder(stock, "import", "--again", "-o", "json")
    with pytest.raises(ChainUnknown):
        formats(stock, volume)
    stock.rows("update volumes set host = ? where id = ?", host, volume)
    cinder(stock, "import", "--again", "-o", "json")
    assert formats(stock, volume) == {"": "raw"}
