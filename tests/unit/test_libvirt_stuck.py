"""A libvirt that does not list its guests, or does not tell what one of them names."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.libvirt import neighbours
from qmpsnap.guests.libvirt.neighbours import surroundings_of
from qmpsnap.monitor.passthrough import MonitorBusy
from tests.unit import samples
from tests.unit.fake_libvirt import Domain, install

STUCK = "libvirt does not list its guests: one is stuck"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "base").touch()
    return samples.disk(layers=(samples.layer("base", "raw", path=str(tmp_path / "base")),))


@pytest.mark.parametrize("call", [1, 2], ids=["list", "ask"])
@pytest.mark.parametrize("is_left", [False, True])
def test_what_it_would_name_may_be_any_file_that_is_removed_next(
    disk: Disk, call: int, is_left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    calls: list[float] = []

    def in_time(function: object, timeout: float) -> object:
        calls.append(timeout)
        if len(calls) == call:
            raise MonitorBusy("no answer")
        return function()  # type: ignore[operator]

    monkeypatch.setattr(neighbours, "in_time", in_time)
    domain = Domain(listAllDomains=[], listAllSnapshots=[], listAllCheckpoints=[])
    path = str(disk.layers[0].path)
    around = surroundings_of(domain, disk, [path] if is_left else None, runs=False)
    assert around.readers == ({path: (STUCK,)} if is_left else {})
    assert STUCK in around.notes
    assert calls == [neighbours.LIST_TIMEOUT_S, neighbours.ASK_TIMEOUT_S][:call]
