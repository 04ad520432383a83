"""Under libvirt, and what libvirt has no call for; the rest in `tests/live/test_headers.py`."""

from __future__ import annotations

import pytest

from qmpsnap.operations.outcome import HeaderWrong
from tests.rig.headers import COMMIT, deleted, with_format
from tests.rig.rig import BASE
from tests.rig.roads import MakeRig


def test_of_a_lower_layer_is_not_for_libvirt(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(4)
        with pytest.raises(HeaderWrong, match="libvirt can write the header of the active") as said:
            deleted(rig, COMMIT, rig.folder / f"{BASE}.s2", with_format("qcow2"))
        assert f"-b {BASE} -F raw {rig.folder}/{BASE}.s2" in said.value.way_out
        assert rig.files() == [f"{BASE}.s3", f"{BASE}.s2", BASE]
