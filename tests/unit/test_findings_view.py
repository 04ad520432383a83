"""What `verify` and `audit` show on a terminal: a block a finding, no name torn."""

from __future__ import annotations

import pytest

from qmpsnap.cli.findings import Audited, tell
from qmpsnap.cli.tables import Screen
from qmpsnap.findings import finding as rules
from qmpsnap.findings.finding import Finding

LONG = "/share/5f2c9a3e-8f0a-4a57-9d6b-3c1f0a7b9e11/volume-1.snapshot-of-monday"
FOUND = Finding(
    rule=rules.GUEST_UNREADABLE,
    guest="web1",
    disk="vda",
    file=LONG,
    message="it did not answer, and nobody knows why this is so today",
    remedy="Look at it\x1b.",
)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_block(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qmpsnap.cli.output.screen", lambda: Screen(width=width))
    assert tell("table", [Audited(guest="web1", source="test", seen=None)], [FOUND]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{FOUND.severity} guest-unreadable  web1 vda", f"  {LONG}"]
    assert " ".join(line.strip() for line in lines[2:-1]) == f"{FOUND.message} Look at it\\x1b."
    assert all(len(line) <= width for line in lines if LONG not in line)
    assert lines[-1] == ""


def test_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("qmpsnap.cli.output.screen", lambda: Screen(width=60))
    assert tell("table", [], []) == 0
    assert capsys.readouterr().out == "no findings\n"


def test_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    tell("table", [], [FOUND])
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("SEVERITY")
    assert LONG in row
    assert FOUND.message in row
