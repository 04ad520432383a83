"""What `chain` and `list` say of the files themselves: how large they are, and since when."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.rig.rig import BASE, DISK, SIZE, run_cli
from tests.rig.roads import MakeRig


def born(path: Path) -> str | None:
    """When a file was made, as coreutils tell it; None where its file system does not."""
    said = subprocess.run(
        ["stat", "-c", "%W", str(path)], capture_output=True, text=True, check=True
    )
    seconds = int(said.stdout)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else None


@pytest.mark.parametrize("base", ["raw", "qcow2"], indirect=True)
def test_sizes_and_dates(make_rig: MakeRig, base: str) -> None:
    with make_rig(base) as rig:
        rig.grow(3)
        (disk,) = rig.cli("chain", "-o", "json").json["disks"]
        for layer in disk["layers"]:
            path = Path(layer["path"])
            status = path.stat()
            assert (layer["virtual_size"], layer["allocated"]) == (SIZE, status.st_blocks * 512)
            modified = datetime.fromtimestamp(int(status.st_mtime), tz=UTC)
            assert layer["modified"] == f"{modified:%Y-%m-%dT%H:%M:%SZ}"
            assert layer["created"] == born(path)
        newest, _ = rig.cli("list", "-o", "json").json["snapshots"]
        assert newest["created"] == disk["layers"][0]["created"]
        assert newest["overlay_allocated"] == disk["layers"][0]["allocated"]
        assert newest["data_allocated"] == disk["layers"][1]["allocated"]
        assert newest["virtual_size"] == SIZE
        shown = rig.cli("chain", DISK).out
        assert " of 4 MiB" in shown
        assert (disk["layers"][0]["created"] or "-")[:10] in shown


def test_a_recording_has_no_files(make_rig: MakeRig, tmp_path: Path) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        assert rig.cli("record", str(tmp_path / "t")).code == 0
    said = run_cli(["--replay", str(tmp_path / "t"), "chain", "-o", "json"])
    for layer in said.json["disks"][0]["layers"]:
        assert (layer["allocated"], layer["created"], layer["modified"]) == (None, None, None)
    said = run_cli(["--replay", str(tmp_path / "t"), "list"])
    assert f"{BASE}.s1" in said.out
