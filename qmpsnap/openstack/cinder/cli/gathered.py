"""What there is to go by of a volume that the ledger does not know: rows, `.info`, headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from qmpsnap.guests.files.header import read_header
from qmpsnap.ledger.named import words
from qmpsnap.ledger.values import Place
from qmpsnap.openstack.cinder import adopt, headers
from qmpsnap.openstack.cinder.cli.deployment import Row
from qmpsnap.openstack.cinder.names import volume_of

if TYPE_CHECKING:
    from qmpsnap.ledger.values import File, Statement


class Beside:
    """Overlays by the names of their volumes, as they lie in folders; each is listed once."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, list[str]]] = {}

    def of(self, folder: str, volume: str) -> list[str]:
        """
        Those of a volume that are there still.

        Raises:
            OSError: The folder cannot be read.
        """
        if folder not in self._listed:
            found: dict[str, list[str]] = {}
            for name in os.listdir(folder):
                of_volume = volume_of(name)
                if of_volume is not None:
                    found.setdefault(of_volume, []).append(name)
            self._listed[folder] = found
        listed = self._listed[folder].get(volume, [])
        return [one for one in listed if os.path.exists(os.path.join(folder, one))]


def stated_of(
    folder: str, row: Row, guests: Mapping[str, str], beside: Beside, held: Iterable[str]
) -> list[Statement]:
    """
    What is to be stated of one volume.

    Args:
        folder: Where its share is mounted.
        row: Cinder's.
        guests: Formats of files, as guests have them.
        beside: Overlays on shares.
        held: Files that the ledger has in its chain.

    Raises:
        ChainBroken: Its files are not one chain.
        OSError, BadHeader, ValueError: As of `known_of`.
    """
    known = known_of(folder, row, guests)
    if adopt.ACTIVE not in known.info:
        above = [one for one in held if one != row.name]
        overlays = dict(headers.beside(folder, beside.of(folder, row.name), read_header))
        known = adopt.seen_beside(known, overlays, row.snapshots, above)
    return adopt.statements(known)


def unheard(stated: Iterable[Statement], files: Iterable[File]) -> list[Statement]:
    """
    Of what is to be stated: without files beside the chain that the ledger knows already.

    Args:
        stated: By `stated_of`.
        files: Of the ledger.
    """
    there = {one.file for one in files if one.place is not Place.GONE}
    return [one for one in stated if one.place is Place.CHAIN or one.file not in there]


def known_of(folder: str, row: Row, guests: Mapping[str, str]) -> adopt.Known:
    """
    Gather what there is to go by of one volume.

    Raises:
        OSError: Its files cannot be read.
        BadHeader: An overlay is not qcow2.
        ValueError: Its `.info` is not what Cinder writes.
    """
    info: dict[str, str] = {}
    path = os.path.join(folder, f"{row.name}.info")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            info = _info_of(file.read())
    active = info.get(adopt.ACTIVE, row.name)
    return adopt.Known(
        name=row.name,
        info=info,
        headers=headers.downwards(folder, active, row.name, read_header),
        metadata=row.metadata,
        attached=row.attached,
        encrypted=row.encrypted,
        guest=guests.get(row.name),
    )


def _info_of(text: str) -> dict[str, str]:
    """
    What a `.info` says.

    Raises:
        ValueError: It is not the names of files.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ValueError(f"its `.info` is not the names of files: {error}") from error


def undecided(volume: str, file: Statement) -> Iterator[tuple[str, str, str]]:
    """
    What of a file somebody has to say.

    Args:
        volume: By which the ledger knows it.
        file: Of the volume.

    Yields:
        The kind of finding, what is not known, and how it is said.
    """
    command = f"`qmpsnap ledger set {volume} {file.file}"
    if file.format is None:
        yield (
            "unknown-format", f"{file.file}: {file.detail}",
            f"{command} --format FORMAT --why REASON{words()}`",
        )  # fmt: skip
    if file.place is Place.UNSURE:
        yield (
            "unsure", f"whether a guest writes to {file.file} is not known",
            "`qmpsnap chain GUEST` on its compute host tells. If it is not in the chain: "
            f"{command} --place left --why REASON{words()}`. One that holds nothing is let go by "
            "itself, once nobody has the volume attached and it is used again",
        )  # fmt: skip
