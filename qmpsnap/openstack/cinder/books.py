"""The ledger, in Cinder's own database, as the volume service uses it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeVar

from cinder.db import api as db
from oslo_config import cfg

from qmpsnap.errors import Refused
from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.named import OfLedger, name_it
from qmpsnap.ledger.schema import LedgerMissing, LedgerOlder, db_sync
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import File, Format, Operation, Snapshot
from qmpsnap.openstack.cinder.named import name_of_cinders

log = logging.getLogger(__name__)
T = TypeVar("T")
_OPENABLE: Final = {Format.RAW: "raw", Format.QCOW2: "qcow2", Format.PLOOP: "parallels"}
"""qemu-img's words."""


class FormatNotStated(OfLedger, Refused):
    """Nobody states the format of a file, and it is not guessed."""

    msg = "nobody states the format of {self.file} of volume {self.volume}: {self.detail}"
    remedy = (
        "`qmpsnap cinder check` lists such files. Ask the guest that runs on it (`qmpsnap chain`), "
        "or whoever made the volume, then `qmpsnap ledger set {self.volume} {self.file} --format "
        "FORMAT --why REASON{self.ledger}`."
    )

    volume: str
    file: str
    detail: str


class Books:
    """The ledger of this deployment; its tables are made when they are missing."""

    def __init__(self) -> None:
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """
        The ledger in Cinder's database, through Cinder's engine.

        Raises:
            LedgerMissing, LedgerOlder, LedgerNewer, LedgerUnreachable: It cannot be used.
        """
        if self._store is None:
            self._store = open_store()
        return self._store

    def run(self, work: Callable[[Ledger], T]) -> T:
        """Do something in one transaction."""
        return self.store.run(work)

    def look(self, read: Callable[[Ledger], T]) -> T:
        """Read something in one transaction."""
        with self.store.reading() as ledger:
            return read(ledger)

    def knows(self, volume: str) -> bool:
        """Whether it holds files of a volume."""
        return bool(self.look(lambda ledger: ledger.files(volume)))

    def chain(self, volume: str) -> Chain[File]:
        """
        The chain of a volume, every format of which is known.

        Raises:
            ChainUnknown, FormatNotStated: It is not.
        """
        chain = self.look(lambda ledger: ledger.chain(volume))
        for layer in chain.layers:
            if layer.format is None:
                raise FormatNotStated(volume, layer.file, layer.detail or "nobody was asked")
        return chain

    def stated(self, volume: str, file: str) -> str:
        """
        The format of a file, in qemu-img's words.

        Raises:
            FormatNotStated: Nobody states it.
        """
        known = self.look(lambda ledger: ledger.file(volume, file))
        if known is None or known.format is None:
            detail = "the ledger does not know it" if known is None else known.detail
            raise FormatNotStated(volume, file, detail)
        return _OPENABLE[known.format]

    def standing(self, snapshot: str) -> Snapshot | None:
        """The newest state of a snapshot."""
        return self.look(lambda ledger: ledger.snapshot(snapshot))

    def open_on(self, volume: str) -> Operation | None:
        """The operation on a volume that is not settled."""
        found = self.look(lambda ledger: ledger.open_operations(volume=volume))
        return found[0] if found else None


def open_store() -> Store:
    """
    Open the ledger in Cinder's database, and make its tables where there are none.

    `qmpsnap cinder db-sync` makes them as well, for a database user that may not.

    Raises:
        LedgerMissing, LedgerOlder, LedgerNewer, LedgerUnreachable: It cannot be used.
    """
    store = Store(db.get_engine())
    name_it(name_of_cinders(cfg.CONF))
    try:
        store.check()
    except (LedgerMissing, LedgerOlder):
        db_sync(store.engine)
        log.info("made the ledger's tables in Cinder's database")
        store.check()
    return store


def own_version() -> str:
    """The version of this package; a checkout on the path has none."""
    try:
        return version("qmpsnap")
    except PackageNotFoundError:
        return "unknown"
