"""Which ledger a command is about: `--ledger`, `$QMPSNAP_LEDGER`, or that of this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from qmpsnap.errors import Refused
from qmpsnap.ledger.named import CINDERS, name_it

if TYPE_CHECKING:
    from qmpsnap.formats.layers import Disks
    from qmpsnap.ledger.store import Store

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "QMPSNAP_LEDGER"
_CINDER: Final = "qmpsnap.openstack.cinder.cli.deployment"

ledger_option: Final[Callable[[F], F]] = click.option(
    "--ledger",
    "url",
    metavar="URL",
    envvar=VARIABLE,
    help="Database, as SQLAlchemy names it: sqlite:///PATH, postgresql://HOST/DATABASE; or `cinder:`, "
    "Cinder's own by its configuration, of which a file may be named: cinder:FILE.  "
    "[default: $QMPSNAP_LEDGER or ledger.db in the state folder]",
)
"""Add `--ledger` to a command, which takes it as `url`."""


class SqlalchemyMissing(Refused):
    """The library for databases is an extra, and not installed here."""

    msg = "the ledger needs SQLAlchemy, which is not installed: {self.reason}"
    remedy = "Install the extra: pip install 'qmpsnap[openstack]'."

    reason: str


@contextmanager
def opened(url: str | None, *, make: bool = False) -> Iterator[Store]:
    """
    Open a ledger for the length of a block.

    Args:
        url: Of its database; None: that of this host.
        make: Whether it is made, where there is none.

    Raises:
        SqlalchemyMissing, LedgerUrl, LedgerMissing, LedgerOlder, LedgerNewer, LedgerUnreachable:
            There is none that can be used.
        JournalUnusable: The state folder is not to be used.
        CinderMissing, CinderUnconfigured: It is said to be Cinder's, which is not here.
    """
    try:
        from qmpsnap.ledger.schema import db_sync, name
        from qmpsnap.ledger.store import Store, default_url, open_engine
    except ImportError as error:
        raise SqlalchemyMissing(str(error)) from error
    if url is not None and url.startswith(CINDERS):
        cinder = import_module(_CINDER)  # by its name: it lies above, as `qmpsnap cinder` does
        files = url.removeprefix(CINDERS).split(",")
        yield cinder.Deployment(tuple(one for one in files if one)).store(make=make)
        return
    is_given = url is not None
    if url is None:
        from qmpsnap.journal.folder import checked, state_folder

        folder = state_folder()
        url = default_url(checked(folder, make=make) if make or folder.exists() else folder)
    engine = open_engine(url, make=make)
    if is_given and url != os.environ.get(VARIABLE):
        name_it(name(engine))
    try:
        if make:
            db_sync(engine)
        store = Store(engine)
        store.check()
        yield store
    finally:
        engine.dispose()


@contextmanager
def asked_too(read: Callable[[], Disks], url: str) -> Iterator[Callable[[], Disks]]:
    """
    Have a ledger speak in each reading.

    Raises:
        QmpsnapError: As for `opened`.
    """
    from qmpsnap.formats.recorded import with_recorded

    with opened(url) as store:

        def both() -> Disks:
            disks = read()
            with store.reading() as ledger:

                def recorded(volume: str, file: str) -> tuple[str, str] | None:
                    found = ledger.file(volume, file)
                    if found is None or found.format is None:
                        return None
                    return found.format.value, f"{found.witness}, {found.at:%Y-%m-%dT%H:%M:%SZ}"

                return with_recorded(disks, recorded)

        yield both
