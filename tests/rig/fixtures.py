"""
Recordings and expected reports in `fixtures/`: how they are written, found and compared.

`fixtures/PROGRAM-MAJOR.MINOR/NAME.jsonl` is a transcript, as `qmpsnap record` writes it. What
`qmpsnap chain -o json` says of it is in `fixtures/reports/PROGRAM/NAME.json`, or, where it is not
what later versions say, in `NAME.PROGRAM-MAJOR.MINOR.json` for this version and older ones. Names
that differ from run to run are replaced, in the transcript by others that mean the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qmpsnap.cli import documents
from qmpsnap.formats.layers import TEMPORARY, Disks
from qmpsnap.guests.replay import ReplayGuest
from qmpsnap.monitor.transcript import parse

FOLDER: Final = Path(__file__).resolve().parents[2] / "fixtures"

_NUMBERED: Final = re.compile(r"#block\d+")
_TEMPORARY: Final = re.compile(r"\bvl\.\w{6}")
"""QEMU's overlay for `snapshot=on` (block.c, create_tmp_file())."""

Document = dict[str, Any]


def place(program: str, version: str) -> Path:
    """Return the folder for a program of this version: `fixtures/qemu-7.2` for 7.2.22."""
    return FOLDER / f"{program}-{'.'.join(version.split('.')[:2])}"


def transcripts() -> list[Path]:
    """All recordings, built ones among them."""
    return sorted(FOLDER.glob("*/*.jsonl"))


def normal(text: str, places: Mapping[str, str]) -> str:
    """
    Replace what differs from run to run in a transcript or report.

    Args:
        text: JSON, or JSON lines.
        places: The real folder, device or address by what is to stand in its place.
    """
    for name, real in places.items():
        text = text.replace(real, name)
        if real.startswith("/dev/"):  # a device's bare name, where another one was free
            text = text.replace(f'"{real[5:]}"', f'"{name[5:]}"')
        if real.startswith("/"):  # relative to the root folder
            text = text.replace(real[1:] + "/", name[1:] + "/")
    return _TEMPORARY.sub("vl.XXXXXX", text)


def recording(text: str, places: Mapping[str, str]) -> str:
    """
    Make a transcript fit to be kept.

    QEMU's numbers for nodes without a name are random; they are given anew, in their order.
    Of `query-qmp-schema` only the commands that the transcript has are left, with the types of
    their arguments: it is 250 KB, and the same in each recording.
    """
    numbers: dict[str, str] = {}
    text = _NUMBERED.sub(
        lambda found: numbers.setdefault(found[0], f"#block{len(numbers):03}"), normal(text, places)
    )
    lines = [json.loads(line) for line in text.splitlines()]
    asked = {line.get("execute") for line in lines}
    for line in lines:
        if line.get("execute") == "query-qmp-schema" and "return" in line:
            line["return"] = _of_commands(line["return"], asked)
    return "".join(json.dumps(line) + "\n" for line in lines)


def _of_commands(schema: list[dict[str, Any]], names: set[object]) -> list[dict[str, Any]]:
    commands = [one for one in schema if one["meta-type"] == "command" and one["name"] in names]
    types = {one["arg-type"] for one in commands}
    return [one for one in schema if one in commands or one["name"] in types]


def replayed(transcript: Path) -> Disks:
    """Read a recording as the tool does."""
    return ReplayGuest(parse(transcript.read_text(), transcript.name)).read()


def document(report: Disks, places: Mapping[str, str] | None = None) -> Document:
    """
    Return what `qmpsnap chain -o json` says of a guest, in a form that is the same in each run.

    Numbers of nodes without a name are left out, and `detail`, which is a text for people: a
    replay cannot read headers itself, so it words it in another way. Nor does it know of a file
    that has no name.
    """
    text = json.dumps(documents.chain(report, report.disks))
    made: Document = json.loads(_NUMBERED.sub("#block", normal(text, places or {})))
    for disk in made["disks"]:
        for layer in disk["layers"]:
            for key in ("allocated", "created", "modified"):
                assert layer.pop(key) is None  # a recording has no files
            layer["flags"] = [flag for flag in layer["flags"] if flag != TEMPORARY]
            for evidence in layer["evidence"]:
                del evidence["detail"]
    return made


def expected(transcript: Path) -> Path:
    """Return the path of the expected report of a recording."""
    return next((path for path in _ages(transcript) if path.exists()), _newest(transcript))


def write(transcript: Path, made: Document) -> None:
    """Write an expected report, and keep what other versions are expected to say."""
    versions = [one for one in _versions(transcript) if one == transcript or expected(one).exists()]
    said = {one: json.loads(expected(one).read_text()) for one in versions if one != transcript}
    said[transcript] = made
    _newest(transcript).parent.mkdir(parents=True, exist_ok=True)
    later = None
    for one in reversed(versions):
        path = _newest(one) if later is None else _of(one)
        if said[one] != later:
            path.write_text(json.dumps(said[one], indent=2) + "\n")
        else:
            path.unlink(missing_ok=True)
        later = said[one]


def _versions(transcript: Path) -> list[Path]:
    """The same recording of each version, oldest first."""
    program = transcript.parent.name.partition("-")[0]
    return sorted({transcript, *FOLDER.glob(f"{program}*/{transcript.name}")}, key=_number)


def _ages(transcript: Path) -> list[Path]:
    """Where the report of this version may be kept, or else of those that are newer."""
    versions = _versions(transcript)
    return [_of(one) for one in versions[versions.index(transcript) :]]


def _newest(transcript: Path) -> Path:
    program = transcript.parent.name.partition("-")[0]
    return FOLDER / "reports" / program / f"{transcript.stem}.json"


def _of(transcript: Path) -> Path:
    newest = _newest(transcript)
    return newest.with_name(f"{newest.stem}.{transcript.parent.name}.json")


def _number(transcript: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", transcript.parent.name)]
