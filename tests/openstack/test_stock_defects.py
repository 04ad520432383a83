"""Defects of Nova 34 with Cinder 29, both unmodified; the day upstream mends one is to be noticed."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Final

import libvirt
import pytest

from tests.openstack.guest_header import with_header
from tests.openstack.retried import retried_at_once
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked

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


def failed_deletion(rig: Rig, guest: Guest) -> str:
    """Take a snapshot, and ask to delete it when the guest is gone; returns its id."""
    snapshot, became, _ = rig.snapshot(guest.volume)
    assert became == "available"
    assert rig.ended("create")[1] is None
    guest.domain.destroy()
    guest.domain.undefine()
    return snapshot


def fails_to_delete(rig: Rig, snapshot: str) -> None:
    """Delete a snapshot in vain, and set its state by hand once Cinder's driver has noticed."""
    assert rig.delete(snapshot)[0] == "error_deleting"
    assert rig.progress(snapshot)[1] == "90%"
    log = rig.folder / "log/cinder.log"
    read_until(
        lambda: log.read_text(errors="replace"),
        lambda it: f"Unable to delete snapshot {snapshot}" in it,
    )
    body = {"os-reset_status": {"status": "error"}}
    rig.volumes("POST", f"/snapshots/{snapshot}/action", body)


def test_a_stale_90_percent_unlinks_the_base_before_nova_has_begun(stock: Rig) -> None:
    """D1: the failed try leaves it in the row, and the next one takes it for its own end."""
    with attached(stock) as guest:
        snapshot = failed_deletion(stock, guest)
        fails_to_delete(stock, snapshot)
        guest.start()
        stock.nova("POST", "delay", {"delete": 600})
        try:
            assert stock.delete(snapshot)[0] is None
        finally:
            stock.nova("POST", "delay", {"delete": 0})
        assert not (stock.share / f"volume-{guest.volume}").exists()
        assert len(guest.live_chain()) == 2
    stock.restart("compute", signal.SIGKILL)  # the call that waits there


def test_a_retry_at_once_ends_the_first_try_and_the_base_is_unlinked(stock: Rig) -> None:
    """D1b."""
    with attached(stock) as guest:
        snapshot = failed_deletion(stock, guest)
        with retried_at_once(stock, snapshot):
            assert stock.delete(snapshot)[0] is None
        assert not (stock.share / f"volume-{guest.volume}").exists()


def test_a_header_that_the_guest_wrote_shows_it_other_data(stock: Rig, tmp_path: Path) -> None:
    """D3: the volume is raw, and from the next start on it is opened as qcow2."""
    volume = with_header(stock, tmp_path)
    guest = Guest(stock, volume)
    guest.start()
    guest.io("write -P 7 512M 1M")
    snapshot, became, _ = stock.snapshot(volume)
    assert became == "available"
    assert stock.ended("create")[1] is None
    guest.stop()
    guest.start()
    name = f"volume-{volume}"
    assert guest.live_chain() == [(f"{name}.{snapshot}", "qcow2"), (name, "qcow2")]
    assert not guest.reads(7, "512M", "1M")
    guest.close()


@pytest.mark.parametrize(
    "backing", ["/etc/passwd", "volume-{volume}.abc"], ids=["backing", "ownid"]
)
def test_a_header_with_a_backing_file_makes_the_volume_unusable(
    stock: Rig, tmp_path: Path, backing: str
) -> None:
    """D3."""
    volume = with_header(stock, tmp_path, "-u", "-b", backing, "-F", "raw")
    with attached(stock, volume):
        assert stock.snapshot(volume)[1] == "error"


def test_a_volume_without_a_format_is_switched_and_forgotten(stock: Rig) -> None:
    """D4: and the deletion of the snapshot that failed leaves it so."""
    with attached(stock) as guest:
        stock.rows("delete from volume_admin_metadata where volume_id = ?", guest.volume)
        snapshot, became, _ = stock.snapshot(guest.volume)
        assert became == "error"
        assert stock.info(guest.volume) is None
        assert stock.delete(snapshot)[0] is None
        assert guest.live_chain()[0] == (f"volume-{guest.volume}.{snapshot}", "qcow2")
        assert stock.info(guest.volume) is None


def test_a_raw_volume_is_called_qcow2_after_a_deletion_that_failed(stock: Rig) -> None:
    """D7."""
    with attached(stock) as guest:
        snapshot = failed_deletion(stock, guest)
        fails_to_delete(stock, snapshot)
        guest.detach()
        assert stock.delete(snapshot)[0] is None
        assert stock.metadata(guest.volume)["format"] == "qcow2"
        assert (stock.share / f"volume-{guest.volume}").read_bytes()[:4] != b"QFI\xfb"


def test_nothing_is_sent_of_a_guest_that_is_gone(stock: Rig) -> None:
    volume = stock.create_volume()
    guest = Guest(stock, volume)
    guest.start()
    guest.close()
    snapshot = stock.begin_snapshot(volume)
    assert "InstanceNotRunning" in (stock.ended("create")[1] or "")
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
    asked(stock, "POST")
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
