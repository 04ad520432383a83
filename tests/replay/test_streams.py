"""Somebody else's stream, on QEMUs of every version: only one that has the fault is not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.reader import Reader, StreamLingers
from qmpsnap.guests.replay import ReplayGuest
from qmpsnap.monitor.transcript import ReplayMonitor, parse
from tests.rig import fixtures
from tests.rig.rig import run_cli
from tests.rig.situations import situation

RECORDED = [
    path
    for path in fixtures.transcripts()
    if path.parent.name.startswith("qemu-") and '"type": "stream"' in path.read_text()
]


def lingering(path: Path) -> str:
    """The recording, with the job started so that it stays when it has ended, as libvirt does it."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    jobs = next(line["return"] for line in lines if line.get("execute") == "query-jobs")
    major = int(str(lines[0]["qemu"]).partition(".")[0])
    details = [
        {
            "device": job["id"],
            "type": job["type"],
            "status": job["status"],
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        for job in jobs
    ]
    version = {"qemu": {"major": major, "minor": 0, "micro": 0}, "package": ""}
    lines = [line for line in lines if line.get("execute") != "query-block-jobs"]
    lines += [
        {"execute": "query-block-jobs", "return": details},
        {"execute": "query-version", "return": version},
    ]
    return "\n".join(json.dumps(line) for line in lines)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_only_a_qemu_that_has_the_fault_is_not_read(path: Path) -> None:
    text = lingering(path)
    reader = Reader(ReplayMonitor(parse(text, path.name)), max_stall_s=None)
    if path.parent.name == "qemu-7.2":
        with pytest.raises(StreamLingers):
            reader.read()
    else:
        assert reader.read().incomplete is None
    report = ReplayGuest(parse(text, path.name)).read()
    assert (report.notes, report.disks) == ((), fixtures.replayed(path).disks)


@situation(
    "Another client streams, with a job that stays when it has ended",
    happens="a QEMU that cannot crash then (not 6.0 to 9), and every recording, is read in full; of "
    "the others a look shows what can be had without danger, and operations are refused",
    code=0,
    then="On QEMU 6.0 to 9: wait until that job was dismissed.",
    kind=21,
)
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_look(path: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recorded.jsonl"
    recording.write_text(lingering(path))
    said = run_cli(["--replay", str(recording), "chain", "-o", "json"])
    assert (said.code, said.json["notes"]) == (0, []), said
    assert said.json["disks"][0]["layers"]
