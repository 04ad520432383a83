"""A chain so deep that QEMU would hold up its guest: with a limit as short as the chain is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import GuestWouldStall
from qmpsnap.monitor.socket import SocketMonitor
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.counting import Counting
from tests.rig.disks import qcow2_chain
from tests.rig.qemu_machine import QemuMachine
from tests.rig.remedies import remedy
from tests.rig.rig import run_cli

LAYERS = 20
LIMIT_S = 0.003
"""Between what 20 layers cost with plain names (1 ms) and with names that nest (5 ms)."""


@contextmanager
def deep_guest(folder: Path, *, relative: bool) -> Iterator[QemuMachine]:
    disk = qcow2_chain(make_chain(folder, "volume", LAYERS, relative=relative), "vda", "1234")
    with qemu_machine.run([disk], directory=folder) as guest:
        yield guest


@remedy("GuestWouldStall")
def test_relative_names(tmp_path: Path) -> None:
    with deep_guest(tmp_path, relative=True) as guest:
        with closing(Counting(SocketMonitor.connect(guest.qmp_path))) as monitor:
            host = QmpGuest(monitor, pid=guest.pid, max_stall_s=LIMIT_S)
            with pytest.raises(GuestWouldStall, match=f"{LAYERS} layers"):
                host.read()
        # Of block devices only a probe, which is refused.
        assert {*monitor.sent} == {"query-jobs", "x-debug-query-block-graph", "query-block"}
        assert monitor.refused == ["query-block"]
        road = ["--qmp", guest.qmp_path, "--max-stall"]
        before = sorted(path.name for path in tmp_path.iterdir())
        for command in (["chain"], ["verify"], ["create", "vda", "monday"]):
            said = run_cli([*road, str(LIMIT_S), *command])
            assert said.code == 4, said
            assert "--max-stall 1`" in said.err
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        said = run_cli([*road, "1", "chain", "-o", "json"])
        assert said.code == 0, said
        assert len(said.json["disks"][0]["layers"]) == LAYERS
        content = guest.read_sha256("vda")
        nulls = json.dumps({"type": "qcow2", "file_to_merge": None, "merge_target_file": None})
        pull = ["volume-snapshot-delete", "1234", "id", nulls]
        assert run_cli([*road, "1", *pull]).code == 0  # the chain is shorter then
        assert run_cli([*road, str(LIMIT_S), "create", "vda", "monday"]).code == 0
        assert guest.read_sha256("vda") == content


def test_names_as_qemu_has_them(tmp_path: Path) -> None:
    with (
        deep_guest(tmp_path, relative=False) as guest,
        closing(SocketMonitor.connect(guest.qmp_path)) as monitor,
    ):
        report = QmpGuest(monitor, pid=guest.pid, max_stall_s=LIMIT_S).read()
        assert len(report.disks[0].layers) == LAYERS
        # Who does not know the process cannot know the names.
        with pytest.raises(GuestWouldStall):
            QmpGuest(monitor, max_stall_s=LIMIT_S).read()


def test_what_has_begun_goes_on(tmp_path: Path) -> None:
    with deep_guest(tmp_path, relative=True) as guest:
        # Just enough for the first reading; with the overlay it is a layer more.
        with (
            closing(SocketMonitor.connect(guest.qmp_path)) as monitor,
            pytest.raises(GuestWouldStall) as caught,
        ):
            QmpGuest(monitor, max_stall_s=0).read()
        limit = str(caught.value.seconds)
        said = run_cli(["--qmp", guest.qmp_path, "--max-stall", limit, "create", "vda", "monday"])
        assert said.code == 0, said
        assert run_cli(["--qmp", guest.qmp_path, "--max-stall", limit, "chain"]).code == 4
