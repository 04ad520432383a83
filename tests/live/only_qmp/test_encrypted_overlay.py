"""An encrypted overlay that is there already, as qemu-img has made it: looked at without its key."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.door import take_file
from qmpsnap.guests.files.overlay import OverlayUnsuitable, look_at_overlay
from qmpsnap.guests.files.qemu_img import QemuImgFailed
from qmpsnap.journal.since import is_empty
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does, Step
from tests.layouts.layout import Image
from tests.layouts.running import Kept
from tests.rig.waiting import until
from tests.unit import samples

pytestmark = pytest.mark.qemu
KEY = "secret,id=key,data=correct-horse"
OVERLAY = Image(
    name="volume-1.new",
    format="qcow2",
    backing="volume-1",
    backing_format="qcow2",
    options="encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
    object=KEY,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Makes the file once: that takes seconds."""
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def plan(kept: Kept, tmp_path: Path) -> CreatePlan:
    """An overlay `volume-1.new` over an encrypted `volume-1` of 1 MiB, which nobody looks at."""
    (layer,) = samples.disk(base="qcow2").layers
    layer = replace(layer, path=str(tmp_path / "volume-1"), flags=("encrypted",), secret="5e")
    request = CreateRequest(disk="vda", new_file=OVERLAY.name, snapshot="new")
    kept.put(OVERLAY, tmp_path)
    return plan_create(samples.guest(samples.disk(layers=(layer,))), request)


def test_without_data(plan: CreatePlan) -> None:
    before = Path(plan.overlay).read_bytes()
    found = look_at_overlay(plan)
    assert (found.is_there, found.recorded) == (True, ("volume-1", "qcow2"))
    assert Path(plan.overlay).read_bytes() == before


def written(plan: CreatePlan) -> None:
    """Write into the overlay, as its guest would."""
    file = {"driver": "file", "filename": plan.overlay}
    opened = {"driver": "qcow2", "encrypt.key-secret": "key", "backing": None, "file": file}
    command = ["qemu-io", "--object", KEY, "-c", "write 0 4k", "json:" + json.dumps(opened)]
    subprocess.run(command, capture_output=True, check=True)


def test_with_data(plan: CreatePlan) -> None:
    written(plan)
    with pytest.raises(OverlayUnsuitable, match="it holds data already"):
        look_at_overlay(plan)


def test_with_a_table_that_is_wrong(plan: CreatePlan) -> None:
    """The first entry of its reference counts' table names nothing: whatever is new goes anywhere."""
    with open(plan.overlay, "r+b") as file:
        file.seek(48)
        table = int.from_bytes(file.read(8))
        file.seek(table)
        file.write(bytes(8))
    with pytest.raises(OverlayUnsuitable, match="it is corrupt"):
        look_at_overlay(plan)


@pytest.mark.parametrize("named", [("volume-1", "raw"), ("a longer name", "qcow2")])
@pytest.mark.parametrize("before", ["overlay", "no backing file"])
def test_its_header_is_written_as_by_qemu_img_with_the_key(
    plan: CreatePlan, tmp_path: Path, named: tuple[str, str], before: str
) -> None:
    """What a pull has taken out is named again, and nothing else changes."""
    if before != "overlay":
        by_qemu_img(plan.overlay, "", None)
    other = tmp_path / "other"
    shutil.copyfile(plan.overlay, other)
    by_qemu_img(str(other), *named)
    by_the_tool(plan.overlay, *named)
    assert Path(plan.overlay).read_bytes() == other.read_bytes()


def by_the_tool(path: str, name: str, format_: str) -> None:
    """Have the tool do it, through its door."""
    given = {"path": path, "backing": name, "backing-format": format_}
    take_file(Step(does=Does.REDEFINE, by="file", what="record-backing", arguments=given))


def by_qemu_img(path: str, name: str, format_: str | None) -> None:
    """Have qemu-img name the backing file; it has the key."""
    opened = f"driver=qcow2,file.filename={path},encrypt.key-secret=key"
    backing = ["-b", name, *(() if format_ is None else ("-F", format_))]
    command = ["qemu-img", "rebase", "-u", "--object", KEY, "--image-opts", *backing, opened]
    subprocess.run(command, capture_output=True, check=True)


def test_its_header_is_not_written_while_a_qemu_has_it_open(plan: CreatePlan) -> None:
    before = Path(plan.overlay).read_bytes()
    file = {"driver": "file", "filename": plan.overlay}
    opened = {"driver": "qcow2", "encrypt.key-secret": "key", "backing": None, "file": file}
    command = ["qemu-io", "--object", KEY, "json:" + json.dumps(opened)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as holder:
        until(lambda: in_use_by_qemu(plan.overlay))
        with pytest.raises(QemuImgFailed, match="a QEMU has it open"):
            by_the_tool(plan.overlay, "volume-1", "raw")
        assert holder.stdin is not None
        holder.stdin.close()
    assert Path(plan.overlay).read_bytes() == before


def test_what_an_interrupted_operation_asks(plan: CreatePlan) -> None:
    """Whether the guest may have written to it tells whether the switch was carried out."""
    assert is_empty(plan.overlay)
    written(plan)
    assert not is_empty(plan.overlay)
