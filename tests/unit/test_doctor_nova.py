"""What of `doctor --nova` needs no Nova: who runs, and what may be seen of QEMU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.cli.doctor import State
from qmpsnap.guests.files.opened import Held, Hidden
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


def _see(monkeypatch: pytest.MonkeyPatch, seen: Held | Hidden) -> None:
    monkeypatch.setattr(doctor, "held_by", lambda _pid, _unknown: seen)


def test_what_qemu_has_open_is_seen(processes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _see(monkeypatch, Held(pid=7, files={}, elsewhere=False))
    assert doctor._processes().state is State.OK


def test_what_qemu_has_open_may_not_be_seen(
    processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _see(monkeypatch, Hidden(why="process 7 is another user's", here=True))
    found = doctor._processes()
    assert found.state is State.NOTE
    assert "has open: `not-seen` (process 7 is another user's)" in found.found
    assert "helper" in found.remedy


def test_a_qemu_that_has_just_ended(processes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _see(monkeypatch, Hidden(why="it has ended", here=True))
    for folder in ("7/root", "7/fd", "7"):
        (processes / folder).rmdir()
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
    (found,) = doctor._shares(SimpleNamespace(libvirt=section), None)
    assert (found.state, found.found) == (State.OK, f"{tmp_path}/mnt/share can be written")


@pytest.mark.parametrize("sees", [True, False])
def test_a_share_that_only_the_helper_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees: bool
) -> None:
    share = tmp_path / "mnt/share"
    share.mkdir(parents=True)

    def markers(folder: str) -> list[object]:
        assert folder == str(share)
        if not sees:
            raise PermissionError(13, "Permission denied")
        return []

    helper: Any = SimpleNamespace(markers=markers)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(
        "qmpsnap.openstack.nova.doctor.mount_bases_of", lambda _conf: [share.parent]
    )
    (found,) = doctor._shares(None, helper)
    assert found.state is (State.OK if sees else State.NOTE)
    assert ("[qmpsnap_privileged] user" in found.remedy) is not sees
