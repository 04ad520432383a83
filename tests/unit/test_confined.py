"""Where the helper of nova-compute may look, whatever it is asked by whoever has taken that over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.openstack.nova import confined
from qmpsnap.openstack.nova.confined import check_roots_own, folder_of, parts_of, qemu, regular

BASES = ("/var/lib/nova/mnt", "/srv/instances/")


@pytest.mark.parametrize(
    "path",
    ["/var/lib/nova/mnt/share/volume-1", "/srv/instances/x", "/var/lib/nova/mnt/a b\udcff/ü"],
)
def test_a_path_below_a_base(path: str) -> None:
    assert "/" + "/".join(parts_of(path, BASES)) == path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/shadow", "not below"),
        ("/var/lib/nova/mnt", "not below"),
        ("/var/lib/nova/mntx/volume-1", "not below"),
        ("/", "simplest form"),
        ("", "no absolute path"),
        ("volume-1", "no absolute path"),
        ("./volume-1", "no absolute path"),
        ("/var/lib/nova/mnt/../../../../etc/shadow", "simplest form"),
        ("/var/lib/nova/mnt/./x", "simplest form"),
        ("/var/lib/nova/mnt//x", "simplest form"),
        ("//var/lib/nova/mnt/x", "simplest form"),
        ("/var/lib/nova/mnt/x/", "simplest form"),
        ("/var/lib/nova/mnt/x\0", "no absolute path"),
        ("/var/lib/nova/mnt/" + "x" * 5000, "too long"),
    ],
)
def test_every_other_path_is_refused(path: str, said: str) -> None:
    with pytest.raises(PermissionError, match=said):
        parts_of(path, BASES)


@pytest.mark.parametrize("bases", [(), ("/",), ("",), (".",), ("relative/base",)])
def test_no_base_lets_everything_through(bases: tuple[str, ...]) -> None:
    with pytest.raises(PermissionError, match="not below"):
        parts_of("/relative/base/x", bases)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base with a share, beside something that is nobody's business."""
    (tmp_path / "mnt/share").mkdir(parents=True)
    (tmp_path / "mnt/share/volume-1").write_bytes(b"QFI\xfb")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/volume-1").write_bytes(b"QFI\xfb secret")
    return tmp_path / "mnt"


def read(base: Path, path: Path) -> bytes:
    with regular(str(path), [str(base)], os.O_RDONLY) as file:
        return os.pread(file, 100, 0)


def test_a_regular_file_is_read(base: Path) -> None:
    assert read(base, base / "share/volume-1") == b"QFI\xfb"


def test_no_link_is_followed_wherever_it_stands(base: Path) -> None:
    secret = base.parent / "secret"
    (base / "share/link").symlink_to(secret / "volume-1")
    (base / "folder").symlink_to(secret)
    (base.parent / "base").symlink_to(base)
    (base / "near").symlink_to("share")
    with pytest.raises(PermissionError, match="no regular file"):
        read(base, base / "share/link")
    for path in (base / "folder/volume-1", base / "near/volume-1"):
        with pytest.raises(PermissionError, match="is a link"):
            read(base, path)
    with pytest.raises(PermissionError, match="is a link"):
        read(base.parent / "base", base.parent / "base/share/volume-1")


def test_what_is_no_file_of_its_own_is_refused(base: Path) -> None:
    os.mkfifo(base / "share/fifo")
    os.link(base.parent / "secret/volume-1", base / "share/hard")
    for name, said in (
        ("fifo", "no regular file"),
        ("hard", "another name"),
        (".", "simplest form"),
    ):
        with pytest.raises(PermissionError, match=said):
            read(base, Path(f"{base}/share/{name}") if name != "." else Path("/"))
    with pytest.raises(PermissionError, match="no regular file"):
        read(base, base / "share")
    with pytest.raises(FileNotFoundError):
        read(base, base / "share/none")


def test_a_device_is_refused_before_it_is_opened(base: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(base / "share/null", 0o20666, os.makedev(1, 3))
    with pytest.raises(PermissionError, match="no regular file"):
        read(base, base / "share/null")


def test_a_link_that_is_put_in_while_it_is_opened(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at is what is read: the name is not used a second time."""
    fstat = os.fstat
    volume = base / "share/volume-1"

    def swapped(descriptor: int) -> os.stat_result:
        monkeypatch.undo()
        volume.unlink()
        volume.symlink_to(base.parent / "secret/volume-1")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", swapped)
    with pytest.raises(PermissionError, match="another name"):  # it has none at all
        read(base, volume)


def test_a_link_that_is_put_in_after_it_was_looked_at(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstat = os.fstat
    volume = base / "share/volume-1"

    def swapped(descriptor: int) -> os.stat_result:
        monkeypatch.undo()
        volume.rename(base / "share/away")
        volume.symlink_to(base.parent / "secret/volume-1")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", swapped)
    assert read(base, volume) == b"QFI\xfb"


def test_a_folder_that_is_exchanged_stays_the_one_that_was_opened(base: Path) -> None:
    with folder_of(f"{base}/share/marker", [str(base)]) as (folder, name):
        (base / "share").rename(base / "away")
        (base / "share").symlink_to(base.parent / "secret")
        Path(folder, name).write_text("x")
    assert (base / "away/marker").exists()
    assert not (base.parent / "secret/marker").exists()


def test_no_descriptor_is_left_open(base: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.mkfifo(base / "fifo")
    for path in (base / "share/volume-1", base / "fifo", base / "none/x", Path("/etc/shadow")):
        try:
            read(base, path)
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as one:
        yield one.pid
        one.kill()


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_a_process_that_is_no_qemu(process: int) -> None:
    with pytest.raises(PermissionError, match="it is no QEMU"), qemu(process, started(process)):
        pass


def test_a_qemu(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_QEMUS", ("sleep", "busybox", "coreutils"))
    with qemu(process, started(process)) as folder:
        assert "fd" in os.listdir(folder)


def test_a_number_that_is_another_processs_by_now(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined, "_QEMUS", ("",))
    with pytest.raises(PermissionError, match="another process"), qemu(process, 1):
        pass


def test_a_process_that_ends_is_never_another_one(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined, "_QEMUS", ("",))
    with qemu(process, started(process)) as folder:
        os.kill(process, 9)
        os.waitpid(process, 0)
        with pytest.raises(OSError, match="No such process"):
            os.listdir(f"{folder}/fd")


@pytest.mark.parametrize(
    ("mode", "owner", "is_good"),
    [
        (0o644, 0, True),
        (0o640, 0, True),
        (0o664, 0, False),
        (0o646, 0, False),
        (0o600, 64060, False),
    ],
)
def test_a_configuration_that_others_can_change(
    tmp_path: Path, mode: int, owner: int, is_good: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    conf = tmp_path / "nova.conf"
    conf.write_text("")
    conf.chmod(mode)
    os.chown(conf, owner, owner)
    if is_good:
        check_roots_own(str(conf))
    else:
        with pytest.raises(PermissionError, match=f"others than root can change {conf}"):
            check_roots_own(str(conf))


def test_a_configuration_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nova.conf").write_text("")
    (tmp_path / "link.conf").symlink_to(tmp_path / "etc/nova.conf")
    os.chown(tmp_path / "etc", 64060, 64060)
    for name in ("etc/nova.conf", "link.conf"):
        with pytest.raises(PermissionError, match="others than root"):
            check_roots_own(str(tmp_path / name))
