"""
What can be said of a volume that was there before the ledger: pure.

Cinder has the format of a volume's active file (`format`, since Wallaby) and of its first one
(`base_format`, since 2025.2), none of any other. Every overlay of a RemoteFS volume is qcow2, so
only that of `volume-<id>` is in question. `base_format` is not believed alone where an overlay's
header contradicts it: stock Cinder writes it before an online delete that may fail (a raw volume
becomes "qcow2"), and it writes into the header what it found in the bytes that the guest controls.
For the same reasons one of the two alone is believed if it says raw, not if it says qcow2, unless the
volume is encrypted: then no guest has written those bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.qcow2 import Header
from qmpsnap.ledger.values import Format, Place, Statement, Witness

ACTIVE: Final = "active"
"""Key of the active file in `.info`."""
UNMADE: Final = ("creating", "error", "deleting", "error_deleting")
"""Statuses of snapshots that may have no file. One that failed is `deleting` when it is asked to go."""
_MOST: Final = 1000
"""Layers; a chain of stock Cinder's does not come near it."""


class ChainBroken(Refused):
    """The files of a volume do not make up the chain that `.info` tells of."""

    msg = "the chain of {self.volume} is broken: {self.reason}"
    remedy = (
        "Nothing was done to it. If stock drivers were at work on it since it was imported, "
        "`qmpsnap cinder import --again` takes its files over as they are. Otherwise `qmpsnap chain` "
        "on its compute host shows what the guest has; `.info` and the headers have to say the same, "
        "and then the same command."
    )

    volume: str
    reason: str


class InfoLost(ChainBroken):
    """Nothing names the active file of a volume that has overlays, or may have."""

    msg = "no `.info` names the active file of {self.volume}, but {self.reason}"
    remedy = (
        "Nothing was done to it. If `.info` is lost, write it again as `qmpsnap chain` on its compute "
        "host, or the headers, have the chain. If a snapshot that failed has left the file, which no "
        "guest then has, move it out of the share. Then the same command, or `qmpsnap cinder import "
        "--again`."
    )


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to go by."""

    name: str
    """`volume-<id>`: of the volume, and of its first file."""
    info: Mapping[str, str]
    """Cinder's `.info`; empty where there is none."""
    headers: Mapping[str, Header | None]
    """By bare name, of every file of the chain from the active one down; None of the first file:
    it may be raw, and is not looked into."""
    metadata: Mapping[str, str]
    """The volume's admin metadata."""
    attached: tuple[str, ...] = ()
    """Formats in the connection_info of its attachments: what Nova has started its guest with."""
    encrypted: bool = False
    guest: str | None = None
    """Format of `volume-<id>` in a running guest, where somebody has asked."""
    signs: tuple[str, ...] = ()
    """Of overlays, where `.info` tells of none: see `seen_beside`."""
    orphans: Mapping[str, Header] = {}
    """Overlays that a failed create may have left beside the one file, with their headers."""


def active_file(known: Known) -> str:
    """The file that is written to."""
    return known.info.get(ACTIVE, known.name)


def seen_beside(
    known: Known,
    beside: Mapping[str, Header | None],
    snapshots: Iterable[str],
    held: Iterable[str] = (),
) -> Known:
    """
    Add what there is of overlays to what is known of a volume whose `.info` names no active file.

    Stock and we leave `.info` there once it is made, so it may be lost. But stock writes it, and
    `qcow2` into the row before that, only when a create is done; one that fails while a guest has
    the volume leaves its overlay for good. Whether the guest is on it all the same nobody knows.

    Args:
        known: Of the volume.
        beside: Overlays of the volume that lie on the share; None where the header cannot be read.
        snapshots: Ids of its snapshots in Cinder, but those that are `UNMADE`.
        held: Overlays that the ledger has in its chain.
    """
    signs = (
        *(f"Cinder has its snapshot {one}" for one in sorted(snapshots)),
        *(f"the ledger has {one}" for one in sorted(held)),
    )
    orphans = {one: header for one, header in beside.items() if header is not None}
    is_left = known.metadata.get("format") == "raw" and len(orphans) == len(beside)
    if not signs and is_left and all(below(one) == known.name for one in orphans.values()):
        return replace(known, orphans=orphans)
    lie = (f"{one} lies on the share" for one in sorted(beside))
    return replace(known, signs=(*lie, *signs))


def below(header: Header | None) -> str | None:
    """The bare name of the backing file that a header names."""
    if header is None or header.backing_file is None:
        return None
    return header.backing_file.rpartition("/")[2]


def statements(known: Known) -> list[Statement]:
    """
    What is stated of every file of the chain, active one first, and of what may be a part of it.

    Raises:
        ChainBroken: A file is missing, or the headers lead elsewhere.
        InfoLost: So is `.info`.
    """
    if ACTIVE not in known.info and known.signs:
        raise InfoLost(known.name, known.signs[0])
    found: list[Statement] = []
    file: str | None = active_file(known)
    above: Header | None = None
    seen: set[str] = set()
    while file is not None:
        if file in seen or len(seen) > _MOST:
            raise ChainBroken(known.name, f"{file} is its own backing file")
        if file not in known.headers:
            raise ChainBroken(known.name, f"{file} is named as part of it, and is not there")
        seen.add(file)
        header = known.headers[file]
        backing = below(header)
        first = file == known.name
        stated, witness, detail = (
            _first(known, above) if first else (Format.QCOW2, Witness.NAME, "")
        )
        found.append(
            Statement(
                file=file,
                format=stated,
                base=first,
                backing=backing if not first or stated is Format.QCOW2 else None,
                place=Place.CHAIN,
                size=None if header is None else header.virtual_size,
                encrypted=known.encrypted,
                witness=witness,
                detail=detail,
            )
        )
        above = header
        file = None if first else backing
    return found + [
        Statement(
            file=one,
            format=Format.QCOW2,
            base=False,
            backing=known.name,
            place=Place.UNSURE,
            size=header.virtual_size,
            encrypted=known.encrypted,
            witness=Witness.NAME,
            detail="it lies beside the volume's file, and nothing names it",
        )
        for one, header in sorted(known.orphans.items())
    ]


def _first(known: Known, above: Header | None) -> tuple[Format | None, Witness, str]:
    """The format of `volume-<id>`, from those who can have known it."""
    if known.guest is not None:
        return _format(known.guest), Witness.GUEST, "it runs as this"
    said: dict[str, str] = {}
    if above is None:
        if "format" in known.metadata:
            said["format"] = known.metadata["format"]
        else:
            said |= {f"attachment {n}": one for n, one in enumerate(known.attached, 1)}
    else:
        if "base_format" in known.metadata:
            said["base_format"] = known.metadata["base_format"]
        if above.backing_format is not None:
            said["the header above"] = above.backing_format
    detail = ", ".join(f"{who} says {what}" for who, what in said.items()) or "nobody states it"
    formats = set(said.values())
    is_alone = above is not None and len(said) == 1 and formats == {"qcow2"}
    if is_alone and not known.encrypted:
        return None, Witness.METADATA, f"{detail} alone, which a guest can bring about"
    if len(formats) != 1:
        return None, Witness.METADATA, detail
    return _format(formats.pop()), Witness.METADATA, detail


def _format(word: str) -> Format | None:
    try:
        return Format(word)
    except ValueError:
        return None
