"""`-o csv`: rows of documents, with the document's own keys."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.cli import documents
from qmpsnap.cli.rows import COLUMNS, csv_text
from qmpsnap.guests.files.measure import Measure
from tests.unit import samples


def rows(document: documents.Document) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(document))))


def test_a_chain() -> None:
    disk = samples.disk(2)
    files = {disk.layers[0].path or "": Measure(size=1, allocated=4096, created=1.8e9)}
    first, second = rows(documents.chain(samples.guest(disk), [disk], files))
    assert (first["disk"], first["file"], first["format"]) == ("vda", "volume-1.s1", "qcow2")
    assert (first["allocated"], first["created"]) == ("4096", "2027-01-15T08:00:00Z")
    assert (second["evidence"], second["allocated"]) == ("qmp=raw header=raw", "")


def test_an_empty_drive_is_there() -> None:
    disk = replace(samples.disk(), disk="sda", layers=())
    (one,) = rows(documents.chain(samples.guest(disk), [disk]))
    assert (one["disk"], one["file"]) == ("sda", "")


def test_a_guest_without_disks_is_there() -> None:
    counted = {"error": 0, "warning": 1, "note": 0}
    guest = {"guest": "web1", "uuid": "u", "running": False, "error": "no", "disks": []}
    document: documents.Document = {
        "schema": "qmpsnap.guests/1",
        "source": "x",
        "guests": [{**guest, "findings": counted}],
    }
    (one,) = rows(document)
    assert (one["running"], one["error"]) == ("no", "no")
    assert one["findings"] == "error=0 warning=1 note=0"


@pytest.mark.parametrize("schema", ["snapshots", "jobs"])
def test_columns_without_rows(schema: str) -> None:
    document: documents.Document = {"schema": f"qmpsnap.{schema}/1", schema: []}
    assert csv_text(document).splitlines() == [",".join(COLUMNS[f"qmpsnap.{schema}/1"][1].split())]


@pytest.mark.parametrize("schema", COLUMNS)
def test_each_column_is_a_key_that_is_described(schema: str) -> None:
    described = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text()
    for name in COLUMNS[schema][1].split():
        assert re.search(rf"`(?:\w+(?:\[\])?)?(?:\.\w+(?:\[\])?)*\.?\b{name}`", described), name


@given(st.text())
def test_nothing_acts_on_a_terminal(name: str) -> None:
    disk = samples.disk(layers=samples.linked([samples.layer(name or "x")]))
    text = csv_text(documents.chain(samples.guest(disk), [disk]))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(rows(documents.chain(samples.guest(disk), [disk]))) == 1
