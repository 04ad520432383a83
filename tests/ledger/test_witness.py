"""The ledger as a witness of what runs: `verify --ledger`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.cli.main import run
from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import Format
from tests.ledger.acts import BASE


@pytest.mark.parametrize(("known", "code"), [("raw", 0), ("qcow2", 3), (None, 0)])
def test_verify_compares_with_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known: str | None, code: int
) -> None:
    recorded = Path(__file__).parents[2] / "fixtures/qemu-7.2/device-nvme.jsonl"
    capsys.readouterr()
    assert run(["--replay", str(recorded), "chain", "-o", "json"]) == 0
    (disk, *_) = json.loads(capsys.readouterr().out)["disks"]
    url = f"sqlite:///{tmp_path}/ledger.db"
    engine = open_engine(url)
    db_sync(engine)
    if known is not None:
        said = replace(BASE, file=disk["layers"][0]["file"], format=Format(known))
        with Store(engine).writing() as ledger:
            ledger.state(str(disk["serial"]), [said])
    engine.dispose()
    words = ["--replay", str(recorded), "verify", "--ledger", url, "-o", "json"]
    assert run(words) == code
    document = json.loads(capsys.readouterr().out)
    conflicts = [one for one in document["findings"] if one["id"] == "format-conflict"]
    assert len(conflicts) == (1 if code else 0)
    for one in conflicts:
        assert "ledger says qcow2" in one["message"]
