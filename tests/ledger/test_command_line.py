"""`qmpsnap ledger …`, as a person gives it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.cli.main import run
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Format, Intent, Kind, Place
from tests.ledger.acts import BASE, asked, commit, create, done, pull
from tests.rig.remedies import remedy

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command on this test's ledger."""
    monkeypatch.setenv("QMPSNAP_LEDGER", url)

    def give(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["ledger", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return give


@pytest.fixture
def filled(store: Store) -> Store:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    done(store, create(), {"volume-1": "qcow2", "volume-1.a": "qcow2"})
    return store


def test_show_in_every_form(filled: Store, call: Call) -> None:
    code, table, notes = call("show")
    assert code == 0
    assert "volume-1.a" in table
    assert "ALARM" in table
    assert "available" in table
    assert "1 statements are not believed" in notes
    document = json.loads(call("show", "-o", "json")[1])
    assert document["schema"] == "qmpsnap.ledger/1"
    assert {one["file"]: one["format"] for one in document["files"]} == {
        "volume-1": "raw",
        "volume-1.a": "qcow2",
    }
    assert [one["alarm"] for one in document["differences"]] == [True]
    assert document["snapshots"][0]["control"] == "volume"
    rows = list(csv.DictReader(io.StringIO(call("show", "1", "-o", "csv")[1])))
    assert [one["format"] for one in rows] == ["raw", "qcow2"]
    assert "qmpsnap.ledger/1" in call("show", "-o", "yaml")[1]
    assert json.loads(call("show", "2", "-o", "json")[1])["files"] == []


def test_history_has_what_was_not_believed(filled: Store, call: Call) -> None:
    document = json.loads(call("history", "1", "volume-1", "-o", "json")[1])
    assert [one["believed"] for one in document["statements"]] == [True, False]
    assert "creating_at_compute" in call("history", "1")[1]


def test_set_settles_what_was_stated_otherwise(filled: Store, call: Call) -> None:
    assert call("set", "1", "volume-1", "--format", "raw", "--why", "looked")[0] == 0
    assert json.loads(call("show", "-o", "json")[1])["differences"] == []


@remedy("KnownOtherwise")
def test_set_changes_a_format_only_for_who_knows_it(filled: Store, call: Call) -> None:
    code, _, said = call("set", "1", "volume-1", "--format", "qcow2", "--why", "x")
    assert (code, "known as raw" in said) == (4, True)
    assert call("history", "1", "volume-1")[0] == 0
    assert call("set", "1", "volume-1", "--format", "qcow2", "--was", "raw", "--why", "x")[0] == 0
    with filled.reading() as ledger:
        assert ledger.format("1", "volume-1") is Format.QCOW2


@remedy("NotBelievable")
@pytest.mark.parametrize(
    "words",
    [
        ("volume-1.a", "--format", "raw", "--was", "qcow2"),
        ("volume-1.z", "--format", "raw"),
        ("volume-1.z", "--format", "qcow2"),  # a second chain
        ("volume-1", "--backing", "volume-1.a"),
        ("volume-1", "--place", "left"),
        ("volume-1.a", "--place", "left"),
    ],
    ids=str,
)
def test_set_refuses_what_cannot_be(filled: Store, call: Call, words: tuple[str, ...]) -> None:
    before = call("history", "1")[1]
    code, _, said = call("set", "1", *words, "--why", "x")
    assert (code, "cannot be stated so" in said) == (4, True)
    assert call("show", "1")[0] == 0
    assert call("history", "1")[1] == before


@remedy("VolumeBusy")
def test_nothing_is_set_while_an_operation_is_open(filled: Store, call: Call) -> None:
    with filled.writing() as ledger:
        token = asked(ledger, create("b", "volume-1.a")).token
    code, _, said = call("set", "1", "volume-1", "--format", "raw", "--why", "x")
    assert (code, token in said) == (4, True)
    assert call("settle", token, "--why", "the host is gone")[0] == 0
    assert call("set", "1", "volume-1.b", "--place", "left", "--why", "never switched")[0] == 0
    with filled.writing() as ledger:
        ledger.removed("1", "volume-1.b")
        assert ledger.chain("1").active.file == "volume-1.a"


@remedy("OperationUnsettled")
@pytest.mark.parametrize("intent", [pull(), create("b", "volume-1.a")], ids=["delete", "create"])
@pytest.mark.parametrize("is_asked", [False, True])
def test_what_stands_in_the_way_is_settled_as_the_error_says(
    filled: Store, call: Call, intent: Intent, is_asked: bool
) -> None:
    """A volume was detached in between, say, so that its deletion is of another kind now."""
    with filled.writing() as ledger:
        operation = ledger.begin(intent)
        if is_asked:
            ledger.hand_over(operation.token)
    with pytest.raises(OperationUnsettled) as refused, filled.writing() as ledger:
        ledger.begin(commit())
    (command,) = re.findall("`qmpsnap ledger (.*)`", refused.value.way_out)
    assert call(*command.split())[0] == 0
    unsure = is_asked and intent.kind is Kind.CREATE
    if unsure:
        call("set", "1", "volume-1.b", "--place", "left", "--why", "the guest does not have it")
    with filled.writing() as ledger:
        ledger.begin(commit())


def test_an_unknown_operation_cannot_be_settled(filled: Store, call: Call) -> None:
    assert call("settle", "nobody", "--why", "x")[0] == 4


def test_export_and_import_into_another_ledger(
    filled: Store, call: Call, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = tmp_path / "ledger.json"
    exported.write_text(call("export")[1])
    before = _without_when(call("show", "-o", "json")[1])
    assert call("import", str(exported))[0] == 0  # nothing is new
    assert _without_when(call("show", "-o", "json")[1]) == before
    monkeypatch.setenv("QMPSNAP_LEDGER", f"sqlite:///{tmp_path}/other.db")
    for stated in (2, 0):
        code, text, _ = call("import", str(exported), "-o", "json")
        assert (code, json.loads(text)["stated"]) == (0, stated)
    document = json.loads(call("show", "-o", "json")[1])
    assert {one["file"]: (one["format"], one["witness"]) for one in document["files"]} == {
        "volume-1": ("raw", "import"),
        "volume-1.a": ("qcow2", "import"),
    }
    assert [one["state"] for one in document["snapshots"]] == ["available"]


def _without_when(text: str) -> list[object]:
    return [(one["file"], one["format"]) for one in json.loads(text)["files"]]


@remedy("BadImport")
@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda _: "[" * 100_000,
        lambda _: '{"schema": "qmpsnap.chain/1", "files": []}',
        lambda text: text.replace('"raw"', '"vmdk"'),
        lambda text: text.replace('"volume-1.a"', '"../volume-1.a"', 1),
        lambda text: text.replace('"volume-1.a"', '"a\\u0000b"', 1),
        lambda text: text.replace('"volume-1.a"', '"\\ud800"', 1),
        lambda text: text.replace('"file": "volume-1.a"', '"file": "volume-1"'),
        lambda text: text.replace('"place": "chain"', '"place": "gone"'),
        lambda text: text.replace('"volume": "1"', '"volume": "1\\n"'),
        lambda text: text.replace("1073741824", "1e400"),
        lambda text: text.replace("1073741824", "-1"),
        lambda text: text.replace('"state": "available"', '"state": "x"'),
        lambda text: text[:-30],
    ],
)
def test_a_hostile_file_is_not_imported(
    filled: Store,
    call: Call,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], str],
) -> None:
    whole = call("export")[1]
    hostile = tmp_path / "hostile.json"
    hostile.write_text(change(whole))
    (tmp_path / "ledger.json").write_text(whole)
    monkeypatch.setenv("QMPSNAP_LEDGER", f"sqlite:///{tmp_path}/other.db")
    code, _, said = call("import", str(hostile))
    assert (code, "cannot be imported" in said) == (4, True)
    assert not (tmp_path / "other.db").exists()
    assert call("import", str(tmp_path / "ledger.json"))[0] == 0


