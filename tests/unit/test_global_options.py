"""Global options, before the name of a command and after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qmpsnap.cli.connection import Road
from qmpsnap.cli.main import run
from qmpsnap.formats.layers import Disks
from tests.unit import samples

Seen = list[tuple[Road, str | None]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The options and the GUEST that each command came with; all guests have disk `vda`."""
    found: Seen = []

    def read(road: Road, guest: str | None) -> Disks:
        found.append((road, guest))
        return samples.guest()

    monkeypatch.setattr(Road, "read", read)
    return found


def both(options: Sequence[str], *rest: str) -> list[list[str]]:
    return [[*options, *rest], [*rest, *options], [rest[0], *options, *rest[1:]]]


@pytest.mark.parametrize(
    ("options", "road"),
    [
        (["--connect", "test:///default"], Road(connect="test:///default")),
        (["-c", "test:///default"], Road(connect="test:///default")),
        (["--no-passthrough"], Road(passthrough=False)),
        (["--max-stall", "0"], Road(max_stall_s=0)),
        (["--max-stall=2.5", "-q"], Road(max_stall_s=2.5)),
        ([], Road()),
    ],
)
def test_with_a_guest(options: list[str], road: Road, seen: Seen) -> None:
    for arguments in both(options, "chain", "web1", "vda"):
        assert run(arguments) == 0
    assert seen == [(road, "web1")] * 3


@pytest.mark.parametrize(
    ("options", "road"),
    [
        (["--qmp", "/qmp"], Road(qmp="/qmp")),
        (["--qmp=/qmp", "--agent", "/agent"], Road(qmp="/qmp", agent="/agent")),
        (["--replay", "/t"], Road(replay="/t")),
    ],
)
def test_guest_is_left_out(options: list[str], road: Road, seen: Seen) -> None:
    for arguments in both(options, "chain", "vda"):
        assert run(arguments) == 0
    assert seen == [(road, None)] * 3


def test_apart(seen: Seen) -> None:
    assert run(["--qmp", "/qmp", "chain", "vda", "--agent", "/agent"]) == 0
    assert run(["--agent", "/agent", "chain", "vda", "--qmp", "/qmp"]) == 0
    assert seen == [(Road(qmp="/qmp", agent="/agent"), None)] * 2


@pytest.mark.parametrize("arguments", both(["-o", "json"], "chain", "web1"))
def test_output(arguments: list[str], seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "qmpsnap.chain/1"


def test_errors_are_json_as_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in both(["-o", "json", "--qmp", str(tmp_path / "no")], "disks"):
        assert run(arguments) == 7
        assert json.loads(capsys.readouterr().err)["error"] == "CannotConnect"


def test_twice_the_same_is_once(seen: Seen) -> None:
    assert run(["--qmp", "/qmp", "-o", "json", "chain", "--qmp", "/qmp", "-o", "json"]) == 0
    assert seen == [(Road(qmp="/qmp"), None)]


def test_between_job_and_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    socket = str(tmp_path / "no")
    for arguments in (
        ["-o", "json", "job", "--qmp", socket, "list"],
        ["job", "-o", "json", "list", "--qmp", socket],
        ["--qmp", socket, "jobs", "-o", "json"],
    ):
        assert run(arguments) == 7
        assert json.loads(capsys.readouterr().err)["error"] == "CannotConnect"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--qmp", "a", "chain", "--qmp", "b"], "--qmp stands before the command as a and after"),
        (["-c", "a", "chain", "web1", "-c", "b"], "--connect stands before the command as a and"),
        (["-o", "json", "chain", "web1", "-o", "yaml"], "--output stands before the command as"),
        (["--max-stall", "1", "chain", "web1", "--max-stall", "2"], "--max-stall stands before"),
        (["--qmp", "a", "chain", "-c", "b"], "--qmp, --connect and --replay lead to different"),
        (["chain", "--replay", "a", "--qmp", "b"], "--qmp, --connect and --replay lead to"),
        (["chain", "web1", "--agent", "a"], "--agent goes with --qmp"),
        (["-q", "chain", "web1", "-v"], "-q and -v contradict each other"),
        (["-o", "svg", "disks", "web1"], "'svg' is not one of"),
        (["-o", "pdf", "disks", "web1"], "'pdf' is not one of"),
        (["-o", "json", "record", "web1", "f"], "-o does not go with `qmpsnap record`"),
        (["-o", "json", "cancel", "web1", "vda"], "-o goes with --plan here"),
        (["resume", "web1", "vda", "--plan"], "'web1' is not the id of an operation"),
        (["--qmp", "a", "resume", "vda"], "`qmpsnap job resume`"),
    ],
)
def test_contradictions(
    arguments: list[str], sentence: str, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert sentence in capsys.readouterr().err
    assert seen == []


def test_environment(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///environment")
    assert run(["chain", "web1"]) == 0
    assert seen[0][0].uri == "test:///environment"


@pytest.mark.parametrize(("options", "expected"), [([], "note: mind this\n"), (["-q"], "")])
def test_quiet(
    options: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    noted = Disks(guest="web1", disks=(), notes=("mind this",))
    monkeypatch.setattr(Road, "read", lambda _road, _guest: noted)
    for arguments in both(options, "chain", "web1"):
        assert run(arguments) == 0
        assert capsys.readouterr().err == expected


def test_quiet_errors_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["-q", "chain", "--qmp", str(tmp_path / "no")]) == 7
    assert "cannot connect" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "level"), [(["-v"], 20), (["-vv"], 10)])
def test_verbose(
    options: list[str], level: int, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    basic: Callable[..., None] = lambda level, **_: levels.append(level)  # noqa: E731
    monkeypatch.setattr("logging.basicConfig", basic)
    for arguments in both(options, "chain", "web1"):
        assert run(arguments) == 0
    assert levels == [level] * 3


def test_verbose_before_and_after_adds_up(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    monkeypatch.setattr("logging.basicConfig", lambda level, **_: levels.append(level))
    assert run(["-v", "chain", "web1", "-v"]) == 0
    assert levels == [10]
