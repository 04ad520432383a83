"""What a file is said to be, and what is read of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmpsnap.openstack.cinder.calling import was_refused
from qmpsnap.openstack.cinder.reading import FileUnusable, describe
from tests.unit.qcow2_header import header


def run(*command: str, run_as_root: bool) -> tuple[str, str]:
    raise AssertionError(f"{command}: no program is needed to read a header")


def test_of_a_raw_file_nothing_is_read_but_its_length(tmp_path: Path) -> None:
    path = tmp_path / "volume-1"
    path.write_bytes(header(backing=b"/etc/passwd"))
    size = path.stat().st_size
    path.chmod(0o200)
    found = describe(str(path), "raw", run=run, as_root=False)
    assert (found["format"], found["virtual-size"]) == ("raw", size)
    assert "backing-filename" not in found


def test_of_a_qcow2_file_its_header(tmp_path: Path) -> None:
    path = tmp_path / "volume-1.a"
    path.write_bytes(header(backing=b"volume-1", extensions=[(0xE2792ACA, b"raw")], size=4096))
    found = describe(str(path), "qcow2", run=run, as_root=False)
    assert found["virtual-size"] == 4096
    assert found["backing-filename"] == "volume-1"
    assert found["backing-filename-format"] == "raw"


def test_a_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "volume-1.a"
    path.write_bytes(header(extensions=[(0x44415441, b"/etc/passwd")], incompatible=4))
    with pytest.raises(FileUnusable, match="names a data file"):
        describe(str(path), "qcow2", run=run, as_root=False)


def test_what_is_not_qcow2_is_not_taken_for_raw(tmp_path: Path) -> None:
    path = tmp_path / "volume-1.a"
    path.write_bytes(b"\0" * 512)
    with pytest.raises(FileUnusable, match="the magic is missing"):
        describe(str(path), "qcow2", run=run, as_root=False)


def test_what_this_process_may_not_read_is_asked_of_qemu_img_with_its_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: str) -> None:
        raise PermissionError

    monkeypatch.setattr("qmpsnap.openstack.cinder.reading.read_header", forbidden)
    (tmp_path / "volume-1.a").touch()
    ran: list[tuple[str, ...]] = []

    def as_root(*command: str, run_as_root: bool) -> tuple[str, str]:
        assert run_as_root
        ran.append(command)
        return json.dumps({"format": "qcow2", "virtual-size": 1}), ""

    describe(str(tmp_path / "volume-1.a"), "qcow2", run=as_root, as_root=True)
    assert ran[0][2:6] == ("qemu-img", "info", "-f", "qcow2")


class Answer(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ConnectTimeout(Exception):
    """As `requests` names it."""


class ConnectFailure(Exception):
    """As keystoneauth wraps it."""


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Answer(400), True),
        (Answer(404), True),
        (Answer(500), False),
        (ConnectionRefusedError(), True),
        (ConnectFailure(ConnectTimeout()), True),
        (ConnectFailure("Remote end closed connection without response"), False),
        (ConnectionResetError(), False),
    ],
)
def test_whether_a_call_can_have_reached_compute(error: Exception, refused: bool) -> None:
    assert was_refused(error) is refused


def test_the_cause_counts() -> None:
    wrapped = ConnectFailure("unable to connect")
    wrapped.__cause__ = ConnectionRefusedError()
    assert was_refused(wrapped)
