"""A disk whose base is on an NBD server that goes away: it is refused, and the others go on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import model, steps
from tests.chaos.conftest import GetRoad
from tests.chaos.model import Disk, read_file
from tests.chaos.roads import DirectRoad, Road, Running, described
from tests.chaos.scenario import Scenario
from tests.rig import images
from tests.rig.beside import nbd_server
from tests.rig.disks import DiskSpec
from tests.rig.rig import MIB


class WithNetworkDisk(Road):
    """A guest that has one more disk than its model, an overlay over an NBD export."""

    def __init__(self, road: Road, disk: Disk) -> None:
        self.name = road.name
        self._road = road
        self._disk = disk

    @contextmanager
    def start(self, folder: Path, disks: Sequence[Disk]) -> Iterator[Running]:
        """See `Road.start`."""
        with self._road.start(folder, [*disks, self._disk]) as running:
            yield running


def over_nbd(socket: Path) -> DirectRoad:
    """The direct road; the base of `vdb` is what is served at `socket`."""

    def describe(disk: Disk) -> DiskSpec:
        spec = described(disk)
        if disk.id != "vdb":
            return spec
        server = {"type": "unix", "path": str(socket)}
        nbd = {"driver": "nbd", "server": server, "node-name": "vdb-1-file", "read-only": True}
        nodes = (nbd if one["node-name"] == "vdb-1-file" else one for one in spec.blockdevs)
        return replace(spec, blockdevs=tuple(nodes))

    return DirectRoad(describe)


@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_server_goes_away_in_mid_operation(get_road: GetRoad, tmp_path: Path, road: str) -> None:
    disk = model.build(tmp_path, 0, depth=4, base="raw", size=MIB, chance=random.Random(road))
    remote = model.build(tmp_path, 1, depth=1, base="raw", size=MIB, chance=random.Random(road))
    socket, base = tmp_path / "nbd", tmp_path / "volume-2"
    with nbd_server(socket, "-r", "-t", "-e", "4", "-f", "raw", str(base)) as server:
        remote.put_on("volume-2.s1")
        images.create_qcow2(tmp_path / "volume-2.s1", MIB, f"nbd+unix:///?socket={socket}", "raw")
        one = over_nbd(socket) if road == "direct" else get_road(road)
        with Scenario(WithNetworkDisk(one, remote), tmp_path, [disk]) as scenario:
            running = scenario.running

            def refused() -> None:
                for command in ("create", "delete"):
                    said = running.rig.cli(command, "vdb", "s1")
                    assert said.code == 4, said
                    assert "is not a file on this host" in said.err

            refused()
            scenario.do(steps.Create(disk=0, written=0, seed=1, form="nova"))
            with running.on_event("JOB_STATUS_CHANGE", server.kill):
                scenario.do(steps.Commit(disk=0, written=0, seed=2, top=2, base=4))
            server.wait()
            scenario.do(steps.Pull(disk=0, written=0, seed=3, base=None))
            refused()
            chain = json.loads(running.rig.cli("chain", "vdb", "-o", "json").out)
            formats = [layer["format"] for layer in chain["disks"][0]["layers"]]
            assert formats == ["qcow2", "raw"]
            running.quit()
            seen = read_file(disk.path(disk.active.file), disk.active.format)
            assert not model.difference(seen, bytes(disk.content))
