"""What is looked up of a report's files, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.findings.facts import FileFacts
from qmpsnap.findings.host_files import file_facts
from qmpsnap.formats.layers import Disks
from qmpsnap.graph.files import OpenFile
from tests.unit import samples
from tests.unit.qcow2_header import header

QCOW2 = header()


def report(*files: tuple[Path | str, str | None]) -> Disks:
    layers = tuple(
        samples.layer(Path(path).name, format_ or "raw", path=str(path), format=format_)
        for path, format_ in files
    )
    return samples.guest(samples.disk(layers=layers))


def facts(path: Path | str, format_: str | None) -> FileFacts:
    return file_facts(report((path, format_)))[str(path)]


def test_a_raw_file(tmp_path: Path) -> None:
    file = tmp_path / "volume"
    file.write_bytes(QCOW2)
    found = facts(file, "raw")
    assert (found.looks_like, found.header, found.problem) == ("qcow2", None, None)
    status = file.stat()
    assert found.identity == ("file", status.st_dev, status.st_ino)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "volume").write_bytes(QCOW2)
    before = len(os.listdir("/proc/self/fd"))
    for format_ in ("raw", "qcow2"):
        facts(tmp_path / "volume", format_)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_raw_file(tmp_path: Path) -> None:
    (tmp_path / "volume").touch()
    assert facts(tmp_path / "volume", "raw").looks_like is None


def test_a_qcow2_file(tmp_path: Path) -> None:
    file = tmp_path / "volume"
    file.write_bytes(QCOW2)
    found = facts(file, "qcow2")
    assert found.header is not None
    assert found.looks_like is None


@pytest.mark.parametrize("format_", [None, "vmdk"])
def test_of_other_formats_nothing_is_read(tmp_path: Path, format_: str | None) -> None:
    file = tmp_path / "volume"
    file.write_bytes(QCOW2)
    found = facts(file, format_)
    assert (found.header, found.looks_like, found.problem) == (None, None, None)
    assert found.identity is not None


def test_a_qcow2_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "volume"
    file.write_bytes(bytes(512))
    found = facts(file, "qcow2")
    assert found.bad_header == "the magic is missing"
    assert found.identity is not None


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    found = facts(tmp_path / "gone", "raw")
    assert "No such file" in (found.problem or "")
    assert found.identity is None
    assert found.real_path == str(tmp_path / "gone")


@pytest.mark.parametrize("name", ["/a\0b", "/\ud800"])
def test_names_that_no_file_can_have(name: str) -> None:
    assert facts(name, "raw").problem


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert facts(fifo, "raw").looks_like is None
    assert facts(fifo, "raw").problem is None
    assert facts(fifo, "qcow2").bad_header


def test_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "volume").touch()
    (tmp_path / "share").symlink_to("real")
    (tmp_path / "link").symlink_to("real/volume")
    (tmp_path / "hard").hardlink_to(tmp_path / "real" / "volume")
    paths = [tmp_path / "share" / "volume", tmp_path / "link", tmp_path / "hard"]
    found = file_facts(report(*((path, "raw") for path in paths)))
    assert len({one.identity for one in found.values()}) == 1
    share, link, hard = (found[str(path)] for path in paths)
    assert share.real_folder == str(tmp_path / "real")
    assert link.real_path == str(tmp_path / "real" / "volume")
    assert link.real_folder == str(tmp_path)
    assert hard.real_path == str(tmp_path / "hard")


def test_relative_names_are_left_alone() -> None:
    assert file_facts(report(("volume", "raw"))) == {}


def test_files_beyond_the_chain_are_only_told_apart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(QCOW2)
    file = OpenFile(
        path=str(data), name=str(data), protocol="file", node=None, role="data-file", layer=0
    )
    disk = replace(samples.disk(layers=()), files=(file,))
    found = file_facts(samples.guest(disk))[str(data)]
    assert found.identity is not None
    assert (found.header, found.looks_like) == (None, None)
