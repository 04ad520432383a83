"""Lengths of raw files, by the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmpsnap.guests.files.sizes import raw_size, with_raw_sizes
from tests.unit import samples


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 512), (512, 512), (1025, 1536)])
def test_full_sectors(tmp_path: Path, size: int, expected: int) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(size))
    assert raw_size(str(path)) == expected


def test_what_is_no_image_has_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "nosuch", "."):
        assert raw_size(str(tmp_path / name)) is None


def test_only_raw_layers_without_a_length_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1024))
    disk = samples.disk(2)
    unknown = {"virtual_size": None, "path": str(path)}
    for changes, expected in (
        ({}, 1024),
        ({"format": "qcow2"}, None),
        ({"flags": ("slice",)}, None),
        ({"path": None}, None),
        ({"virtual_size": 77}, 77),
    ):
        one = samples.changed_layer(disk, 1, **{**unknown, **changes})
        assert with_raw_sizes(one).layers[1].virtual_size == expected
        assert with_raw_sizes(one).layers[0] == disk.layers[0]
