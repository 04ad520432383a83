"""A guest that somebody started by hand, with `-drive` and without a format."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from qmpsnap.cli.main import cli
from tests.rig import images
from tests.rig.waiting import listens, until


@pytest.mark.parametrize(
    ("options", "expected"), [("", True), (",format=raw", False), (",id=d0", True)]
)
def test_flag(tmp_path: Path, options: str, expected: bool) -> None:
    images.create_raw(tmp_path / "disk", 1024 * 1024)
    socket = tmp_path / "qmp"
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-S", "-display", "none"]
    command += ["-qmp", f"unix:{socket},server=on,wait=off"]
    command += ["-drive", f"file={tmp_path}/disk{options}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: listens(socket) or process.poll() is not None)
            done = CliRunner().invoke(cli, ["--qmp", str(socket), "chain", "-o", "json"])
        finally:
            process.kill()
    assert done.exit_code == 0, done.output
    disks = json.loads(done.stdout)["disks"]
    (flags,) = [layer["flags"] for disk in disks for layer in disk["layers"]]
    assert ("probed" in flags) is expected
