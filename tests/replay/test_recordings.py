"""Every recording in `fixtures/`, replayed: as fast as a unit test, and no QEMU is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.layouts.built import BUILT
from tests.layouts.catalogue import LAYOUTS
from tests.layouts.layout import Flags, Truth
from tests.layouts.truth import flagged, told
from tests.rig import fixtures

_TRUTHS: dict[str, Truth] = {layout.name: layout.truth for layout in LAYOUTS}
_FLAGS: dict[str, Flags] = {layout.name: layout.flags for layout in LAYOUTS}
_TRUTHS_OF_BUILT: dict[str, Truth] = {one.name: one.truth for one in BUILT}
_WRONG = {layout.name: layout.wrong for layout in LAYOUTS if layout.wrong}
_RECORDED = fixtures.transcripts()


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _truth(transcript: Path) -> Truth | None:
    """By hand, for what is in the catalogue; recordings of libvirt have their own names."""
    if transcript.parent.name == "built":
        return _TRUTHS_OF_BUILT[transcript.stem]
    is_direct = transcript.parent.name.startswith("qemu-")
    return _TRUTHS[transcript.stem] if is_direct else None


def _case(transcript: Path) -> object:
    wrong = _WRONG.get(transcript.stem)
    marks = [pytest.mark.xfail(strict=True, reason=wrong)] if wrong else []
    return pytest.param(transcript, id=_name(transcript), marks=marks)


@pytest.mark.parametrize("transcript", _RECORDED, ids=_name)
def test_a_replay_gives_the_expected_report(transcript: Path, pytestconfig: pytest.Config) -> None:
    document = fixtures.document(fixtures.replayed(transcript))
    if pytestconfig.getoption("--regenerate"):
        fixtures.write(transcript, document)
    assert document == json.loads(fixtures.expected(transcript).read_text())


@pytest.mark.parametrize("transcript", [_case(one) for one in _RECORDED if _truth(one) is not None])
def test_a_replay_gives_the_truth(transcript: Path) -> None:
    report = fixtures.replayed(transcript)
    assert told(report) == _truth(transcript)
    assert flagged(report) == _FLAGS.get(transcript.stem, {})


def test_each_expected_report_has_its_recording() -> None:
    assert _RECORDED
    reports = set(fixtures.FOLDER.glob("reports/*/*.json"))
    assert reports == {fixtures.expected(one) for one in _RECORDED}


@pytest.mark.parametrize("transcript", _RECORDED, ids=_name)
def test_a_recording_tells_nothing_of_the_machine(transcript: Path) -> None:
    text = transcript.read_text()
    for trace in ("/tmp/", "/var/tmp/", "/root/", "/home/", '"tmp/'):
        assert trace not in text
