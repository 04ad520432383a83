"""The commands of the page "Coming from virsh, qemu-img, Nova", each column on a guest of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from qmpsnap.monitor.virt import open_connection
from tests.rig import daemon as libvirtd
from tests.rig import images
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.rig import MIB, run_cli
from tests.rig.tiers import missing

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "howto" / "coming-from-other-tools.md"
FOLDER = "/var/lib/libvirt/images"
_OFF = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices><disk type='file' device='disk'>
    <driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/>
  </disk></devices>
</domain>
"""


def rows(tool: str) -> list[tuple[str, str]]:
    """The commands of a table, those of the other tool and ours."""
    table = PAGE.read_text().split(f"| task | {tool} |")[1].split("\n\n")[0]
    return re.findall(r"^\| [^|]+ \| `([^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE)


def test_the_tables_are_found() -> None:
    assert len(rows("virsh")) == 10
    assert len(rows("qemu-img")) == 3


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A libvirtd for all tests here."""
    for program in ("libvirtd", "virsh"):
        if libvirtd.which(program) is None and shutil.which(program) is None:
            missing("libvirt", "install Debian's libvirt-daemon and libvirt-clients")
    with libvirtd.running() as daemon:
        yield daemon


@dataclass
class Column:
    """One guest, and the commands of one column."""

    daemon: Daemon
    name: str
    folder: Path

    def run(self, command: str) -> str:
        """Run a command of the page for this guest; returns what it printed."""
        words = [word.replace(FOLDER, str(self.folder)) for word in shlex.split(command)]
        words = [self.name if word == "web1" else word for word in words]
        if words[0] == "qmpsnap":
            words[:1] = [sys.executable, "-m", "qmpsnap"]
        if words[0] == "virsh":
            words[1:1] = ["-c", self.daemon.uri]
        environment = {
            **os.environ,
            "LIBVIRT_DEFAULT_URI": self.daemon.uri,
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def chain(self) -> list[tuple[str, str]]:
        said = run_cli(["-c", self.daemon.uri, "chain", self.name, "vda", "-o", "json"])
        assert said.code == 0, said
        return [(one["file"], one["format"]) for one in said.json["disks"][0]["layers"]]


@pytest.fixture
def columns(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[list[Column]]:
    """Two guests that are alike, each in a folder of its own."""
    made, machines = [], []
    for who in ("theirs", "ours"):
        folder = daemon.folder / f"{request.node.name}-{who}"
        folder.mkdir()
        images.create_raw(folder / "volume-1", 4 * MIB)
        daemon.give(folder)
        made.append(Column(daemon, f"{request.node.name}-{who}", folder))
    try:
        for one in made:
            machines.append(
                DaemonMachine(daemon, one.name, one.folder / "volume-1", "vda", f"s-{one.name}")
            )
        yield made
    finally:
        for machine in machines:
            machine.destroy()


def test_virsh(columns: list[Column]) -> None:
    theirs, ours = columns
    depths = []
    for other, own in rows("virsh"):
        theirs.run(other)
        ours.run(own)
        assert theirs.chain() == ours.chain(), (other, own)
        depths.append(len(ours.chain()))
    assert depths == [1, 1, 2, 3, 4, 4, 3, 2, 2, 1], "and each row has done something"


def test_qemu_img(daemon: Daemon) -> None:
    made = []
    with closing(open_connection(daemon.uri)) as connection:
        for who in ("theirs", "ours"):
            folder = daemon.folder / f"off-{who}"
            folder.mkdir()
            images.create_raw(folder / "volume-1", 4 * MIB)
            images.create_qcow2(folder / "volume-1.monday", 4 * MIB, "volume-1", "raw")
            write = "write -P 7 1M 64k"
            overlay = folder / "volume-1.monday"
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, overlay], check=True)
            connection.defineXML(_OFF.format(name=f"off-{who}", path=overlay))
            daemon.give(folder)
            made.append(Column(daemon, f"off-{who}", folder))
        theirs, ours = made
        try:
            for other, own in rows("qemu-img"):
                theirs.run(other)
                ours.run(own)
            bases = [(one.folder / "volume-1").read_bytes() for one in made]
            assert bases[0] == bases[1]
            assert bases[0][MIB : MIB + 65536] == b"\7" * 65536
            assert ours.chain() == [("volume-1", "raw")], "and the definition has followed"
            assert theirs.chain()[0][0] == "volume-1.monday", "as the page says: it has not"
        finally:
            for one in made:
                connection.lookupByName(one.name).undefine()
