"""What one ledger hands to another: files and settled snapshots. Parsing is strict. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.ledger.chain import ChainUnknown, chain_of
from qmpsnap.ledger.machine import State
from qmpsnap.ledger.values import File, Format, Place, Statement, Witness

SCHEMA: Final = "qmpsnap.ledger/1"
_LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a document: some 200,000 files."""
_KEPT: Final = 500
_ID: Final = r"^[A-Za-z0-9._:-]{1,255}\Z"
_FILE: Final = r"^(?!\.{1,2}\Z)[^/\x00-\x1f\x7f]{1,255}\Z"

_Id = Annotated[str, msgspec.Meta(pattern=_ID)]
_Name = Annotated[str, msgspec.Meta(pattern=_FILE)]
_Backing = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,255}\Z")]


class BadImport(Refused):
    """A file that is not what `qmpsnap ledger export` writes."""

    msg = "{self.name} cannot be imported: {self.reason}"
    remedy = "Write it with `qmpsnap ledger export`. Nothing of it was imported."

    name: str
    reason: str


class BadName(Refused):
    """A file's name is not a bare file name, so it could lead elsewhere."""

    msg = "{self.file!r} is not the bare name of a file of volume {self.volume}"
    remedy = "Give the name without a folder. Nothing was written."

    volume: str
    file: str


class _File(msgspec.Struct, frozen=True):
    volume: _Id
    file: _Name
    format: Format | None
    base: bool
    backing: _Backing | None
    place: Literal["chain", "left", "made", "unsure"]
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    encrypted: bool | None = None
    witness: str = ""
    at: str = ""


class _Snapshot(msgspec.Struct, frozen=True):
    volume: _Id
    snapshot: _Id
    state: str


class _Document(msgspec.Struct, frozen=True):
    schema: str
    files: tuple[_File, ...]
    snapshots: tuple[_Snapshot, ...] = ()


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What a document states of one volume."""

    volume: str
    files: tuple[Statement, ...]
    snapshots: tuple[tuple[str, State], ...]
    """Settled ones; what is under way stays with the ledger that has it."""


def parse(text: bytes, name: str) -> tuple[Volume, ...]:
    """
    Read what was exported, by volume.

    Args:
        text: JSON.
        name: Of the file, for messages.

    Raises:
        BadImport: It is something else, or states two things of one file.
    """
    if len(text) > _LONGEST:
        raise BadImport(name, f"it has more than {_LONGEST >> 20} MiB")
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadImport(name, str(error)) from error
    if document.schema != SCHEMA:
        raise BadImport(name, f"its schema is {json.dumps(document.schema)[:80]}, not {SCHEMA}")
    files: dict[str, dict[str, Statement]] = {}
    for one in document.files:
        of = files.setdefault(one.volume, {})
        if one.file in of:
            raise BadImport(name, f"it has two statements of {one.file} of volume {one.volume}")
        of[one.file] = _statement(one)
    snapshots: dict[str, dict[str, State]] = {}
    for found in document.snapshots:
        state = _state(found, name)
        if not state.is_open:
            snapshots.setdefault(found.volume, {})[found.snapshot] = state
    return tuple(
        Volume(
            volume=volume,
            files=tuple(files.get(volume, {}).values()),
            snapshots=tuple(snapshots.get(volume, {}).items()),
        )
        for volume in dict.fromkeys((*files, *snapshots))
    )


def _statement(one: _File) -> Statement:
    said = " ".join(word for word in (one.witness, one.at) if word)
    return Statement(
        file=one.file,
        format=one.format,
        base=one.base,
        backing=one.backing,
        place=Place(one.place),
        size=one.size,
        encrypted=one.encrypted,
        witness=Witness.IMPORT,
        detail=said[:_KEPT],
    )


def _state(one: _Snapshot, name: str) -> State:
    try:
        return State.of(one.state)
    except KeyError as error:
        raise BadImport(name, f"snapshot {one.snapshot} is {one.state[:40]!r}") from error


def checked_name(volume: str, file: str) -> str:
    """
    A name that cannot lead out of the volume's folder.

    Raises:
        BadName: It could.
    """
    if not re.match(_FILE, file):
        raise BadName(volume, file)
    return file


def news(volume: str, known: Iterable[File], said: Sequence[Statement]) -> tuple[Statement, ...]:
    """
    What an import adds to what is known of a volume: new files, and formats that nobody knew.

    Where a known file is, and on what it lies, an import does not change: only an operation, or an
    operator, does.

    Raises:
        ChainUnknown: With it, the volume's files would not be one chain.
    """
    there = {one.file: one for one in known if one.place is not Place.GONE}
    new = [one for one in said if one.file not in there]
    if new:
        held = [one for one in (*there.values(), *new) if one.place is Place.CHAIN]
        if not any(one.base for one in held):
            raise ChainUnknown(volume, "no file is its first one")
        chain_of(volume, held)
    found = list(new)
    for one in said:
        before = there.get(one.file)
        if before is not None and one.format is not None and one.format is not before.format:
            plain = before.statement
            found.append(
                replace(plain, format=one.format, witness=Witness.IMPORT, detail=one.detail)
            )
    return tuple(found)
