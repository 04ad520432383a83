"""`--plan` for people: what is shown can be pasted, and what is done for all disks stands once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from qmpsnap.cli.plans import show_plans
from qmpsnap.cli.tables import Screen
from qmpsnap.operations.forecast import Forecast
from qmpsnap.operations.space import Growth
from qmpsnap.operations.step import Does, Step
from tests.unit import samples

OVERLAY = Step(
    does=Does.MAKE, by="file", what="make /share/volume-1.new", arguments={"format": "qcow2"}
)
OPENING = Step(
    does=Does.OPEN,
    by="qmp",
    what="blockdev-add",
    arguments={
        "driver": "qcow2",
        "node-name": "new",
        "file": {"driver": "file", "filename": "/share/a name with blanks, é, \\ and \u202e.qcow2"},
    },
)
SWITCH = Step(does=Does.SWITCH, by="qmp", what="transaction", arguments={"actions": []})
FREEZE = Step(does=Does.FREEZE, by="agent", what="guest-fsfreeze-freeze")


def forecast(disk: str, *steps: Step, for_all: int = 0, why: str = "") -> Forecast:
    return Forecast(
        disk=disk,
        kind="create",
        why=why,
        steps=steps,
        moved=Growth(moved=0, needed=0),
        before=samples.disk().layers,
        after=(("volume-1.new", "qcow2"), ("volume-1", "raw")),
        for_all=for_all,
    )


def shown(
    forecasts: Sequence[Forecast],
    width: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setattr("qmpsnap.cli.output.screen", lambda: Screen(width=width))
    show_plans("create", forecasts, "table")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [None, 60, 80, 200])
def test_arguments_can_be_pasted(
    width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown([forecast("vda", OVERLAY, OPENING, SWITCH)], width, monkeypatch, capsys)
    text = "\n".join(lines)
    found = []
    while "{" in text:
        value, end = json.JSONDecoder().raw_decode(text, text.index("{"))
        found.append(value)
        text = text[end:]
    assert found == [dict(one.arguments) for one in (OVERLAY, OPENING, SWITCH)]


def test_narrow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    why = "because the other way would move so much more of the data"
    made = [forecast("vda", OVERLAY, OPENING, FREEZE, why=why)]
    assert shown(made, 60, monkeypatch, capsys) == [
        "create on vda: create (because the other way would move so",
        "much more of the data)",
        "1  file  make /share/volume-1.new",
        '  {"format": "qcow2"}',
        "2  qmp  blockdev-add",
        "  {",
        '    "driver": "qcow2",',
        '    "node-name": "new",',
        '    "file": {',
        '      "driver": "file",',
        '      "filename": "/share/a name with blanks, \\u00e9, \\\\ and \\u202e.qcow2"',
        "    }",
        "  }",
        "3  agent  guest-fsfreeze-freeze",
        "moves no data; afterwards: volume-1 (raw) <- volume-1.new",
        "(qcow2)",
    ]


@pytest.mark.parametrize("width", [None, 30, 200])
def test_what_is_done_for_all_stands_once_at_the_end(
    width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [forecast("vda", OVERLAY), forecast("vdb", OVERLAY, FREEZE, SWITCH, for_all=2)]
    lines = shown(made, width, monkeypatch, capsys)
    headlines = [line for line in lines if line.startswith("create on ")]
    assert headlines == ["create on vda: create", "create on vdb: create", "create on all disks"]
    assert [line[0] for line in lines if line[:1].isdigit()] == ["1", "2", "3", "4"]
    after = lines[lines.index("create on all disks") :]
    assert "transaction" in "\n".join(after)
    assert "transaction" not in "\n".join(lines[: -len(after)])
    assert "afterwards" not in "\n".join(after)
