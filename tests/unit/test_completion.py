"""Completion: the scripts are what a shell understands, and a shell gets what it asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from qmpsnap.cli.commands import COMMANDS, HIDDEN
from qmpsnap.cli.completion import SHELLS, VARIABLE, script
from qmpsnap.cli.connection import Road
from qmpsnap.cli.main import cli, run
from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disks
from tests.unit import samples

ROOT = Path(__file__).parents[2]
NAMES = {name for entries in COMMANDS.values() for name in entries}


def completed(*words: str) -> list[str]:
    """What completes the last word."""
    *args, incomplete = words
    made = ShellComplete(cli, {}, "qmpsnap", VARIABLE)
    return [one.value for one in made.get_completions(args, incomplete)]


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Road, str | None]]:
    """Every guest has disk `vda` with two snapshots; returns which were read."""
    read: list[tuple[Road, str | None]] = []

    def reads(road: Road, name: str | None) -> Disks:
        read.append((road, name))
        return samples.guest(samples.disk(3))

    monkeypatch.setattr(Road, "read", reads)
    return read


def test_commands() -> None:
    assert set(completed("")) >= NAMES
    assert set(completed("")).isdisjoint(HIDDEN)
    assert completed("cha") == ["chain"]
    assert set(completed("job", "")) >= {"list", "wait", "set-speed"}


def test_options() -> None:
    assert "--quiesce" in completed("create", "--q")
    assert completed("create", "--quiesce", "t") == ["try"]
    assert completed("chain", "-o", "js") == ["json"]
    assert "--connect" in completed("--c")


@pytest.mark.parametrize("command", ["chain", "create", "delete", "list", "verify", "orphans"])
def test_disks(command: str, guest: list[tuple[Road, str | None]]) -> None:
    assert completed("-c", "test:///x", command, "web1", "v") == ["vda"]
    assert completed("--qmp", "/qmp", command, "") == ["vda"]
    assert guest == [
        (Road(connect="test:///x", passthrough=False), "web1"),
        (Road(qmp="/qmp", passthrough=False), None),
    ]


def test_snapshots(guest: list[tuple[Road, str | None]]) -> None:
    assert completed("delete", "web1", "vda", "") == ["s2", "s1"]
    assert completed("--qmp", "/qmp", "delete", "vda", "s1") == ["s1"]
    assert completed("create", "web1", "vda", "") == [], "a new name"


def test_more_disks(guest: list[tuple[Road, str | None]]) -> None:
    assert completed("create", "web1", "vda", "m", "--also", "") == ["vda"]


def test_by_environment(
    guest: list[tuple[Road, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMPSNAP_QMP", "/qmp")
    assert completed("delete", "vda", "") == ["s2", "s1"]
    assert guest[0][0].qmp == "/qmp"


def test_files() -> None:
    made = ShellComplete(cli, {}, "qmpsnap", VARIABLE)
    (one,) = made.get_completions(["explain"], "x")
    assert one.type == "file"


def test_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_road: Road, _name: str | None) -> Disks:
        raise QmpsnapError

    monkeypatch.setattr(Road, "read", fail)
    assert completed("chain", "web1", "") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)
    assert VARIABLE in script(shell)


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment with `qmpsnap` in its PATH."""
    (tmp_path / "bin").mkdir()
    file = tmp_path / "bin" / "qmpsnap"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -m qmpsnap "$@"\n')
    file.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def said_by(shell: str, code: str, environment: dict[str, str]) -> set[str]:
    done = subprocess.run(
        [shell, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


def test_bash(program: dict[str, str]) -> None:
    code = f"""{script("bash")}
COMP_WORDS=(qmpsnap gue) COMP_CWORD=1
_qmpsnap_completion qmpsnap
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    assert said_by("bash", code, program) == {"guests"}


def test_fish(program: dict[str, str]) -> None:
    assert said_by("fish", f"{script('fish')}\ncomplete -C 'qmpsnap gue'", program) == {"guests"}


def test_zsh(program: dict[str, str]) -> None:
    """The line editor needs a terminal; what the function gets from the program is looked at."""
    code = f"""
compdef() {{ :; }}
_describe() {{ print -l -- ${{(P)3}}; }}
words=(qmpsnap gue) CURRENT=2
{script("zsh")}
_qmpsnap_completion
"""
    done = subprocess.run(
        ["zsh", "-f", "-c", code], env=program, capture_output=True, text=True, check=False
    )
    assert "guests" in done.stdout, done


def test_a_context_of_its_own() -> None:
    """What one look remembers is not there for the next one."""
    completed("--qmp", "/qmp", "chain", "")
    with click.Context(cli) as context:
        assert not context.meta
