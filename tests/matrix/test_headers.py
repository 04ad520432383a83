"""Headers that are wrong, mended by every release's QEMU and libvirt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.layouts_libvirt.layout import SHARE, File, Layout, Snapshot, disk
from tests.layouts_libvirt.running import running
from tests.rig import headers, images
from tests.rig.disks import raw_disk
from tests.rig.headers import COMMIT, PULL, recorded, with_format, without_format
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, Said, assert_sound
from tests.rig.roads import direct_rig

_LAYOUT: Final = Layout(
    name="header",
    files=(File(name=BASE),),
    disks=disk("vda", "raw", BASE),
    steps=(Snapshot("vda", f"{BASE}.s1"),),
    truth={"vda": ((f"{BASE}.s1", "qcow2"), (BASE, "raw"))},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with a raw file."""
    folder = tmp_path / "share"
    folder.mkdir()
    images.create_raw(folder / BASE, SIZE)
    return folder


def _holds(rig: Rig, content: str) -> None:
    assert_sound(rig.disk())
    assert rig.guest.read_sha256(DISK) == content


@pytest.mark.parametrize("request_", [COMMIT, PULL])
@pytest.mark.parametrize("depth", [3, 4])
def test_by_qmp(folder: Path, depth: int, request_: Any) -> None:
    """Of the active layer and, by a commit in a chain of four, of a lower one."""
    with direct_rig(folder, raw_disk(folder / BASE, DISK, SERIAL)) as rig:
        rig.grow(depth)
        content = rig.guest.read_sha256(DISK)
        before = {layer.file: layer.node_details for layer in rig.disk().layers}
        above = f"{BASE}.s2" if request_ is COMMIT else f"{BASE}.s{depth - 1}"
        done = headers.deleted(rig, request_, folder / above, with_format("qcow2"))
        assert len(done.repaired) == 1
        assert done.notes == ()
        for layer in rig.disk().layers:
            was = before[layer.file]
            assert was is not None
            assert layer.node_details is not None
            assert layer.node_details.read_only == was.read_only
        _holds(rig, content)


def test_by_qmp_over_a_base_without_a_raw_node(folder: Path) -> None:
    """With `backing-mask-protocol` (QEMU 9.0) it is mended; before, it is told."""
    bare = raw_disk(folder / BASE, DISK, SERIAL, raw_node=False)
    with direct_rig(folder, bare) as rig:
        rig.grow(2)
        without_format(folder / f"{BASE}.s1")
        said = rig.cli("create", DISK, "new", "-o", "json")
        assert said.code == 0, said
        mended = recorded(folder / f"{BASE}.s1") == (BASE, "raw")
        assert len(said.json["repaired"]) == mended
        assert ("would record 'file'" in said.err) == (not mended)


def test_by_libvirt(connection: Any, cli: Callable[..., Said]) -> None:
    with running(connection, _LAYOUT) as guest:
        active = Path(guest.places[SHARE], f"{BASE}.s1")
        name = guest.domain.name()
        without_format(active)
        said = cli("create", name, "vda", "new", "-o", "json")
        assert said.code == 0, said
        (repaired,) = said.json["repaired"]
        assert "records no backing format" in repaired
        assert recorded(active)[1] == "raw"
        assert cli("delete", name, "vda", "new").code == 0
