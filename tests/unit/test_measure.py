"""What is known of files on this host; what cannot be looked at is left out, never made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmpsnap.cli.units import moment, moment_text
from qmpsnap.guests.files import measure
from qmpsnap.guests.files.measure import Measure, measured


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 70_000)
    os.utime(path, (1, 1_000_000_000))
    (one,) = measured([str(path), str(path), None]).values()
    status = path.stat()
    assert (one.size, one.allocated) == (70_000, status.st_blocks * 512)
    assert one.modified == 1_000_000_000
    assert one.created is None or one.created > 1_700_000_000


@pytest.mark.parametrize("name", ["missing", "nul\0", "x" * 300])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    assert measured([str(tmp_path / name)]) == {}


def test_what_is_no_file(tmp_path: Path) -> None:
    assert measured([str(tmp_path)]) == {str(tmp_path): Measure()}


def test_a_c_library_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_statx", lambda: None)
    path = tmp_path / "a"
    path.write_text("")
    (one,) = measured([str(path)]).values()
    assert one.created is None
    assert one.modified is not None


def test_moments() -> None:
    assert moment(1.8e9) == "2027-01-15T08:00:00Z"
    assert moment_text(1.8e9) == "2027-01-15 08:00Z"
    assert moment(None) is None
    assert moment_text(1e300) is None