def test_a_file_that_cannot_be_read(filled: Store, call: Call, tmp_path: Any) -> None:
    for name in ("missing", "."):
        code, _, said = call("import", str(tmp_path / name))
        assert (code, "cannot be imported" in said) == (4, True)


def test_an_import_moves_no_file_that_is_known(filled: Store, call: Call, tmp_path: Any) -> None:
    """Or a file of the chain could be called unused, and removed."""
    hostile = tmp_path / "hostile.json"
    text = call("export")[1]
    hostile.write_text(
        text.replace('"place": "chain"', '"place": "left"').replace(
            '"format": "raw"', '"format": "qcow2"'
        )
    )
    code, out, _ = call("import", str(hostile))
    assert (code, "Not believed" in out) == (3, True)
    with filled.reading() as ledger:
        assert [one.file for one in ledger.chain("1").layers] == ["volume-1.a", "volume-1"]
        assert ledger.format("1", "volume-1") is Format.RAW


def test_an_import_states_a_format_that_nobody_knew_and_no_more(
    store: Store, call: Call, tmp_path: Any
) -> None:
    with store.writing() as ledger:
        ledger.state("1", [replace(BASE, format=None)])
    text = call("export")[1].replace('"format": null', '"format": "raw"')
    (tmp_path / "x.json").write_text(text.replace('"place": "chain"', '"place": "left"'))
    assert call("import", str(tmp_path / "x.json"))[0] == 0
    with store.reading() as ledger:
        (file,) = ledger.chain("1").layers
        assert (file.format, file.place) == (Format.RAW, Place.CHAIN)


def test_a_volume_that_is_no_chain_is_left_out(filled: Store, call: Call, tmp_path: Any) -> None:
    document = json.loads(call("export")[1])
    (base,) = (one for one in document["files"] if one["base"])
    document["files"] = [
        {**base, "volume": "2", "file": "volume-2"},
        {**base, "volume": "3", "file": "volume-3", "backing": "volume-3", "base": True},
        {**base, "volume": "4", "file": "volume-4", "base": False, "format": "qcow2"},
    ]
    document["snapshots"] = []
    (tmp_path / "x.json").write_text(json.dumps(document))
    code, out, said = call("import", str(tmp_path / "x.json"), "-o", "json")
    assert (code, json.loads(out)["stated"]) == (3, 1)
    assert json.loads(out)["left_out"].keys() == {"3", "4"}
    assert "volume 4 was left out" in said


def test_looking_makes_no_ledger(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QMPSNAP_LEDGER", raising=False)
    monkeypatch.setenv("QMPSNAP_STATE", str(tmp_path / "state"))
    assert run(["ledger", "show"]) == 4
    assert "there is no ledger" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(["ledger", "set", "1", "volume-1", "--base", "--format", "raw", "--why", "x"]) == 0
    assert run(["ledger", "show"]) == 0
