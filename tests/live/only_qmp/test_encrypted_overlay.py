"""An encrypted overlay that is there already, as qemu-img has made it: looked at without its key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.guests.files.overlay import OverlayUnsuitable, look_at_overlay
from qmpsnap.journal.since import is_empty
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
from tests.layouts.layout import Image
from tests.layouts.running import Kept
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


def test_what_an_interrupted_operation_asks(plan: CreatePlan) -> None:
    """Whether the guest may have written to it tells whether the switch was carried out."""
    assert is_empty(plan.overlay)
    written(plan)
    assert not is_empty(plan.overlay)
