"""By QMP, what only this road can, and what is left when it is killed; the rest in `tests/live/test_headers.py`."""

from __future__ import annotations

import pytest

from qmpsnap.operations import snapshot
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.doors import Killed, dying_at
from tests.rig.headers import COMMIT, deleted, masks, recorded, with_format, without_format
from tests.rig.rig import BASE, DISK, SERIAL, assert_sound
from tests.rig.roads import MakeRig


def test_of_a_lower_layer(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(4)
        before = {layer.node: layer.node_details for layer in rig.disk().layers}
        content = rig.guest.read_sha256(DISK)
        done = deleted(rig, COMMIT, rig.folder / f"{BASE}.s2", with_format("qcow2"))
        assert len(done.repaired) == 1
        disk = rig.disk()
        assert_sound(disk)
        for layer in disk.layers:
            was = before[layer.node]
            assert layer.node_details is not None
            assert was is not None
            assert layer.node_details.read_only == was.read_only
        assert rig.guest.read_sha256(DISK) == content


def test_over_a_base_without_a_raw_node(make_rig: MakeRig) -> None:
    """QEMU before 9.0 would write `file`: then nothing is written, and the way out is said."""
    with make_rig("raw-without-node") as rig:
        rig.grow(2)
        without_format(rig.folder / f"{BASE}.s1")
        said = rig.cli("create", DISK, "new", "-o", "json")
        assert said.code == 0, said
        if masks(rig, "block-stream"):
            assert len(said.json["repaired"]) == 1
            assert recorded(rig.folder / f"{BASE}.s1") == (BASE, "raw")
            return
        (note,) = said.json["notes"]
        assert "would record 'file'" in note
        assert f"-b {BASE} -F raw {rig.folder}/{BASE}.s1" in note
        assert recorded(rig.folder / f"{BASE}.s1") == (BASE, None)


CREATE = CreateRequest(disk=SERIAL, new_file=f"{BASE}.new", snapshot="new")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("does", [Does.START, Does.FLUSH])
def test_tool_that_is_killed(make_rig: MakeRig, does: Does, when: str) -> None:
    """Whenever: the header is the old or the new one, no job is left, and the next command goes."""
    with make_rig("raw") as rig:
        rig.grow(2)
        path = rig.folder / f"{BASE}.s1"
        without_format(path)
        content = rig.guest.read_sha256(DISK)
        with rig.host() as host, pytest.raises(Killed):
            snapshot.create(dying_at(host, does, when), CREATE)
        assert recorded(path) in [(BASE, None), (BASE, "raw")]
        while rig.guest.qmp("query-jobs"):
            pass
        assert rig.guest.read_sha256(DISK) == content
        rig.create("new")
        assert_sound(rig.disk())


def test_qemu_that_is_killed(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        path = rig.folder / f"{BASE}.s1"
        without_format(path)
        content = rig.guest.read_sha256(DISK)
        rig.guest.qemu_io(DISK, "flush")
        arguments = {"job-id": "r", "device": rig.guest.active_node(DISK), "backing-file": BASE}
        base = rig.disk().layers[1].node
        rig.guest.qmp("block-stream", {**arguments, "base-node": base})
        rig.kill()
        assert recorded(path) in [(BASE, None), (BASE, "raw")]
        assert images.sha256_of(path, "qcow2") == content
