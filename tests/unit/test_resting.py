"""Images beside a chain that rest on it by their headers: which count, and which do not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files import census, qemu_img, resting
from qmpsnap.guests.files.census import images_naming
from qmpsnap.guests.files.resting import Resting, resting_on
from tests.unit import samples

NOTHING = Resting({}, {})


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Three layers that are there, the upper ones with headers, all written long ago."""
    below = None
    layers = []
    for layer in reversed(samples.disk(3).layers):
        path = tmp_path / layer.file
        if below is None:
            path.touch()
        else:
            image(path, below)
        os.utime(path, (1000, 1000))
        below = layer.file
        layers.append(samples.layer(layer.file, path=str(path)))
    return samples.disk(layers=tuple(reversed(layers)))


def image(path: Path, below: str, written: int = 1000) -> Path:
    qemu_img.create_overlay(str(path), backing_name=below, backing_format="raw", size=samples.MIB)
    os.utime(path, (written, written))
    return path


@pytest.mark.parametrize("below", ["volume-1", "volume-1.s1"])
def test_until_what_it_rests_on_is_written(disk: Disk, tmp_path: Path, below: str) -> None:
    clone, path = image(tmp_path / "clone", below), tmp_path / below
    found = {str(path): (str(clone),)}
    assert resting_on(disk) == Resting(found, {})
    path.write_bytes(b"later" + path.read_bytes())
    assert resting_on(disk) == Resting({}, found)
    os.utime(clone)
    assert resting_on(disk) == Resting(found, {})


def test_a_name_in_another_folder(disk: Disk, tmp_path: Path) -> None:
    """A hard link: what lies there may rest on the file by that name, and is not looked for."""
    base, elsewhere = tmp_path / "volume-1", tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.link(base, tmp_path / "second")
    os.utime(base, (1000, 1000))
    assert resting_on(disk) == NOTHING
    os.link(base, elsewhere / "third")
    os.utime(base, (1000, 1000))
    (note,) = resting_on(disk).notes
    assert note.startswith(f"{base} has a name in another folder as well")


@pytest.mark.parametrize(
    ("made", "written", "counts"),
    [
        (None, 1999, False),
        (None, 2000, True),
        (None, 2001, True),
        (1999, 1999, False),
        (2000, 1999, True),
        (1999, 2000, True),
    ],
)
def test_when_it_was_made_or_written(
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: int | None,
    written: int,
    counts: bool,
) -> None:
    """Whichever is later; an overlay of a guest that runs is made before its base is flushed."""
    monkeypatch.setattr(resting, "born", lambda _path: made and made * 10**9)
    image(tmp_path / "clone", "volume-1", written)
    os.utime(tmp_path / "volume-1", (2000, 2000))
    found = resting_on(disk)
    assert (bool(found.younger), bool(found.older)) == (counts, not counts)


def test_a_time_that_is_still_to_come_tells_nothing(disk: Disk, tmp_path: Path) -> None:
    image(tmp_path / "clone", "volume-1")
    for later, counts in ((-1, False), (3600, True)):
        at = time.time() + 3600 + later
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: int((time.time() + 3600) * 1e9))
            os.utime(tmp_path / "volume-1", (at, at))
            assert bool(resting_on(disk).younger) is counts


def test_what_cannot_be_looked_at_may_be_younger(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_path: str) -> int:
        raise PermissionError

    image(tmp_path / "clone", "volume-1")
    os.utime(tmp_path / "volume-1")
    monkeypatch.setattr(resting, "born", denied)
    assert resting_on(disk).younger


def test_beside_the_file_that_a_link_leads_to(disk: Disk, tmp_path: Path) -> None:
    """Over one more link; and beside each link."""
    base = tmp_path / "volume-1"
    for folder in ("between", "store"):
        (tmp_path / folder).mkdir()
    base.rename(tmp_path / "store" / "real")
    (tmp_path / "between" / "link").symlink_to("../store/real")
    base.symlink_to("between/link")
    clones = [image(tmp_path / "clone", "volume-1")]
    clones += [image(tmp_path / "between" / "clone", "link")]
    clones += [image(tmp_path / "store" / "clone", "real")]
    image(tmp_path / "between" / "other", "real")  # no such file there
    names = tuple(map(str, clones))
    assert resting_on(disk) == Resting({str(base): names}, {})
    assert set(images_naming(str(base))) == {*names, str(tmp_path / "volume-1.s1")}


