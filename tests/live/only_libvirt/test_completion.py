"""What is completed, with a real libvirt: no guest is tainted, no QEMU is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmpsnap.monitor.passthrough import PassthroughMonitor
from tests.rig import images
from tests.rig.defined import defined
from tests.rig.rig import DISK, SIZE
from tests.rig.roads import MakeRig
from tests.unit.test_completion import completed


def asked(*_arguments: object) -> None:
    """No look for a prompt does that."""
    raise AssertionError


def test_a_running_guest_and_one_that_is_off(
    connection: Any, tmp_path: Path, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.create_raw(tmp_path / "off", SIZE)
    with make_rig("raw") as rig, defined(connection, tmp_path / "off", "raw") as off:
        rig.grow(3)
        monkeypatch.setattr(PassthroughMonitor, "execute", asked)
        guests = completed(*rig.road, "chain", "")
        assert {rig.names[0], off.domain.name()} <= {*guests}
        assert completed(*rig.road, "chain", rig.names[0][:2])
        for name in (rig.names[0], off.domain.name()):
            assert completed(*rig.road, "chain", name, "") == [DISK]
        assert completed(*rig.road, "delete", rig.names[0], DISK, "") == ["s2", "s1"]
