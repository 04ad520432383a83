"""What the ledger holds of files: the newest statement of each counts, the others are history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.ledger import tables
from qmpsnap.ledger.chain import Chain, ChainUnknown, chain_of, contradiction, holder
from qmpsnap.ledger.exchange import checked_name
from qmpsnap.ledger.locking import printable, time_now
from qmpsnap.ledger.named import OfLedger
from qmpsnap.ledger.snapshots import Snapshots
from qmpsnap.ledger.values import Difference, File, Format, Place, Statement, Witness

_TABLE = tables.files
_COLUMNS = _TABLE.c


class FileHeld(OfLedger, Refused):
    """A file must not be removed."""

    msg = "{self.file} of volume {self.volume} must not be removed: {self.reason}"
    remedy = (
        "`qmpsnap ledger show {self.volume}{self.ledger}` shows who needs it. Nothing was removed."
    )

    volume: str
    file: str
    reason: str


class Files(Snapshots):
    """Statements of files."""

    def files(self, volume: str | None = None, *, gone: bool = False) -> tuple[File, ...]:
        """
        What is believed of every file, in the order of volumes and names.

        Args:
            volume: Of this volume; None: of all.
            gone: Those that were removed as well.
        """
        found = self._newest(volume)
        return tuple(one for one in found if gone or one.place is not Place.GONE)

    def file(self, volume: str, file: str) -> File | None:
        """What is believed of a file that is there; None where nothing is."""
        return next((one for one in self.files(volume) if one.file == file), None)

    def format(self, volume: str, file: str) -> Format | None:
        """The format of a file; None where nobody has stated it, and nothing may guess it."""
        found = self.file(volume, file)
        return None if found is None else found.format

    def chain(self, volume: str) -> Chain[File]:
        """
        The chain of a volume.

        Raises:
            ChainUnknown: The ledger has none.
        """
        return chain_of(volume, self.files(volume))

    def history(self, volume: str, file: str | None = None) -> tuple[File, ...]:
        """Every statement of a volume's files, or of one, oldest first."""
        query = sa.select(_TABLE).where(_COLUMNS.volume == volume).order_by(_COLUMNS.id)
        if file is not None:
            query = query.where(_COLUMNS.file == file)
        return tuple(_file(row) for row in self.connection.execute(query))

    def differences(self, volume: str | None = None) -> tuple[Difference, ...]:
        """
        Statements that contradict what is believed, and that no operator has settled since.

        Files that are gone are counted no more.
        """
        query = sa.select(_TABLE).where(sa.not_(_COLUMNS.believed)).order_by(_COLUMNS.id)
        if volume is not None:
            query = query.where(_COLUMNS.volume == volume)
        doubted = [_file(row) for row in self.connection.execute(query)]
        if not doubted:
            return ()
        asked = {one.volume for one in doubted}
        known = {(one.volume, one.file): one for each in sorted(asked) for one in self.files(each)}
        settled = self._settled(asked)
        return tuple(
            Difference(known=known[key], said=one)
            for one in doubted
            if (key := (one.volume, one.file)) in known and one.id > settled.get(key, 0)
        )

    def _settled(self, volumes: Iterable[str]) -> dict[tuple[str, str], int]:
        """By file, the id of the newest statement of an operator."""
        query = (
            sa.select(_COLUMNS.volume, _COLUMNS.file, sa.func.max(_COLUMNS.id))
            .where(_COLUMNS.witness == Witness.OPERATOR.value, _COLUMNS.volume.in_(volumes))
            .group_by(_COLUMNS.volume, _COLUMNS.file)
        )
        return {(row[0], row[1]): int(row[2]) for row in self.connection.execute(query)}

    def state(self, volume: str, statements: Iterable[Statement]) -> tuple[File, ...]:
        """
        State files of a volume: adopted, made, renamed, or settled by an operator.

        What is believed already in the same words is not written again. What contradicts it is
        kept as a difference, and not believed.

        Returns:
            The statements that were not believed.

        Raises:
            BadName: A name leads elsewhere.
        """
        self.lock(volume)
        known = {one.file: one for one in self._newest(volume)}
        doubted: list[File] = []
        for said in statements:
            checked_name(volume, said.file)
            before = known.get(said.file)
            believed = contradiction(before, said) is None
            if before is not None and (_same(before, said) or not believed):
                told = () if believed else self._doubted(volume, said)
                if believed or told:
                    doubted += told
                    continue
            stated = self._write(volume, said, believed=believed)
            if believed:
                known[said.file] = stated
            else:
                doubted.append(stated)
        return tuple(doubted)

    def _doubted(self, volume: str, said: Statement) -> tuple[File, ...]:
        """The newest statement of a file, where it says the same and was not believed either."""
        last = self.history(volume, said.file)[-1:]
        return tuple(one for one in last if not one.believed and _same(one, said))

    def removed(self, volume: str, file: str) -> None:
        """
        State that a file is gone.

        Call it after the removal, which `holder` allows or forbids. Whoever dies in between finds
        the file noted as one that has left, and removes it again. A second time this does nothing.

        Raises:
            FileHeld: The chain, or an operation that is not settled, needs it; or the ledger
                does not know it. It must not be removed.
        """
        self.lock(volume)
        files = self._newest(volume)
        found = next((one for one in files if one.file == file), None)
        if found is None:
            raise FileHeld(volume, file, "the ledger does not know it")
        try:
            chain: Chain[File] | None = chain_of(volume, files)
        except ChainUnknown:
            chain = None
        reason = holder(found, chain, self.open_operations(volume=volume))
        if reason is not None:
            raise FileHeld(volume, file, reason)
        if found.place is not Place.GONE:
            self._write(volume, moved(found, Place.GONE), believed=True)

    def forget(self, volume: str) -> None:
        """
        State that all files of a volume are gone, once the volume is deleted.

        Raises:
            FileHeld: An operation on it is not settled.
        """
        self.lock(volume)
        for one in self.open_operations(volume=volume):
            raise FileHeld(volume, one.file or volume, f"the {one.kind} of {one.snapshot} is open")
        for file in self._newest(volume):
            if file.place is not Place.GONE:
                self._write(volume, moved(file, Place.GONE), believed=True)

    def _newest(self, volume: str | None) -> tuple[File, ...]:
        last = sa.select(sa.func.max(_COLUMNS.id)).where(_COLUMNS.believed)
        if volume is not None:
            last = last.where(_COLUMNS.volume == volume)
        last = last.group_by(_COLUMNS.volume, _COLUMNS.file)
        query = (
            sa.select(_TABLE).where(_COLUMNS.id.in_(last)).order_by(_COLUMNS.volume, _COLUMNS.file)
        )
        return tuple(_file(row) for row in self.connection.execute(query))

    def _write(self, volume: str, said: Statement, *, believed: bool) -> File:
        values = {one: _cell(getattr(said, one)) for one in Statement.__struct_fields__}
        values["detail"] = printable(said.detail)
        row: dict[str, Any] = {**values, "volume": volume, "at": time_now(), "believed": believed}
        done = self.connection.execute(sa.insert(_TABLE).values(row))
        key = done.inserted_primary_key
        assert key is not None
        return _file_of(row | {"id": key[0]})


def _cell(value: object) -> object:
    return value.value if isinstance(value, (Format, Place, Witness)) else value


def _file(row: sa.Row[Any]) -> File:
    return _file_of(dict(row._mapping))


def _file_of(row: dict[str, Any]) -> File:
    format_ = row["format"]
    return File(
        **row
        | {
            "format": None if format_ is None else Format(format_),
            "place": Place(row["place"]),
            "witness": Witness(row["witness"]),
        }
    )


def moved(file: File, place: Place) -> Statement:
    """What is known of a file, in another place."""
    return replace(file.statement, place=place)


def _same(before: File, said: Statement) -> bool:
    """Whether nothing new is said, whoever says it; what an operator states is always new."""
    names = ("format", "base", "backing", "place", "size", "encrypted")
    return said.witness is not Witness.OPERATOR and all(
        getattr(before, one) == getattr(said, one) for one in names
    )
