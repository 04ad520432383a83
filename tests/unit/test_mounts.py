"""Which folders keep files, by a list of mounts that is made up here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qmpsnap.guests.files import mounts

NUMBERS = {"/share": 1, "/dev": 2, "/run": 3, "/proc": 4, "/tmp": 5, "/subvolume": 9}
TYPES = {1: "nfs4", 2: "devtmpfs", 3: "tmpfs", 4: "proc", 5: "ramfs"}


@pytest.fixture(autouse=True)
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_ = tmp_path / "mountinfo"
    lines = [
        f"{n} 1 0:{n} / /at{n} rw - {type_} none rw"
        if n % 2
        else f"{n} 1 0:{n} / /at{n} rw shared:1 master:2 - {type_} none rw"
        for n, type_ in TYPES.items()
    ]
    list_.write_text("\n".join(lines) + "\n")

    def look(path: str) -> os.stat_result:
        folder, _, name = path.rpartition("/")
        mode = stat.S_IFBLK if name == "sda" else stat.S_IFREG
        number = NUMBERS.get(path, NUMBERS.get(folder))
        if number is None:
            raise FileNotFoundError(path)
        return os.stat_result((mode, 1, os.makedev(0, number), *[0] * 7))

    monkeypatch.setattr("qmpsnap.guests.files.mounts.os.stat", look)
    monkeypatch.setattr(mounts, "_MOUNTS", str(list_))


@pytest.mark.parametrize(("path", "expected"), [(f, TYPES.get(n)) for f, n in NUMBERS.items()])
def test_type(path: str, expected: str | None) -> None:
    assert mounts.type_of(path) == expected


def test_type_that_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_MOUNTS", "/nowhere")
    assert mounts.type_of("/dev") is None


@pytest.mark.parametrize(
    ("folder", "model", "why"),
    [
        ("/share", "/share/volume", None),
        ("/share", "/dev/sda", None),
        ("/subvolume", "/share/volume", None),
        ("/dev", "/dev/sda", "devtmpfs"),
        ("/dev", "/share/volume", "devtmpfs"),
        ("/proc", "/share/volume", "proc"),
        ("/run", "/share/volume", "tmpfs, in memory, and /share/volume is not"),
        ("/run", "/subvolume/volume", "tmpfs"),
        ("/run", "/dev/sda", "tmpfs"),
        ("/run", "/run/sda", "tmpfs"),
        ("/run", "/run/volume", None),
        ("/tmp", "/run/volume", None),
        ("/tmp", "/share/volume", "ramfs"),
        ("/share", "/run/volume", None),
    ],
)
def test_loses(folder: str, model: str, why: str | None) -> None:
    said = mounts.loses(folder, model)
    assert said is None if why is None else why in (said or "")


def test_nothing_there() -> None:
    with pytest.raises(FileNotFoundError):
        mounts.loses("/nowhere", "/share/volume")


@pytest.mark.parametrize(
    ("mount", "hidden"),
    [
        ("rw shared:1 - nfs4 host:/share rw,vers=4.2,local_lock=none", None),
        ("rw - nfs host:/share rw,vers=3,nolock,local_lock=all", "nfs"),
        ("rw - nfs host:/share rw,vers=3,local_lock=posix", "nfs"),
        ("rw,nobrl - cifs //host/share rw", "cifs"),
        ("rw - cifs //host/share rw", None),
        ("rw - fuse.sshfs host:/share rw", "fuse.sshfs"),
        ("rw - ext4 /dev/vda rw,nolock", None),
    ],
)
def test_share_on_which_other_hosts_are_hidden(
    tmp_path: Path, mount: str, hidden: str | None
) -> None:
    lines = f"1 0 0:1 / / rw - 9p root rw\n2 1 0:2 / /share {mount}\n"
    (tmp_path / "mounts").write_text(lines)
    assert mounts.hides_other_hosts("/share/file", str(tmp_path / "mounts")) == hidden
    assert mounts.hides_other_hosts("/share/file", str(tmp_path / "none")) is None
