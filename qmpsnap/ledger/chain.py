"""The chain of a volume as the ledger knows it, what an operation makes of it, who holds a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from qmpsnap.errors import Refused
from qmpsnap.ledger.named import OfLedger
from qmpsnap.ledger.values import File, Format, Intent, Kind, Operation, Place, Statement, Witness


class ChainUnknown(OfLedger, Refused):
    """The ledger's files of a volume are not one chain."""

    msg = "the ledger has no usable chain of volume {self.volume}: {self.reason}"
    remedy = (
        "`qmpsnap ledger show {self.volume}{self.ledger}` lists its files; `qmpsnap cinder import` "
        "or `qmpsnap ledger set --help` states what is missing. Nothing was asked of compute."
    )

    volume: str
    reason: str


class DoesNotFit(OfLedger, Refused):
    """An operation is not one on this chain."""

    msg = "{self.kind} of {self.file} does not fit the chain of volume {self.volume}: {self.reason}"
    remedy = (
        "`qmpsnap ledger show {self.volume}{self.ledger}` shows the chain. Nothing was asked of "
        "compute."
    )

    volume: str
    kind: str
    file: str
    reason: str


F = TypeVar("F", bound=Statement)


class Chain(msgspec.Struct, Generic[F], frozen=True, kw_only=True):
    """Files in chain order: the active one first, as in `qemu-img info --backing-chain`."""

    volume: str
    layers: tuple[F, ...]
    beside: tuple[F, ...]
    """Files that are not in the chain: made, left, unsure."""

    @property
    def active(self) -> F:
        """The file that a guest writes to."""
        return self.layers[0]

    @property
    def names(self) -> frozenset[str]:
        """Names of the layers."""
        return frozenset(one.file for one in self.layers)

    def layer(self, file: str) -> F | None:
        """The layer of this name."""
        return next((one for one in self.layers if one.file == file), None)

    def above(self, file: str) -> F | None:
        """The layer right above the one of this name."""
        return next((one for one in self.layers if one.backing == file), None)


def chain_of(volume: str, files: Iterable[F]) -> Chain[F]:
    """
    Put a volume's files in order.

    A backing file that is none of the volume's files (Quobyte's cache of images) ends its chain.

    Raises:
        ChainUnknown: There are none; they fork, or run in a circle; or one is unsure.
    """
    there = [one for one in files if one.place is not Place.GONE]
    held = {one.file: one for one in there if one.place is Place.CHAIN}
    if not held:
        raise ChainUnknown(volume, "it holds no file of it")
    unsure = [one.file for one in there if one.place is Place.UNSURE]
    if unsure:
        raise ChainUnknown(volume, f"whether a guest writes to {', '.join(unsure)} is not known")
    tops = held.keys() - {one.backing for one in held.values()}
    if len(tops) != 1:
        raise ChainUnknown(volume, f"{len(tops)} files have no file above them, not one")
    layers: list[F] = []
    name: str | None = tops.pop()
    while name in held and len(layers) < len(held):
        layers.append(held[name])
        name = layers[-1].backing
    if len(layers) < len(held):
        raise ChainUnknown(volume, "its files are more than one chain")
    return Chain(
        volume=volume,
        layers=tuple(layers),
        beside=tuple(one for one in there if one.place is not Place.CHAIN),
    )


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation leaves: only this is believed afterwards."""

    leaves: Mapping[str, Format | None]
    """By file that it writes to: the format that it must have; None where nobody knew it."""
    backing: Mapping[str, str | None]
    """By file that stays or comes: its backing file afterwards."""
    comes: str | None = None
    goes: str | None = None
    reportable: frozenset[str] = frozenset()
    """Files that a report may name: those of the chain, before or after."""


def effect(chain: Chain[File], intent: Intent) -> Effect:
    """
    What an operation must leave.

    A create leaves qcow2 on top; a commit keeps the format of the file that it is merged into, a
    pull that of the file pulled into: whatever anybody reports.

    Raises:
        DoesNotFit: It is not an operation on this chain.
    """
    file, onto, names = intent.file, intent.onto, chain.names
    if intent.kind is Kind.NOTHING:
        return Effect(leaves={}, backing={}, reportable=names)
    if file is None or onto is None:
        raise DoesNotFit(chain.volume, intent.kind, str(file), "it names no two files")
    if intent.kind is Kind.CREATE:
        if onto != chain.active.file:
            raise _unfit(intent, f"{onto} is not its active file, {chain.active.file} is")
        if file in names:
            raise _unfit(intent, "that file is in the chain already")
        return Effect(
            leaves={file: Format.QCOW2},
            backing={file: onto},
            comes=file,
            reportable=names | {file},
        )
    upper, lower = (file, onto) if intent.kind is Kind.COMMIT else (onto, file)
    top, bottom = chain.layer(upper), chain.layer(lower)
    if top is None or bottom is None:
        raise _unfit(intent, f"{upper if top is None else lower} is not in the chain")
    if top.backing != lower:
        raise _unfit(intent, f"{upper} lies on {top.backing}, not on {lower}")
    if intent.kind is Kind.PULL:
        backing = {upper: bottom.backing}
        return Effect(leaves={upper: top.format}, backing=backing, goes=lower, reportable=names)
    above = chain.above(upper)
    backing = {lower: bottom.backing} | ({above.file: lower} if above is not None else {})
    return Effect(leaves={lower: bottom.format}, backing=backing, goes=upper, reportable=names)


def _unfit(intent: Intent, reason: str) -> DoesNotFit:
    return DoesNotFit(intent.volume, intent.kind, str(intent.file), reason)


def contradiction(known: File | None, said: Statement) -> str | None:
    """
    Why a statement is not believed; None where it may be.

    Two rules hold for every file of a RemoteFS volume: only its first file can be anything but
    qcow2, and no format changes while its file exists. An operator alone may say that what the
    ledger knows of a format is wrong.
    """
    if not said.base and said.format not in (None, Format.QCOW2):
        return f"{said.file} is not the volume's first file, so it can only be qcow2"
    if known is None or known.place is Place.GONE:
        return None
    if known.base is not said.base and said.witness is not Witness.OPERATOR:
        return "which file is the volume's first one does not change"
    if known.format in (None, said.format) or said.witness is Witness.OPERATOR:
        return None
    return f"it is known as {known.format} since {known.at:%Y-%m-%dT%H:%M:%SZ} ({known.witness})"


def holder(file: File, chain: Chain[File] | None, working: Iterable[Operation]) -> str | None:
    """
    Who needs a file, so that it must not be removed; None where nobody does.

    Args:
        file: As the ledger knows it.
        chain: Of its volume; None where it is not known, and then nothing is removed.
        working: Operations on the volume that are not settled. One that was recorded holds no more
            what it has taken out of the chain.
    """
    if file.place is Place.CHAIN:
        return "it is in the chain"
    if file.place not in (Place.LEFT, Place.GONE):
        return "whether a guest writes to it is not known"
    for one in working:
        if file.file in one.names and file.operation != one.token:
            return f"the {one.kind} of snapshot {one.snapshot} is not settled"
    if chain is None:
        return "the volume's chain is not known"
    if any(layer.backing == file.file for layer in chain.layers):
        return "a file of the chain lies on it"
    return None
