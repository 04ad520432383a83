"""A QEMU without libvirt has no definition that could go back: the way that is told is tried."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.rig import images
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig


@pytest.mark.parametrize("options", [(), ("--plan",)], ids=["revert", "plan"])
def test_it_is_refused_with_the_way(make_rig: MakeRig, options: tuple[str, ...]) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        then = images.sha256_of_bytes(rig.folder / BASE)
        said = rig.cli("revert", DISK, "s1", "--as", "again", *options)
        assert said.code == 4, said
        assert "in its memory" in said.err
        assert rig.files() == [f"{BASE}.s1", BASE]
        assert not (rig.folder / f"{BASE}.again").exists()
        rig.kill()
        (way_out,) = re.findall(r"`(qemu-img create [^`]+)`", said.err)
        subprocess.run(way_out.split(), check=True, capture_output=True)
        assert images.sha256_of(str(rig.folder / f"{BASE}.again"), "qcow2") == then
