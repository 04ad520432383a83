"""Defects of Nova 34 with Cinder 29, both unmodified; the day upstream mends one is to be noticed."""

from __future__ import annotations

import signal
import threading
from typing import Final

import libvirt
import pytest

from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

SPINS_S: Final = 6.0
LOOKED_S: Final = 120.0
"""A service that only waits needs a second or two of the processor in this time."""


def test_a_pull_that_was_aborted_counts_as_done_and_the_data_are_unlinked(stock: Rig) -> None:
    volume = stock.create_volume()
    guest = Guest(stock, volume)
    guest.start()
    guest.io("write -P 7 0 256M")
    snapshot, status, _ = stock.snapshot(volume)
    assert status == "available"
    aborted = threading.Event()

    def abort() -> None:
        while not guest.domain.blockJobInfo("vda", 0):
            pass
        guest.domain.blockJobAbort("vda", 0)
        aborted.set()

    other = threading.Thread(target=abort)
    other.start()
    became, _ = stock.delete(snapshot)
    other.join()
    assert aborted.is_set()
    assert became is None
    assert stock.updates(snapshot) == [
        ({"status": "creating", "progress": "90%"}, 202),
        ({"status": "deleting", "progress": "90%"}, 202),
    ]
    assert not (stock.share / f"volume-{volume}").exists()
    guest.stop()
    with pytest.raises(libvirt.libvirtError, match="No such file"):
        guest.start()


def test_nothing_is_sent_of_a_guest_that_is_gone(stock: Rig) -> None:
    volume = stock.create_volume()
    guest = Guest(stock, volume)
    guest.start()
    guest.close()
    stock.nova("GET", "log")
    snapshot = stock.begin_snapshot(volume)
    said = read_until(
        lambda: stock.nova("GET", "log"), lambda it: any(x[0] == "create" for x in it)
    )
    assert "InstanceNotRunning" in said[-1][2]
    assert stock.progress(snapshot) == ("creating", "0%")
    assert stock.updates(snapshot) == []


def test_a_status_out_of_turn_makes_cinder_spin(stock: Rig) -> None:
    """D6: any project's member may send it, and Cinder then asks its database without a pause."""
    volume = stock.create_volume()
    guest = Guest(stock, volume)
    guest.start()
    stock.nova("POST", "delay", {"create": 5})
    stock.nova("GET", "log")
    snapshot = stock.begin_snapshot(volume)
    read_until(lambda: stock.nova("GET", "log"), bool)
    try:
        body = {"os-update_snapshot_status": {"status": "available", "progress": "100%"}}
        stock.volumes("POST", f"/snapshots/{snapshot}/action", body)
        begun = stock.processor_s("cinder")
        read_until(lambda: stock.processor_s("cinder") - begun, lambda it: it > SPINS_S, LOOKED_S)
        assert stock.info(volume) is None  # it has not gone on, and never will
    finally:
        stock.nova("POST", "delay", {"create": 0})
        stock.restart("cinder", signal.SIGKILL)
        guest.close()
