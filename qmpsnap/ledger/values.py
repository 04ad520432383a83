"""What the ledger holds, as values: files, snapshots, operations, updates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from qmpsnap.ledger.machine import State


class Format(StrEnum):
    """Formats that a file of a volume may have, in Cinder's words."""

    RAW = "raw"
    QCOW2 = "qcow2"
    PLOOP = "ploop"
    """Virtuozzo's; never from outside, only stated by the volume service (VZStorage)."""


REPORTED: Final = frozenset({Format.RAW, Format.QCOW2})
"""Formats that compute may report."""


class Witness(StrEnum):
    """Who stated a format."""

    MADE = "made"
    """The volume service, which made or changed the file itself, with explicit formats."""
    COMPUTE = "compute"
    """The compute side's report, which names the file."""
    RULE = "rule"
    """Inferred: compute reported success, and no format of this file (stock Nova sends none)."""
    OPERATOR = "operator"
    """A person, by `qmpsnap ledger set`."""
    METADATA = "metadata"
    """Cinder's own row `format` of the volume."""
    NAME = "name"
    """Every file of a RemoteFS volume but its first is qcow2."""
    GUEST = "guest"
    """A running guest that has the file open."""
    IMPORT = "import"
    """Another ledger, by `qmpsnap ledger import`."""


class Place(StrEnum):
    """Where a file stands."""

    MADE = "made"
    """Made to come into the chain; whether it has is not proven yet, so it is held."""
    CHAIN = "chain"
    """In the volume's chain: held."""
    LEFT = "left"
    """It has left the chain, or never came into it, which is proven: it may be removed."""
    UNSURE = "unsure"
    """Whether a guest writes to it is not known, and will not be by itself: somebody has to say;
    until then nothing begins on the volume."""
    GONE = "gone"
    """Removed."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody states of one file of a volume."""

    file: str
    """Bare name."""
    format: Format | None
    """None where nobody knows: listed, and never used as a format."""
    base: bool
    """Whether it is the volume's first file (`volume-<id>`): only that one may be not qcow2."""
    backing: str | None
    """Name of the backing file as its header has it; None where there is none."""
    place: Place
    size: int | None = None
    """Bytes that a guest sees."""
    encrypted: bool | None = None
    witness: Witness
    detail: str = ""
    operation: str | None = None
    """Token of the operation that made or changed it."""


class File(Statement, frozen=True, kw_only=True):
    """A statement as it stands in the ledger: who believes it, and since when."""

    id: int
    """Order in which the ledger was told."""
    volume: str
    at: datetime
    believed: bool = True
    """False: it contradicts what the ledger knew, and is kept to be shown."""

    @property
    def statement(self) -> Statement:
        """What was stated."""
        return Statement(**{one: getattr(self, one) for one in Statement.__struct_fields__})


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody stated another format than the ledger knows; nobody has settled it."""

    known: File
    said: File

    @property
    def is_alarm(self) -> bool:
        """A raw file that is suddenly qcow2: the attack by a header that the guest wrote."""
        return (self.known.format, self.said.format) == (Format.RAW, Format.QCOW2)


class Kind(StrEnum):
    """What an operation does to a chain."""

    CREATE = "create"
    """`file` is put on top of `onto`."""
    COMMIT = "commit"
    """`file` is merged into its backing file `onto`, and leaves the chain."""
    PULL = "pull"
    """`file`, the backing file of `onto`, is merged into `onto`, and leaves the chain."""
    NOTHING = "nothing"
    """A snapshot is deleted to which no file belongs: only its status changes."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What is going to be done; it stands in the ledger before anybody is asked to do it."""

    volume: str
    snapshot: str
    kind: Kind
    file: str | None
    onto: str | None
    host: str
    """The volume service's back end (`self.host`): it alone settles this at its start."""

    @property
    def names(self) -> frozenset[str]:
        """Files that the operation works on."""
        return frozenset({self.file, self.onto} - {None})  # type: ignore[arg-type]


class Operation(Intent, frozen=True, kw_only=True):
    """An intent that stands in the ledger."""

    token: str
    begun: datetime
    again: bool = False
    """It stood there already: the call that began it broke off, or was answered late."""

    @property
    def intent(self) -> Intent:
        """What was asked for."""
        return Intent(**{one: getattr(self, one) for one in Intent.__struct_fields__})


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of a snapshot."""

    volume: str
    snapshot: str
    state: State
    operation: str | None
    """Token of the operation that brought it there."""
    why: str
    at: datetime


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """A status update as it came in; nothing of it is believed yet."""

    volume: str
    """The snapshot's, as Cinder's own row has it."""
    snapshot: str
    status: str
    progress: str | None = None
    file_format: Mapping[str, str] = msgspec.field(default_factory=dict)
    operation: str | None = None
    """The token; None from a stock compute."""
    is_service: bool
    """Whether it came with the role that policy asks for (service, or admin)."""
    by: str = ""
    """Who sent it, for people: a user or service id."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An update that was accepted, as it lies in the inbox."""

    id: int
    operation: str
    status: str
    file_format: Mapping[str, str]
    is_named: bool
    """Whether it came with the operation's token: from a compute side of ours."""
    by: str
    at: datetime


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Updates that were refused for one reason, counted."""

    snapshot: str
    reason: str
    times: int
    detail: str
    """Of the last one."""
    first: datetime
    last: datetime


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A process of ours that has started."""

    kind: str
    """`api`, `volume` or what else there is."""
    host: str
    version: str
    at: datetime
