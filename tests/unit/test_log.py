"""`qmpsnap log`: the history of this host, from its journal alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from lxml import etree

from qmpsnap.cli.drawing.timeline import timeline
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Conclusion, Entry
from qmpsnap.operations.where import Where
from tests.rig.rig import run_cli
from tests.unit.journal_samples import act, creating, merging, without_log


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(tmp_path))
    journal = Journal()
    other = Where(road="libvirt", at="qemu:///system", guest="6d1a-uuid")
    with journal.opened() as store:
        for record in (merging("one"), merging("two", guest="web2", where=other, begun=1001.0)):
            store.begin(record, [act()])
        end = Conclusion(
            outcome="finished",
            ended=1003.5,
            file_format={"volume-1": "raw"},
            after={"volume-1.s2": "qcow2", "volume-1": "raw"},
            active=("/share/volume-1.s2",),
        )
        store.conclude(merging("one"), end)
        store.begin(creating("three"), [act()])
    return journal


def ids(*arguments: str) -> list[str]:
    said = run_cli([*arguments, "-o", "json"])
    assert said.code == 0, said
    return [one["id"] for one in said.json["operations"]]


def test_json(journal: Journal) -> None:
    document = run_cli(["log", "-o", "json"]).json
    assert document["schema"] == "qmpsnap.log/1"
    assert document["journal"] == str(journal.path)
    assert document["notes"] == []
    first = next(one for one in document["operations"] if one["id"] == "one")
    assert first == {
        "id": "one",
        "kind": "commit",
        "guest": "web1",
        "disks": ["vda"],
        "outcome": "finished",
        "begun": "1970-01-01T00:16:40Z",
        "ended": "1970-01-01T00:16:43Z",
        "seconds": 3.5,
        "by": "root",
        "host": "here",
        "road": "qmp",
        "at": "/run/web1.qmp",
        "formats_before": {"volume-1.s2": "qcow2", "volume-1.s1": "qcow2", "volume-1": "raw"},
        "formats_after": {"volume-1.s2": "qcow2", "volume-1": "raw"},
        "file_format": {"volume-1": "raw"},
        "active": ["/share/volume-1.s2"],
        "removed": [],
        "kept": [],
        "consistency": None,
        "frozen_s": None,
        "error": None,
        "message": None,
        "notes": [],
        "resumed": False,
        "token": None,
    }
    assert [one["outcome"] for one in document["operations"]] == ["finished", "open", "open"]


def test_of_one_guest_or_disk(journal: Journal) -> None:
    assert ids("log") == ["one", "three", "two"]
    assert ids("log", "web2") == ids("log", "6d1a-uuid") == ["two"]
    assert ids("log", "web1", "vda") == ["one", "three"]
    assert ids("log", "web1", "vdb") == []
    assert ids("--qmp", "/run/web1.qmp", "log") == ["one", "three"]
    assert ids("log", "-n", "1") == ["two"]


def test_table(journal: Journal) -> None:
    said = run_cli(["log", "web1"])
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split()[:4] == ["BEGUN", "GUEST", "DISK", "KIND"]
    assert "volume-1.s1: qcow2 -> left the chain" in lines[1]
    assert "4 s" in lines[1]
    assert "open" in lines[2]


def test_none_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMPSNAP_STATE", str(tmp_path / "none"))
    said = run_cli(["log", "-o", "json"])
    assert (said.code, said.json["operations"]) == (0, [])
    assert "there is no journal" in said.err


def test_damaged_is_read_as_far_as_it_is_good(journal: Journal) -> None:
    with journal.opened() as store:
        store._database.execute("UPDATE operation SET record = 'x' WHERE id = 'two'")
    said = run_cli(["log", "-o", "json"])
    assert [one["id"] for one in said.json["operations"]] == ["one", "three"]
    assert "operation two cannot be read" in said.json["notes"][0]


def test_no_journal_at_all(journal: Journal) -> None:
    without_log(journal.path)
    journal.path.write_bytes(b"x" * 100)
    said = run_cli(["log"])
    assert said.code == 4
    assert "is damaged" in said.err


class TestTimeline:
    def test_a_bar_an_operation(self, journal: Journal) -> None:
        said = run_cli(["log", "-o", "svg"])
        assert said.code == 0, said
        root = etree.fromstring(said.out.encode())
        titles = [one.text for one in root.iter("{*}title")]
        assert [str(title).partition(",")[0] for title in titles] == [
            "commit one: finished",
            "create three: open",
            "commit two: open",
        ]
        texts = [one.text for one in root.iter("{*}text")]
        assert "web1 vda" in texts
        assert "web2 vda" in texts

    def test_hostile_names(self) -> None:
        guest = "<script>\x00\udcff&"
        root = etree.fromstring(timeline([Entry(record=merging(guest=guest))], 5.0).encode())
        assert "<script>??& vda" in [one.text for one in root.iter("{*}text")]

    def test_nothing(self) -> None:
        assert etree.fromstring(timeline([], 5.0).encode()) is not None


@pytest.mark.parametrize("begun", [1e30, -1e300, math.inf, -math.inf, 253402300800.0])
def test_a_time_that_is_none(journal: Journal, begun: float) -> None:
    """An earlier version took it from a marker of somebody else; all others are shown as ever."""
    with journal.opened() as store:
        for id_ in ("odd", "odd and open"):
            store.begin(creating(id_, begun=begun), [act()])
        store.conclude(creating("odd", begun=begun), Conclusion(outcome="finished", ended=1003.5))
    document = run_cli(["log", "-o", "json"]).json
    odd = next(one for one in document["operations"] if one["id"] == "odd")
    assert odd["begun"] == "?"
    assert odd["seconds"] is None or math.isfinite(odd["seconds"])
    assert len(document["operations"]) == 5
    for format_ in ("table", "yaml", "svg"):
        said = run_cli(["log", "-o", format_])
        assert (said.code, "nan" in said.out) == (0, False), said
    store_ = journal.looked_into()
    assert store_ is not None
    with store_:
        etree.fromstring(timeline(store_.entries(), 2000.0).encode())
