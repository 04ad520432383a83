"""Headers read from disk: only of what is stated to be qcow2, and nothing that hangs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from qmpsnap.formats.qcow2 import READ_SIZE, BadHeader
from qmpsnap.guests.files.header import read_header, read_headers
from tests.unit.qcow2_header import header


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image"
    path.write_bytes(header(backing=b"base") + b"\0" * READ_SIZE)
    return str(path)


class TestOne:
    def test_file(self, image: str) -> None:
        assert read_header(image).backing_file == "base"

    def test_link_to_a_file(self, image: str) -> None:
        os.symlink(image, image + ".link")
        assert read_header(image + ".link").backing_file == "base"

    def test_link_that_is_not_to_be_followed(self, image: str) -> None:
        os.symlink(image, image + ".link")
        assert read_header(image, follow=False).backing_file == "base"
        with pytest.raises(OSError, match="symbolic links"):
            read_header(image + ".link", follow=False)

    def test_file_that_is_not_what_was_stated(self, tmp_path: Path) -> None:
        (tmp_path / "raw").write_bytes(b"\0" * READ_SIZE)
        with pytest.raises(BadHeader, match="magic"):
            read_header(str(tmp_path / "raw"))

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(BadHeader, match="neither a file nor a block device"):
            read_header(str(tmp_path / "fifo"))

    @pytest.mark.parametrize("path", ["/dev/zero", "/tmp"])
    def test_what_is_no_image(self, path: str) -> None:
        with pytest.raises(BadHeader):
            read_header(path)

    def test_socket(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            with pytest.raises(OSError, match="No such device or address"):
                read_header(str(tmp_path / "s"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_header(str(tmp_path / "gone"))

    def test_nothing_stays_open(self, image: str) -> None:
        before = os.listdir("/proc/self/fd")
        read_header(image)
        with pytest.raises(BadHeader):
            read_header("/dev/zero")
        assert len(os.listdir("/proc/self/fd")) == len(before)


class TestMany:
    @pytest.mark.parametrize("stated", ["raw", "luks", "qcow", ""])
    def test_only_what_is_stated_to_be_qcow2(self, image: str, stated: str) -> None:
        assert read_headers({image: stated}) == {}
        assert read_headers({image: "qcow2"}).keys() == {image}

    def test_file_that_cannot_be_read_has_no_witness(self, image: str, tmp_path: Path) -> None:
        (tmp_path / "raw").write_bytes(b"\0" * READ_SIZE)
        paths = dict.fromkeys([image, str(tmp_path / "gone"), str(tmp_path / "raw")], "qcow2")
        assert read_headers(paths).keys() == {image}

    def test_relative_name_is_not_looked_up(
        self, image: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(os.path.dirname(image))
        assert read_headers({"image": "qcow2"}) == {}
