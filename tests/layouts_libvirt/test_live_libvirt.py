"""Every layout under libvirt: what the tool says is the truth, and what it said before."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.record import record_domain
from tests.layouts_libvirt.catalogue import LAYOUTS
from tests.layouts_libvirt.layout import Layout, Truth
from tests.layouts_libvirt.running import running
from tests.rig import fixtures
from tests.rig.beside import NotHere

_ID: Final = re.compile(r"(<domain type='qemu' id=)'[0-9]+'")
"""libvirt counts the guests that it has started."""


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_report_is_the_truth(
    layout: Layout, connection: Any, request: pytest.FixtureRequest
) -> None:
    number, option = connection.getLibVersion(), request.config.getoption
    by_xml = layout.by_xml and 6_000_000 <= connection.getVersion() < 10_000_000
    if number < layout.since:
        pytest.skip(f"since libvirt {_version(layout.since)}")
    if layout.wrong is not None and number >= layout.wrong[0]:
        request.applymarker(pytest.mark.xfail(strict=True, reason=layout.wrong[1]))
    said = io.StringIO()
    try:
        with running(connection, layout) as guest:
            report = LibvirtGuest(guest.domain).read()
            if option("--record") and not layout.by_xml:
                record_domain(guest.domain, said)
    except NotHere as error:
        pytest.skip(str(error))
    folder = fixtures.place("libvirt", _version(number))
    transcript = folder / f"{layout.name}.jsonl"
    document = fixtures.document(report, guest.places)
    if said.getvalue():
        folder.mkdir(parents=True, exist_ok=True)
        text = _ID.sub(r"\1'1'", fixtures.recording(said.getvalue(), guest.places))
        transcript.write_text(text)
    if option("--regenerate") and not layout.by_xml:
        fixtures.write(transcript, document)
    _check(document, layout, by_xml=by_xml)
    if not layout.by_xml and folder.exists():
        assert document == _read(fixtures.expected(transcript))


def _check(document: fixtures.Document, layout: Layout, *, by_xml: bool) -> None:
    assert told(document) == layout.truth
    layers = [layer for disk in document["disks"] for layer in disk["layers"]]
    verdicts = {layer["file"]: layer["verdict"] for layer in layers}
    conflicts = {file for file, verdict in verdicts.items() if verdict == "conflict"}
    assert conflicts == layout.conflict
    sure = {"stated"} if by_xml else {"agreed", "exact"}
    assert set(verdicts.values()) <= sure | {"conflict"}
    assert bool(document["notes"]) == by_xml
    differing = [disk["xml_differs"] for disk in document["disks"] if disk["xml_differs"]]
    assert len(differing) == (layout.differs is not None), differing
    if layout.differs is not None:
        assert layout.differs in differing[0]


def told(document: fixtures.Document) -> Truth:
    """Return file and format of every layer, by disk, in the words of the truth."""
    return {
        disk["disk"]: tuple((_file(layer), layer["format"] or "?") for layer in disk["layers"])
        for disk in document["disks"]
    }


def _file(layer: Mapping[str, Any]) -> str:
    if layer["path"] is not None:
        # libvirt 7.0 does not yet add the guest's name.
        return str(layer["path"]).rpartition("/")[2].replace(".TRANSIENT-transient", ".TRANSIENT")
    return f"{layer['protocol']}:"


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _read(path: Path) -> object:
    assert path.exists(), "not recorded yet: tox -e matrix -- --record --regenerate"
    return json.loads(path.read_text())


def test_names_are_unique() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert sorted(set(names)) == sorted(names)
