"""Who has gone on from a file, and what is kept, where files are named by symbolic links."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.formats.layers import Disk
from qmpsnap.journal.knowing import knowing
from qmpsnap.journal.since import gone_on_from
from qmpsnap.operations.guards import Surroundings
from tests.rig import images
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

SIZE = samples.MIB


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder that names a base and its overlay by links into another one, `store`."""
    store, folder = tmp_path / "store", tmp_path / "images"
    store.mkdir()
    folder.mkdir()
    images.create_raw(store / "base", SIZE)
    images.create_qcow2(store / "top", SIZE, "base", "raw")
    for name in ("base", "top"):
        (folder / name).symlink_to(f"../store/{name}")
    return folder


def test_own_files_are_not_taken_for_somebody_elses(links: Path) -> None:
    """The overlay is seen under the name that the link leads to as well."""
    paths = {f"{links}/base", f"{links}/top"}
    record: Any = SimpleNamespace(paths=paths, creates=(), files=())
    assert gone_on_from(record, [f"{links}/base"], lambda _: ()) == ""
    images.create_qcow2(links.parent / "store" / "theirs", SIZE, "base", "raw")
    assert gone_on_from(record, [f"{links}/base"], lambda _: ()).startswith(
        "theirs rests on base: "
    )


def test_what_is_kept_is_known_by_any_name(links: Path) -> None:
    """It is named once, as what `revert` has kept; and not as left over."""
    real = str(links.parent / "store" / "top")
    kept = SimpleNamespace(files=(f"{links}/top",), over=(f"{links}/base",))
    end = SimpleNamespace(kept=(kept,), ended=0.0, left=(), touched=())
    store: Any = SimpleNamespace(
        reverts=lambda: [SimpleNamespace(conclusion=end)],
        entries=lambda: [SimpleNamespace(conclusion=end)],
        mixing=lambda: [],
        open_entries=lambda: [],
    )
    disk: Disk = samples.disk(layers=(samples.layer("base", path=f"{links}/base"),))
    fake = FakeGuest(samples.guest(disk))
    base = f"{links}/base"
    fake.around = Surroundings(resting={base: (real,)}, older={base: (real, "/other")})
    around = knowing(fake, store).neighbours(disk)
    assert around.readers == {base: (f"{links}/top, which `revert` has kept",)}
    assert (around.resting, around.older) == ({}, {base: ("/other",)})
