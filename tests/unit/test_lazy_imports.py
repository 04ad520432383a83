"""What a command imports: nothing that only another one needs. No timings: lists of modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.transcript import ReplayMonitor, parse
from tests.unit.qmp_server import Client, serve

ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = ROOT / "fixtures" / "qemu-7.2" / "chain-3.jsonl"

PROGRAM: Final = """
import sys
from qmpsnap.cli.main import run
code = run(sys.argv[1:])
print(code, *sys.modules, file=sys.stderr)
"""

NEVER: Final = {"libvirt", "lxml.builder", "rich", "yaml", "importlib.metadata", "qmpsnap.demo"}
"""Neither `--help` nor `chain` needs these."""


def imported(*arguments: str) -> set[str]:
    """Names of all modules that a command has imported when it is done."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    code, *modules = done.stderr.splitlines()[-1].split(" ")
    assert code == "0"
    return set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["job", "--help"]])
def test_help_imports_no_command(arguments: list[str]) -> None:
    found = imported(*arguments)
    assert {name for name in found if name.startswith("qmpsnap.")} == {
        "qmpsnap.cli",
        "qmpsnap.cli.command",
        "qmpsnap.cli.commands",
        "qmpsnap.cli.completing",
        "qmpsnap.cli.global_options",
        "qmpsnap.cli.group",
        "qmpsnap.cli.main",
        "qmpsnap.cli.output",
        "qmpsnap.cli.signals",
        "qmpsnap.cli.tables",
        "qmpsnap.cli.text",
        "qmpsnap.cli.units",
        "qmpsnap.errors",
        *(["qmpsnap.cli.job", "qmpsnap.cli.job.group"] if "job" in arguments else []),
    }
    assert found.isdisjoint(NEVER | {"asyncio", "dataclasses", "json", "lxml", "msgspec", "qemu"})


def test_version_asks_for_it() -> None:
    assert "importlib.metadata" in imported("--version")


@pytest.mark.parametrize("output", ["table", "json"])
def test_chain_imports_what_reads_a_guest(output: str, tmp_path: Path) -> None:
    with serve(tmp_path / "qmp", answer_as_recorded) as socket:
        found = imported("--qmp", socket, "chain", "-o", output)
    rooms = {".".join(name.split(".")[:3]) for name in found if name.startswith("qmpsnap.")}
    assert "qmpsnap.guests.qmp" in rooms
    others = {
        "cli.audit",
        "cli.demo",
        "cli.every_guest",
        "cli.guests",
        "cli.parallel",
        "cli.doctor",
        "cli.drawing",
        "cli.job",
        "cli.volume",
    }
    others |= {"cli.findings", "cli.plans", "cli.progress", "cli.snapshots", "cli.verify"}
    others |= {"guests.libvirt", "guests.offline", "guests.replay", "guests.record", "findings"}
    others |= {"operations.merge", "operations.snapshot", "operations.forecast"}
    others |= {"operations.outcome", "operations.headers", "status"}
    assert rooms.isdisjoint({f"qmpsnap.{room}" for room in others})
    assert found.isdisjoint(NEVER | {"qmpsnap.findings"})


def answer_as_recorded(client: Client) -> None:
    """A QEMU that answers as a recorded one did."""
    monitor = ReplayMonitor(parse(RECORDED.read_text(), RECORDED.name))
    client.greet()
    while command := client.receive():
        try:
            value = monitor.execute(command["execute"], command.get("arguments"))
        except CommandFailed as error:
            client.refuse(command, error.error_class, error.description)
        else:
            client.answer(command, value)