def test_links_that_lead_in_a_circle(disk: Disk, tmp_path: Path) -> None:
    base = tmp_path / "volume-1"
    base.unlink()
    base.symlink_to("volume-1")
    assert resting_on(disk) == NOTHING


def test_in_the_folder_of_the_active_layer(disk: Disk, tmp_path: Path) -> None:
    """Whose template lies elsewhere."""
    active = tmp_path / "images" / "active"
    active.parent.mkdir()
    image(active, str(tmp_path / "volume-1.s1"))
    clone = image(tmp_path / "images" / "clone", str(tmp_path / "volume-1"))
    layers = (samples.layer("active", path=str(active)), *disk.layers[1:])
    found = {str(tmp_path / "volume-1"): (str(clone),)}
    with_it = replace(disk, layers=layers)
    os.unlink(tmp_path / "volume-1.s2")
    assert resting_on(with_it) == Resting(found, {})


def test_the_chain_itself_does_not_count(disk: Disk, tmp_path: Path) -> None:
    os.link(tmp_path / "volume-1.s1", tmp_path / "another name")
    assert resting_on(disk) == NOTHING


def test_nothing_below_the_active_layer_is_written(disk: Disk, tmp_path: Path) -> None:
    image(tmp_path / "clone", "volume-1.s2")
    assert resting_on(disk) == NOTHING


def test_what_names_a_file_and_is_no_image(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("volume-1\n")
    assert resting_on(disk) == NOTHING


def test_what_this_user_may_not_read(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = str(image(tmp_path / "clone", "volume-1"))
    base = str(tmp_path / "volume-1")
    assert images_naming(base) == (clone, str(tmp_path / "volume-1.s1"))
    beginning = census._beginning

    def denied(path: str) -> bytes:
        if path == clone:
            raise PermissionError
        return beginning(path)

    monkeypatch.setattr(census, "_beginning", denied)
    may = f"perhaps {clone}, which may not be read"
    assert images_naming(base) == (str(tmp_path / "volume-1.s1"), may)
    found = resting_on(disk)
    (note,) = found.notes
    assert note.startswith(f"1 of the files in {tmp_path} may not be read, {clone}")
    assert not found.younger


def test_a_folder_that_this_user_may_not_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_folder: str) -> dict[str, os.stat_result]:
        raise PermissionError

    monkeypatch.setattr(census, "beside", denied)
    assert images_naming(f"{tmp_path}/x") == (f"perhaps {tmp_path}, which may not be read",)


def test_a_folder_of_many(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "clone", "volume-1")
    monkeypatch.setattr(resting, "MANY", 4)
    assert resting_on(disk).younger
    monkeypatch.setattr(resting, "MANY", 3)
    found = resting_on(disk)
    (note,) = found.notes
    assert note.startswith(f"more than 3 files lie in {tmp_path}")
    assert not found.younger


def test_a_folder_of_the_chain_that_this_user_may_not_list(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_folder: str) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", denied)
    (note,) = resting_on(disk).notes
    assert note.startswith(f"{tmp_path} may not be listed: ")


def test_a_layer_that_is_gone_is_nothing_to_rest_on(disk: Disk, tmp_path: Path) -> None:
    image(tmp_path / "clone", "gone")
    (tmp_path / "volume-1").unlink()
    assert resting_on(disk) == NOTHING


def test_an_overlay_that_is_not_complete_rests_on_nothing(disk: Disk, tmp_path: Path) -> None:
    """Whoever made it was killed, perhaps after it had got its name too."""
    image(tmp_path / ".qmpsnap-x.tmp", "volume-1")
    assert resting_on(disk) == NOTHING
    assert images_naming(f"{tmp_path}/volume-1") == (f"{tmp_path}/volume-1.s1",)
