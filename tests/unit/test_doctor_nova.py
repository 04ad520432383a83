"""What of `doctor --nova` needs no Nova: who runs, and what may be seen of QEMU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.cli.doctor import State
from qmpsnap.openstack.nova import doctor


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process 7, whatever program is asked for."""
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/root").mkdir()

    def by_command(_begins: str) -> Iterator[Path]:
        yield tmp_path / "7"

    monkeypatch.setattr(doctor, "_by_command", by_command)
    return tmp_path


def test_what_qemu_has_open_is_seen(processes: Path) -> None:
    assert doctor._processes().state is State.OK


def test_what_qemu_has_open_may_not_be_seen(
    processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)
    found = doctor._processes()
    assert found.state is State.NOTE
    assert "may not see what process 7 has open: `not-seen`" in found.found
    assert "CAP_SYS_PTRACE" in found.remedy


def test_a_qemu_that_has_just_ended(processes: Path) -> None:
    (processes / "7/root").rmdir()
    assert doctor._processes().found == "no QEMU runs to try it on"


def test_nova_compute_runs_as_the_same_user(processes: Path) -> None:
    assert doctor._user().state is State.OK


def test_nova_compute_runs_as_another_user(
    processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    found = doctor._user()
    assert found.state is State.NOTE
    assert "process 7" in found.found
    assert "this as user 4321" in found.found
    assert "sudo -u" in found.remedy


def test_no_nova_compute_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_by_command", lambda _begins: iter(()))
    assert doctor._user().state is State.NOTE


def test_processes_are_known_by_their_program_or_script() -> None:
    mine = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0]
    name = os.path.basename(mine).decode()
    assert Path(f"/proc/{os.getpid()}") in [*doctor._by_command(name)]
    assert [*doctor._by_command("no-such-program-")] == []


def test_shares_of_a_family_that_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mnt/share").mkdir(parents=True)
    bases = {f"{name}_mount_point_base": str(tmp_path / name) for name in ("quobyte", "vzstorage")}
    section: dict[str, Any] = {**bases, "nfs_mount_point_base": str(tmp_path / "mnt")}
    (found,) = doctor._shares(SimpleNamespace(libvirt=section))
    assert (found.state, found.found) == (State.OK, f"{tmp_path}/mnt/share can be written")
