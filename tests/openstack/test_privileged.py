"""What the helper does for whoever asks, and what it refuses: its own functions, in this process."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.bytes import BYTE, lock_byte
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import identity
from tests.openstack.rig.unprivileged import FILTERS
from tests.rig.waiting import until

RAW_LIMIT = 8192


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The functions, with one folder as a base."""
    privileged = pytest.importorskip("qmpsnap.openstack.nova.privileged")
    monkeypatch.setattr(privileged, "_bases", lambda: (str(tmp_path / "mnt"),))
    monkeypatch.setattr(privileged.context, "client_mode", False)
    (tmp_path / "mnt/share").mkdir(parents=True)
    yield privileged
    for number in [*privileged._held]:
        privileged.release(number)


@pytest.fixture
def share(entries: Any, tmp_path: Path) -> Path:
    return tmp_path / "mnt/share"


@pytest.fixture
def overlay(share: Path) -> Path:
    path = share / "volume-1.s"
    qemu_img.create_overlay(
        str(path), backing_name="volume-1", backing_format="qcow2", size=1 << 40
    )
    return path


def clusters(path: Path, format_: str = "raw") -> tuple[bytes, bytes]:
    """The first cluster as it is, and with another format."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    qemu_img.record_backing(str(copy), backing_name="volume-1", backing_format=format_)
    after = copy.read_bytes()[:65536]
    copy.unlink()
    return path.read_bytes()[:65536], after


def test_a_header_and_nothing_that_a_guest_has_written(
    entries: Any, share: Path, overlay: Path
) -> None:
    assert entries.header(str(overlay)) == overlay.read_bytes()[:RAW_LIMIT]
    (share / "volume-1").write_bytes(b"secret" * 10000)
    assert entries.header(str(share / "volume-1")) == b""
    with pytest.raises(PermissionError, match="does not begin as a qcow2"):
        entries.whole(str(share / "volume-1"))


def test_a_large_file_is_not_read(entries: Any, overlay: Path) -> None:
    assert entries.whole(str(overlay)) == overlay.read_bytes()
    os.truncate(overlay, entries.WHOLE_LIMIT + 1)
    with pytest.raises(PermissionError, match="more than an overlay without data"):
        entries.whole(str(overlay))


def test_a_format_is_mended(entries: Any, overlay: Path) -> None:
    before, after = clusters(overlay)
    entries.mend(str(overlay), before, after)
    assert read_header(str(overlay)).backing_format == "raw"
    assert qemu_img.is_consistent(str(overlay))
    with pytest.raises(PermissionError, match="another one by now"):
        entries.mend(str(overlay), before, after)


def test_nothing_else_is_mended(entries: Any, overlay: Path) -> None:
    whole = overlay.read_bytes()
    before, after = clusters(overlay)
    other = after.replace(b"volume-1", b"volume-2")
    assert other != after
    for new, said in (
        (other, "more would change"),
        (after + b"x", "more would change"),
        (after[:40] + b"\0" * 8 + after[48:], "more would change"),
        (b"\0" * 65536, "no valid qcow2 header"),
        (b"", "no valid qcow2 header"),
        (clusters(overlay, "vmdk")[1], "no format of a volume"),
    ):
        with pytest.raises(PermissionError, match=said):
            entries.mend(str(overlay), before, new)
    assert overlay.read_bytes() == whole


def test_a_file_that_qemu_has_open_is_not_mended(entries: Any, overlay: Path) -> None:
    before, after = clusters(overlay)
    (overlay.parent / "volume-1").touch()
    command = [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=qcow2,node-name=f,file.driver=file,file.filename={overlay},backing=",
        "--nbd-server",
        f"addr.type=unix,addr.path={overlay}.nbd",
        "--export",
        "type=nbd,id=e,node-name=f,writable=on",
    ]
    with subprocess.Popen(command) as daemon:
        try:
            until(lambda: entries.is_locked(str(overlay), 100, 64))
            with pytest.raises(PermissionError, match="a QEMU has it open"):
                entries.mend(str(overlay), before, after)
            assert overlay.read_bytes()[:65536] == before
        finally:
            daemon.kill()


def test_qemu_cannot_open_what_is_being_mended(
    entries: Any, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = clusters(overlay)
    said: list[str] = []

    def is_had(_descriptor: int) -> bool:
        command = ["qemu-io", "-f", "raw", "-c", "quit", str(overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said.append(done.stderr)
        return False

    monkeypatch.setattr(entries.locked_bytes, "qemu_has", is_had)
    (overlay.parent / "volume-1").touch()
    entries.mend(str(overlay), before, after)
    assert len(said) == 1
    assert "lock" in said[0]


def test_a_marker_is_written_read_and_removed(entries: Any, share: Path) -> None:
    path = str(share / ".qmpsnap-1f")
    entries.write_marker(path, "text")
    ((name, owner, text, problem),) = entries.markers(str(share))
    assert (name, owner, text, problem) == (".qmpsnap-1f", os.geteuid(), "text", "")
    entries.remove_marker(path)
    assert [*share.iterdir()] == []


@pytest.mark.parametrize(
    "name",
    ["volume-1", ".qmpsnap-", ".qmpsnap-x.tmp", ".qmpsnap-1F", "qmpsnap-1f", ".qmpsnap-1f\n"],
)
def test_nothing_but_a_marker_is_written_or_removed(entries: Any, share: Path, name: str) -> None:
    (share / name).write_text("kept")
    for ask, more in ((entries.write_marker, ("x",)), (entries.remove_marker, ())):
        with pytest.raises(PermissionError, match="no name of a marker"):
            ask(f"{share}/{name}", *more)
    assert (share / name).read_text() == "kept"


def test_a_marker_does_not_go_through_a_link(entries: Any, share: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (share / ".qmpsnap-1f").symlink_to(secret)
    assert entries.markers(str(share))[0][2] is None
    entries.write_marker(str(share / ".qmpsnap-1f"), "text")
    assert secret.read_text() == "kept"
    assert not (share / ".qmpsnap-1f").is_symlink()


def test_a_lock_is_another_ones_until_it_is_released(entries: Any, overlay: Path) -> None:
    path = str(overlay)
    number = entries.lock(path)
    assert entries.is_locked(path, BYTE, 1)
    with pytest.raises(BlockingIOError):
        entries.lock(path)
    with overlay.open("r+b") as file, pytest.raises(OSError, match=r"unavailable|denied"):
        lock_byte(file.fileno())
    entries.release(number)
    entries.release(number)
    assert not entries.is_locked(path, BYTE, 1)
    with pytest.raises(PermissionError, match="no byte which is locked"):
        entries.is_locked(path, 0, 1)


def test_what_is_held_has_a_bound_and_a_name_nobody_guesses(
    entries: Any, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "HELD_LIMIT", 2)
    numbers = [entries.watch(str(overlay)) for _ in range(2)]
    entries.sync(numbers[0])
    before = len(os.listdir("/proc/self/fd"))
    for ask in (entries.watch, entries.lock):
        with pytest.raises(PermissionError, match="held already"):
            ask(str(overlay))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="does not have it open"):
        entries.sync(3)


def test_who_has_a_file_open(entries: Any, overlay: Path) -> None:
    key = identity(str(overlay))
    assert key is not None
    with overlay.open("rb") as file, subprocess.Popen(["sleep", "1000"], pass_fds=[file.fileno()]) as other:  # fmt: skip
        try:
            (found,), _, hidden = entries.opened_by([key], None, [])
            assert (found[0], hidden) == (key, 0)
            assert f"(pid {other.pid})" in found[1][0]
            assert entries.opened_by([key], None, [other.pid])[0] == []
        finally:
            other.kill()
    with pytest.raises(PermissionError, match="more than"):
        entries.opened_by([key] * (entries.WANTED_LIMIT + 1), None, [])


def test_names_in_a_qemus_root_are_volumes_or_devices(entries: Any) -> None:
    with pytest.raises(PermissionError, match="not below"):
        entries.in_root(os.getpid(), 1, "/etc/shadow")


def test_no_other_function_can_be_called(entries: Any) -> None:
    """What privsep asks before it calls: `is_entrypoint`."""
    found = {name for name, one in vars(entries).items() if entries.context.is_entrypoint(one)}
    assert found == {
        "header", "whole", "mend", "write_marker", "remove_marker", "markers", "held", "in_root",
        "opened_by", "is_locked", "lock", "watch", "sync", "release", "ready",
    }  # fmt: skip


def test_it_has_three_capabilities(entries: Any) -> None:
    from oslo_privsep import capabilities

    assert {capabilities.CAPS_BYVALUE[one] for one in entries.context.conf.capabilities} == {
        "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE",
    }  # fmt: skip


def test_a_configuration_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rootwrap lets `privsep-helper` through with whichever file is named."""
    privileged = pytest.importorskip("qmpsnap.openstack.nova.privileged")
    import nova.conf

    mine = tmp_path / "nova.conf"
    mine.write_text("[libvirt]\nnfs_mount_point_base = /etc\n")
    os.chown(mine, 64060, 64060)
    nova.conf.CONF([], project="nova", default_config_files=[str(mine)])
    monkeypatch.setattr(privileged.context, "client_mode", False)
    privileged._bases.cache_clear()
    try:
        with pytest.raises(PermissionError, match="others than root can change"):
            privileged.ready()
    finally:
        nova.conf.CONF.reset()
        privileged._bases.cache_clear()


COMMAND = [
    "privsep-helper",
    "--config-file",
    "/etc/nova/nova.conf",
    "--privsep_context",
    "qmpsnap.openstack.nova.privileged.context",
    "--privsep_sock_path",
    "/tmp/tmpabc/privsep.sock",
]


def test_the_filter_allows_our_context_alone(tmp_path: Path) -> None:
    wrapper = pytest.importorskip("oslo_rootwrap.wrapper")
    shutil.copy(FILTERS, tmp_path)
    ours, always = wrapper.load_filters([str(tmp_path)])
    assert ours.match(COMMAND)
    for place, word in (
        (2, "/etc/nova/../../tmp/evil.conf"),
        (2, "/tmp/evil.conf"),
        (4, "nova.privsep.sys_admin_pctxt"),
        (4, "qmpsnap.openstack.nova.privileged.contexts"),
        (6, "/etc/passwd"),
    ):
        assert not ours.match([*COMMAND[:place], word, *COMMAND[place + 1 :]])
    assert not ours.match([*COMMAND, "--privsep_context", "nova.privsep.sys_admin_pctxt"])
    # A filter of oslo.rootwrap's own, which is why the helper looks at its configuration itself.
    assert always.match(["privsep-helper", "whatever"])
