"""Under libvirt, and what libvirt has no call for; the rest in `tests/live/test_headers.py`."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from qmpsnap.operations.outcome import HeaderWrong
from tests.rig import images
from tests.rig.headers import COMMIT, deleted, recorded, with_format
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig


@remedy("ActiveHeaderOnly", "HeaderWrong")
def test_of_a_lower_layer_is_not_for_libvirt(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(4)
        content = rig.guest.read_sha256(DISK)
        spoiled = rig.folder / f"{BASE}.s2"
        with pytest.raises(HeaderWrong, match="libvirt can write the header of the active") as said:
            deleted(rig, COMMIT, spoiled, with_format("qcow2"))
        assert f"-b {BASE} -F raw {rig.folder}/{BASE}.s2" in said.value.way_out
        assert rig.files() == [f"{BASE}.s3", f"{BASE}.s2", BASE]
        rig.guest.qemu_io(DISK, "flush")
        rig.kill()
        subprocess.run(shlex.split(said.value.command), check=True)  # when the guest is off
        assert recorded(spoiled) == (BASE, "raw")
        assert images.sha256_of(rig.folder / f"{BASE}.s3", "qcow2") == content
