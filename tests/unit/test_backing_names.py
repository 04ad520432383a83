"""Whether headers name their backing files as QEMU does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmpsnap.graph.xml import XmlDisk, XmlDomain, XmlLayer
from qmpsnap.guests.backing_names import plain_by_process, plain_by_xml
from tests.unit.qcow2_header import header


def files(folder: Path, written: str | None) -> list[Path]:
    """An overlay whose header says `written`, and its raw base."""
    top, base = folder / "top", folder / "base"
    top.write_bytes(header(backing=(written or "").encode()))
    base.write_bytes(b"\0" * 512)
    return [top, base]


def domain(*paths: Path | None) -> XmlDomain:
    formats = ["qcow2"] * (len(paths) - 1) + ["raw"]
    layers = tuple(
        XmlLayer(path=str(path) if path else None, name=str(path), format=format, index=number)
        for number, (path, format) in enumerate(zip(paths, formats, strict=True))
    )
    disk = XmlDisk(
        target="vda", serial=None, alias=None, device="disk", read_only=False, layers=layers
    )
    return XmlDomain(name="web1", disks=(disk,))


CASES = [("{folder}/base", True), ("base", False), ("{folder}/other", False), (None, False)]


@pytest.mark.parametrize(("written", "plain"), CASES)
def test_by_xml(tmp_path: Path, written: str | None, plain: bool) -> None:
    paths = files(tmp_path, written and written.format(folder=tmp_path))
    assert plain_by_xml(domain(*paths)) is plain


def test_by_xml_what_cannot_be_read_is_not_plain(tmp_path: Path) -> None:
    assert not plain_by_xml(domain(tmp_path / "gone", tmp_path / "base"))
    assert not plain_by_xml(domain(None, tmp_path / "base"))
    top, _ = files(tmp_path, "/share/base")
    assert not plain_by_xml(domain(top, None))


def test_by_xml_one_layer_has_no_names(tmp_path: Path) -> None:
    assert plain_by_xml(domain(tmp_path / "base"))


@pytest.mark.parametrize(("written", "plain"), CASES)
def test_by_process(tmp_path: Path, written: str | None, plain: bool) -> None:
    paths = files(tmp_path, written and written.format(folder=tmp_path))
    # A QEMU has other things open as well.
    opened = [*(os.open(path, os.O_RDONLY) for path in paths), *os.pipe()]
    try:
        assert plain_by_process(os.getpid()) is plain
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_by_process_header_in_a_raw_disk_cannot_make_it_plain(tmp_path: Path) -> None:
    top, base = files(tmp_path, "base")
    base.write_bytes(header(backing=str(top).encode()))
    opened = [os.open(path, os.O_RDONLY) for path in (top, base)]
    try:
        assert not plain_by_process(os.getpid())
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_by_process_that_is_not_there() -> None:
    assert not plain_by_process(2**22 + 1)
