"""A file that QEMU has open by two formats, one over the other: no header can say that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layouts.layout import Image
from tests.layouts.running import Kept
from tests.rig.disks import DiskSpec
from tests.rig.rig import BASE, DISK, MIB, SERIAL
from tests.rig.roads import direct_rig
from tests.rig.situations import situation

pytestmark = pytest.mark.qemu
KEY = "secret,id=key,data=correct-horse"
IMAGES = {
    "qcow2": Image(name=BASE, format="qcow2"),
    "luks": Image(name=BASE, format="luks", options="key-secret=key,iter-time=10", object=KEY),
}
MORE = {"qcow2": {}, "luks": {"key-secret": "key"}}
SAYS = {"qcow2": "by two formats, one over the other", "luks": "is encrypted"}


@situation(
    "QEMU has a file open by two formats, one over the other: raw over LUKS, raw over qcow2",
    happens="refused, and its format is called unknown: whoever opens it by one of them reads other "
    "bytes, and an overlay over LUKS would hold in plain what the guest writes",
    code=4,
    then="Start the guest with one format node for each file.",
)
@pytest.mark.parametrize("inner", IMAGES)
def test_nothing_is_done_on_it(inner: str, tmp_path: Path) -> None:
    share, kept = tmp_path / "share", tmp_path / "kept"
    share.mkdir()
    kept.mkdir()
    Kept(kept).put(IMAGES[inner], share)
    nodes = (
        {"driver": "file", "node-name": "file", "filename": str(share / BASE)},
        {"driver": inner, "node-name": "inner", "file": "file", **MORE[inner]},
        {"driver": "raw", "node-name": "outer", "file": "inner"},
    )
    spec = DiskSpec(blockdevs=nodes, root="outer", id=DISK, serial=SERIAL)
    with direct_rig(share, spec, ["-object", KEY]) as rig:
        rig.guest.write(DISK, MIB // 2, 65536, 7)
        (layer,) = rig.disk().layers
        assert (layer.path, layer.format, layer.verdict) == (str(share / BASE), None, "unknown")
        said = rig.cli("create", DISK, "s1")
        assert said.code == 4, said
        assert SAYS[inner] in said.err
        assert sorted(path.name for path in share.glob(f"{BASE}*")) == [BASE]
        (found,) = rig.cli("verify", "-o", "json").json["findings"]
        assert found["id"] == "format-unknown"
        assert "by two formats, one over the other" in found["message"]
