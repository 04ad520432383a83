"""What a QEMU can do is asked of it without any effect, and remembered while it lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmpsnap.monitor import memory
from qmpsnap.monitor.abilities import NOWHERE, PROBES, Abilities, Ability, is_unexpected
from qmpsnap.monitor.base import CommandFailed, ConnectionLost
from qmpsnap.monitor.memory import Process, qemu_process
from tests.unit.scripted import ScriptedMonitor, not_found, refused

QEMU = Process(os.getpid(), memory._started(os.getpid()))


@pytest.fixture(autouse=True)
def _nothing_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_heard", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run-time folder of this test."""
    above = tmp_path / "run"
    above.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(above))
    return above / "qmpsnap"


class TestProbes:
    @pytest.mark.parametrize("ability", PROBES)
    @pytest.mark.parametrize("can", [False, True])
    def test_asked_once(self, ability: Ability, can: bool) -> None:
        monitor = ScriptedMonitor({}, can={ability} if can else ())
        abilities = Abilities(monitor)
        assert abilities.knows(ability) is None
        assert [abilities.has(ability), abilities.has(ability)] == [can, can]
        assert (monitor.probes, monitor.sent) == ([ability], [])
        assert abilities.knows(ability) is can

    @pytest.mark.parametrize(
        ("reply", "known"),
        [
            (CommandFailed("block-commit", "DeviceNotFound", "Device ':' not found"), True),
            (refused("block-stream", "Cannot find device=':' nor node-name=':'"), True),
            (refused("query-block", "Parameter 'flat' is unexpected"), False),
            (not_found("block-commit"), False),
            (refused("block-commit", "not now"), None),
            ([], True),
        ],
    )
    def test_what_an_answer_means(self, reply: object, known: bool | None) -> None:
        abilities = Abilities(ScriptedMonitor({}))
        abilities.learn([Ability.MASKED_COMMIT], [reply])
        assert abilities.knows(Ability.MASKED_COMMIT) is known

    def test_an_answer_that_is_neither_is_not_built_on(self) -> None:
        class Odd(ScriptedMonitor):
            def _about(self, ability: Ability) -> CommandFailed:
                return refused("block-commit", "not now")

        monitor = Odd({})
        abilities = Abilities(monitor)
        assert not abilities.has(Ability.MASKED_COMMIT)
        assert not abilities.has(Ability.MASKED_COMMIT)
        assert len(monitor.probes) == 2

    def test_no_answer_is_not_a_no(self) -> None:
        class Gone(ScriptedMonitor):
            def execute_all(self, queries: object, timeout: float = 0) -> list[object]:
                raise ConnectionLost("block-commit", "gone")

        with pytest.raises(ConnectionLost):
            Abilities(Gone({})).has(Ability.MASKED_COMMIT)

    def test_a_command_that_changes_something_can_never_be_carried_out(self) -> None:
        """Twice over: no node can have that name, and the argument has a type that is refused."""
        for command, arguments in PROBES.values():
            if not command.startswith("query-"):
                assert arguments["device"] == NOWHERE == ":"
            assert list(arguments.values())[-1] == 7

    def test_which_argument_is_unexpected(self) -> None:
        error = refused("query-block", "Parameter 'flat' is unexpected")
        assert is_unexpected(error, "flat")
        assert not is_unexpected(error, "device")
        assert not is_unexpected([], "flat")


class TestMemory:
    def ask(self, *, can: bool) -> tuple[bool, int]:
        """As a command does: what it learns, and how often it asks."""
        monitor = ScriptedMonitor({}, can={Ability.FLAT_DEVICES} if can else ())
        found = Abilities(monitor, QEMU).has(Ability.FLAT_DEVICES)
        return found, len(monitor.probes)

    def test_in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
        assert self.ask(can=True) == (True, 1)
        assert self.ask(can=False) == (True, 0)

    def test_by_the_next_command(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.ask(can=True) == (True, 1)
        monkeypatch.setattr(memory, "_heard", {})
        assert self.ask(can=False) == (True, 0)
        assert [one.name for one in folder.iterdir()] == ["abilities.json"]
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_of_another_process_with_the_same_number(self, folder: Path) -> None:
        self.ask(can=True)
        assert memory.recall(Process(QEMU.pid, QEMU.started + 1)) == {}

    def test_processes_that_have_ended_are_forgotten(self, folder: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        started = memory._started(gone.pid)
        memory.note(Process(gone.pid, started), {"a": True})
        gone.wait()
        memory.note(QEMU, {"b": False})
        stored = json.loads((folder / "abilities.json").read_text())
        assert stored == {f"{QEMU.pid} {QEMU.started}": {"b": False}}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "7",
            "[" * 100_000,
            '{"%s": 7}',
            '{"%s": {"query-block flat": "yes"}}',
            '{"%s": ["query-block flat"]}',
        ],
    )
    def test_damaged_file(self, folder: Path, text: str) -> None:
        folder.mkdir(mode=0o700)
        file = folder / "abilities.json"
        file.write_text(text.replace("%s", f"{QEMU.pid} {QEMU.started}"))
        assert self.ask(can=False) == (False, 1)
        assert json.loads(file.read_text())

    @pytest.mark.parametrize("spoil", ["link", "folder", "open", "foreign", "loose"])
    def test_what_somebody_else_could_have_written(
        self, folder: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ask(can=True)
        monkeypatch.setattr(memory, "_heard", {})
        file = folder / "abilities.json"
        match spoil:
            case "link":
                file.rename(tmp_path / "there")
                file.symlink_to(tmp_path / "there")
            case "folder":
                folder.rename(tmp_path / "elsewhere")
                folder.symlink_to(tmp_path / "elsewhere")
            case "open":
                folder.chmod(0o777)
            case "loose":
                folder.parent.chmod(0o777)
                file.unlink()
            case _:
                monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert self.ask(can=False) == (False, 1)

    @pytest.mark.parametrize("given", [None, "relative"])
    def test_without_a_run_time_folder(
        self, given: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        if given is not None:
            monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert memory._folder() is None
        assert self.ask(can=True) == (True, 1)

    def test_root_has_one_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert memory._folder() == Path("/run/qmpsnap")

    def test_no_process_no_memory(self, folder: Path) -> None:
        Abilities(ScriptedMonitor({})).has(Ability.FLAT_DEVICES)
        assert not folder.exists()


class TestProcess:
    @pytest.mark.parametrize(
        ("name", "is_one"),
        [
            ("/usr/bin/qemu-system-x86_64", True),
            ("/usr/libexec/qemu-kvm", True),
            ("qemu-storage-daemon", True),
            ("/usr/bin/socat", False),
            ("/opt/qemu/proxy", False),
        ],
    )
    def test_a_proxy_is_no_qemu(self, name: str, is_one: bool) -> None:
        with subprocess.Popen([name, "60"], executable="/bin/sleep") as process:
            while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
                pass  # for a moment in execve() a process has none
            found = qemu_process(process.pid)
            process.kill()
        assert (found is not None) is is_one
        if found is not None:
            assert found.pid == process.pid
            assert found.started > 0

    @pytest.mark.parametrize("pid", [None, 0, 2**31 - 1])
    def test_none(self, pid: int | None) -> None:
        assert qemu_process(pid) is None
