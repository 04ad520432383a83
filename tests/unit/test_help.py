"""`--help`: sections, summaries that fit, examples that are understood."""

from __future__ import annotations

import shlex

import click
import pytest

from docs.generate import all_commands
from qmpsnap.cli.command import Command
from qmpsnap.cli.commands import COMMANDS, HIDDEN
from qmpsnap.cli.main import cli, run
from qmpsnap.guests.reader import MAX_STALL_S

EVERY = all_commands()
ENTRIES = [*(entry for entries in COMMANDS.values() for entry in entries.items()), *HIDDEN.items()]


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run([*arguments, "--help"]) == 0
    return capsys.readouterr().out.splitlines()


def test_sections_and_whole_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys)
    for title, entries in COMMANDS.items():
        assert f"{title}:" in shown
        for name, entry in entries.items():
            assert any(line.split() == [name, *entry.summary.split()] for line in shown), name


@pytest.mark.parametrize("arguments", [(), ("job",), *((name,) for name in HIDDEN)])
def test_nothing_is_wider_than_a_terminal(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(len(line) <= 80 for line in lines(capsys, *arguments))


def test_what_has_moved_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    first = {line.split()[0] for line in lines(capsys) if line.strip()}
    assert first.isdisjoint(HIDDEN)


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_each_entry_leads_to_its_command(name: str, entry: object) -> None:
    with click.Context(cli) as context:
        found = cli.get_command(context, name)
    assert found is not None
    assert found.help


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Commands that were called; none is carried out."""
    found: list[Command] = []
    monkeypatch.setattr(Command, "invoke", lambda command, _context: found.append(command))
    return found


@pytest.mark.parametrize(("name", "command"), EVERY)
class TestEach:
    def test_shows_an_example(
        self, name: str, command: Command, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = lines(capsys, *name.split())
        assert command.examples
        for example in command.examples:
            assert f"  {example}" in shown
            assert f" {name}" in example

    def test_examples_are_understood(
        self, name: str, command: Command, called: list[Command]
    ) -> None:
        for example in command.examples:
            assert run(words(example)) == 0
        assert called == [command] * len(command.examples)


def test_first_examples_are_understood(called: list[Command]) -> None:
    for example in cli.examples:
        assert run(words(example)) == 0
    assert len(called) == len(cli.examples) > 0


def words(example: str) -> list[str]:
    """The arguments that the program gets from a shell."""
    return shlex.split(example.partition(" > ")[0])[1:]


def test_defaults_that_are_written_out_are_the_real_ones() -> None:
    (option,) = (one for one in cli.params if one.name == "max_stall")
    assert isinstance(option, click.Option)
    assert f"[default: {MAX_STALL_S:g}]" in (option.help or "")


@pytest.mark.parametrize(
    ("typed", "meant"), [("chian", "chain"), ("volume-snapshot-crate", "volume-snapshot-create")]
)
def test_a_slip(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([typed]) == 2
    assert f"No such command '{typed}'. Did you mean {meant}" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("qmpsnap, version ")
