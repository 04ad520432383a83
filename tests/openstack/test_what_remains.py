"""What a stock Cinder still does wrong beside our compute side; docs/howto/openstack-compute.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.openstack.guest_header import with_header
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until


def test_d3_a_header_in_a_raw_volume_is_stated_as_raw_all_the_same(
    our_nova: Rig, tmp_path: Path
) -> None:
    """Cinder writes `qcow2` into the overlay's header, and our side corrects it before the switch."""
    volume = with_header(our_nova, tmp_path)
    guest = Guest(our_nova, volume)
    guest.start()
    guest.io("write -P 7 512M 1M")
    snapshot, became, _ = our_nova.snapshot(volume)
    assert became == "available"
    assert our_nova.ended("create")[1] is None
    assert guest.chain() == [(f"volume-{volume}.{snapshot}", "qcow2"), (f"volume-{volume}", "raw")]
    guest.stop()
    guest.start()
    assert guest.live_chain() == guest.chain()
    assert guest.reads(7, "512M", "1M")
    guest.close()


@pytest.mark.parametrize(
    "backing", ["/etc/passwd", "volume-{volume}.abc"], ids=["backing", "ownid"]
)
def test_d3_a_header_with_a_backing_file_makes_the_volume_unusable(
    our_nova: Rig, tmp_path: Path, backing: str
) -> None:
    """Cinder probes the base before it asks Nova, and gives up: nothing reaches the compute side."""
    volume = with_header(our_nova, tmp_path, "-u", "-b", backing, "-F", "raw")
    guest = Guest(our_nova, volume)
    guest.start()
    snapshot, became, _ = our_nova.snapshot(volume)
    assert became == "error"
    assert our_nova.updates(snapshot) == []
    assert guest.live_chain() == [(f"volume-{volume}", "raw")]
    guest.close()


def test_d4_a_volume_without_a_format_ends_in_error_and_the_guest_goes_on(our_nova: Rig) -> None:
    """Cinder fails after the switch and forgets the overlay; our side starts the guest from it."""
    volume = our_nova.create_volume()
    guest = Guest(our_nova, volume)
    guest.start()
    our_nova.rows("delete from volume_admin_metadata where volume_id = ?", volume)
    snapshot, became, _ = our_nova.snapshot(volume)
    assert our_nova.ended("create")[1] is None
    assert became == "error"
    assert our_nova.info(volume) is None
    assert guest.live_chain()[0] == (f"volume-{volume}.{snapshot}", "qcow2")
    guest.close()


def test_d7_a_failed_delete_calls_a_raw_volume_qcow2(our_nova: Rig) -> None:
    """Cinder writes it down before it asks Nova."""
    volume = our_nova.create_volume()
    guest = Guest(our_nova, volume)
    guest.start()
    snapshot, became, _ = our_nova.snapshot(volume)
    assert became == "available"
    our_nova.ended("create")
    guest.close()
    assert our_nova.delete(snapshot)[0] == "error_deleting"
    assert our_nova.updates(snapshot)[1:] == [({"status": "error_deleting", "progress": "0%"}, 202)]
    read_until(lambda: our_nova.metadata(volume).get("base_format"), lambda it: it == "qcow2")
