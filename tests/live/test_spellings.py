"""Names in two spellings: `..`, links to folders and files, and what QEMU takes for an address."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import images
from tests.rig.rig import DISK, SIZE
from tests.rig.roads import Road, chain_rig
from tests.rig.situations import situation

Place = Callable[[Path], tuple[Path, str]]


def _plain(share: Path) -> tuple[Path, str]:
    images.create_raw(share / "volume", SIZE)
    return share / "volume", "volume"


def _colon(share: Path) -> tuple[Path, str]:
    images.create_raw(share / "a:b.img", SIZE)
    return share / "a:b.img", "./a:b.img"


def _upwards(share: Path) -> tuple[Path, str]:
    images.create_raw(share / "volume", SIZE)
    return share / ".." / share.name / "volume", "volume"


def _by_a_link(share: Path) -> tuple[Path, str]:
    images.create_raw(share / "volume", SIZE)
    link = share.parent / "link"
    link.symlink_to(share)
    return link / "volume", "volume"


def _linked(share: Path) -> tuple[Path, str]:
    """The name is a link into another folder."""
    real = share.parent / "real"
    real.mkdir()
    images.create_raw(real / "disk0", SIZE)
    (share / "volume").symlink_to(real / "disk0")
    return share / "volume", "volume"


PLACES = [_plain, _colon, _upwards, _by_a_link, _linked]


@situation(
    "A file has a colon in its name, a `..` in its path, or is reached by a link",
    happens="every operation works: files are compared, not names",
    code=0,
    then="Nothing.",
    kind=17,
)
@pytest.mark.parametrize("place", PLACES)
def test_every_operation(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path, place: Place
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    base, name = place(share)
    overlay = base.with_name(f"{base.name}.s1")
    images.create_qcow2(overlay, SIZE, name, "raw")
    with chain_rig(road, request, [(overlay, "qcow2"), (base, "raw")]) as rig:
        for number, snapshot in enumerate(("s2", "s3", "s4"), 1):
            rig.guest.write(DISK, number * 65536, 65536, number)
            said = rig.cli("create", DISK, snapshot)
            assert said.code == 0, said
        content = rig.guest.read_sha256(DISK)
        for arguments in (
            ("s2", "--method", "commit"),
            ("s1", "--method", "commit", "--remove-file"),
            ("s4", "--method", "commit"),
            ("s3", "--method", "pull"),
        ):
            said = rig.cli("delete", DISK, *arguments)
            assert said.code == 0, (arguments, said)
            assert rig.guest.read_sha256(DISK) == content
        assert rig.files() == [f"{base.name}.s3"]
        assert not overlay.exists()


@pytest.mark.parametrize("place", [_colon, _upwards, _by_a_link])
def test_header_that_names_the_folder_as_it_really_is(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path, place: Place
) -> None:
    """As a tool writes it that has looked where the links lead; libvirt shows the base so, too."""
    share = tmp_path / "share"
    share.mkdir()
    base, _ = place(share)
    overlay, real = base.with_name(f"{base.name}.s1"), Path(os.path.realpath(base))
    images.create_qcow2(overlay, SIZE, real, "raw")
    with chain_rig(road, request, [(overlay, "qcow2"), (real, "raw")]) as rig:
        handed_over = base.with_name(f"{base.name}.s2")
        images.create_qcow2(handed_over, SIZE, os.path.realpath(overlay), "qcow2")
        said = rig.cli("create", DISK, "s2")
        assert said.code == 0, said
        rig.guest.write(DISK, 0, 65536, 1)
        content = rig.guest.read_sha256(DISK)
        for snapshot in ("s2", "s1"):
            said = rig.cli("delete", DISK, snapshot, "--method", "commit", "--remove-file")
            assert said.code == 0, said
            assert rig.guest.read_sha256(DISK) == content
        assert rig.files() == [base.name]
        assert not overlay.exists()
        assert not handed_over.exists()
