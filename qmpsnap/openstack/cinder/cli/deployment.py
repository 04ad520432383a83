"""One Cinder deployment, from its configuration and its database. No service is started."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from qmpsnap.errors import Refused
from qmpsnap.ledger.named import name_it
from qmpsnap.openstack.cinder import adopt

if TYPE_CHECKING:
    from qmpsnap.ledger.store import Store

F = TypeVar("F", bound=Callable[..., Any])
FAMILIES: Final = ("nfs", "quobyte", "vzstorage")
"""Of drivers; also how the names of their options begin."""
_SHARED: Final = "backend_defaults"
"""The group of options that hold for each back end which says nothing else."""
_BATCH: Final = 500
_UNDER_WAY: Final = ("creating", "deleting")
log = logging.getLogger(__name__)


class CinderMissing(Refused):
    """Cinder is not installed here."""

    msg = "Cinder cannot be imported here: {self.reason}"
    remedy = "Run this where cinder-volume runs, with the Python that it runs with."

    reason: str


class CinderUnconfigured(Refused):
    """Cinder's configuration cannot be read."""

    msg = "Cinder's configuration cannot be read: {self.reason}"
    remedy = "Name its files: `--config-file /etc/cinder/cinder.conf`."

    reason: str


def config_option(function: F) -> F:
    """Add `--config-file` to a command."""
    return click.option(
        "--config-file",
        "config_files",
        multiple=True,
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Cinder's configuration; where Cinder looks for it otherwise. May be repeated.",
    )(function)


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A back end of a RemoteFS family."""

    name: str
    host: str
    """Hosts of its volumes begin with this: `host@backend`."""
    driver: str
    mounts: str
    """Where shares are mounted, each in a folder of its own."""

    @property
    def is_ours(self) -> bool:
        """Whether its driver keeps the ledger."""
        return self.driver.startswith("qmpsnap.")

    def has(self, host: str) -> bool:
        """Whether a volume of this host, with its pool, is one of its own."""
        return host.partition("#")[0] == self.host


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A volume, as Cinder's database has it."""

    id: str
    key: str
    """Id in the names of its files, by which the ledger knows it."""
    name: str
    host: str
    share: str
    status: str
    encrypted: bool
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    attached: tuple[str, ...] = ()
    """Formats in its attachments' connection_info."""
    snapshots: tuple[str, ...] = ()
    """Ids of its snapshots, but of those that may have no file (`adopt.UNMADE`)."""
    under_way: tuple[str, ...] = ()
    """Ids of its snapshots that are being made or deleted."""


class Deployment:
    """Cinder's configuration, its engine, its volumes."""

    def __init__(self, config_files: tuple[str, ...]) -> None:
        """
        Read the configuration.

        Raises:
            CinderMissing, CinderUnconfigured: There is none to read.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of eventlet, by Cinder
                from cinder.common import config  # registers what is read below
                from oslo_config import cfg
        except ImportError as error:
            raise CinderMissing(str(error)) from error
        assert config
        self.conf = cfg.CONF
        try:
            self.conf([], project="cinder", default_config_files=list(config_files) or None)
            self.conf.import_opt("volume_name_template", "cinder.db.api")
            self.backends = tuple(self._backends())
        except cfg.Error as error:
            raise CinderUnconfigured(str(error)) from error

    @property
    def extensions(self) -> tuple[str, ...]:
        """What the API is configured to load."""
        return tuple(self.conf.osapi_volume_extension)

    @property
    def engine(self) -> Any:
        """Cinder's, of its own options."""
        from cinder.db import api

        return api.get_engine()

    def store(self, *, make: bool = False) -> Store:
        """
        The ledger in it.

        Args:
            make: Make the tables where there are none.

        Raises:
            LedgerMissing, LedgerOlder, LedgerNewer, LedgerUnreachable: It cannot be used.
        """
        from qmpsnap.ledger.locking import is_of_database
        from qmpsnap.ledger.schema import LedgerUnreachable, db_sync
        from qmpsnap.ledger.store import Store
        from qmpsnap.openstack.cinder.named import name_of_cinders

        named = name_of_cinders(self.conf)
        try:
            store = Store(self.engine)  # oslo.db's connects at once
        except Exception as error:
            if not is_of_database(error):
                raise
            raise LedgerUnreachable(named, str(error).partition("\n")[0]) from error
        name_it(named)
        if make:
            db_sync(store.engine)
        store.check()
        return store

    def _backends(self) -> Iterator[Backend]:
        from oslo_config import cfg

        # Cinder's own options are registered by its manager, which loads all of the service.
        names = ("volume_driver", *(f"{x}_mount_point_base" for x in FAMILIES))
        options = [cfg.StrOpt(one) for one in names]
        self.conf.register_opts(options, group=_SHARED)
        for name in self.conf.enabled_backends or ():
            self.conf.register_opts([*options, cfg.StrOpt("backend_host")], group=name)
            group = getattr(self.conf, name)
            driver = self._of(name, "volume_driver") or ""
            family = next((one for one in FAMILIES if f".{one}" in driver.lower()), None)
            if family is None:
                continue
            mounts = self._of(name, f"{family}_mount_point_base")
            yield Backend(
                name=name,
                host=f"{group.backend_host or self.conf.host}@{name}",
                driver=driver,
                mounts=os.path.realpath(mounts or os.path.join(self.conf.state_path, "mnt")),
            )

    def _of(self, backend: str, option: str) -> str | None:
        """
        An option of a back end, or of all.

        Source: cinder/volume/configuration.py, BackendGroupConfiguration; not so `backend_host`.
        """
        found: str | None = self.conf[backend][option] or self.conf[_SHARED][option]
        return found

    def volumes(self, backend: Backend) -> Iterator[Row]:
        """Volumes of a back end, in batches: there may be ten thousands."""
        import sqlalchemy as sa
        from cinder.db import models

        volume, table = models.Volume, models.Volume.__table__.c
        # The database may take capitals for small letters, so `has` tells.
        of_backend = sa.or_(
            table.host == backend.host, table.host.startswith(f"{backend.host}#", autoescape=True)
        )
        last = ""
        while True:
            query = (
                sa.select(volume.__table__)
                .where(table.deleted.is_(False), table.id > last, of_backend)
                .order_by(table.id)
                .limit(_BATCH)
            )
            with self.engine.connect() as connection:
                rows = connection.execute(query).mappings().all()
                ids = [row["id"] for row in rows]
                metadata = self._metadata(connection, ids)
                attached = self._attached(connection, ids)
                snapshots = self._snapshots(connection, ids)
            for row in filter(lambda one: backend.has(one["host"]), rows):
                key = row["_name_id"] or row["id"]
                mine = snapshots.get(row["id"], ())
                yield Row(
                    id=row["id"],
                    key=key,
                    name=self.conf.volume_name_template % key,
                    host=row["host"],
                    share=row["provider_location"] or "",
                    status=row["status"],
                    encrypted=row["encryption_key_id"] is not None,
                    metadata=metadata.get(row["id"], {}),
                    attached=attached.get(row["id"], ()),
                    snapshots=tuple(id_ for id_, is_ in mine if is_ not in adopt.UNMADE),
                    under_way=tuple(id_ for id_, is_ in mine if is_ in _UNDER_WAY),
                )
            if len(rows) < _BATCH:
                return
            last = ids[-1]

    def _metadata(self, connection: Any, ids: list[str]) -> dict[str, dict[str, str]]:
        import sqlalchemy as sa
        from cinder.db import models

        table = models.VolumeAdminMetadata.__table__
        query = sa.select(table.c.volume_id, table.c.key, table.c.value).where(
            table.c.volume_id.in_(ids), table.c.deleted.is_(False)
        )
        found: dict[str, dict[str, str]] = {}
        for volume, key, value in connection.execute(query):
            found.setdefault(volume, {})[key] = value
        return found

    def _attached(self, connection: Any, ids: list[str]) -> dict[str, tuple[str, ...]]:
        import sqlalchemy as sa
        from cinder.db import models

        table = models.VolumeAttachment.__table__
        query = sa.select(table.c.volume_id, table.c.connection_info).where(
            table.c.volume_id.in_(ids),
            table.c.deleted.is_(False),
            table.c.connection_info.is_not(None),
        )
        found: dict[str, tuple[str, ...]] = {}
        for volume, text in connection.execute(query):
            stated = json.loads(text or "{}").get("format")
            if stated is not None:
                found[volume] = (*found.get(volume, ()), str(stated))
        return found

    def _snapshots(
        self, connection: Any, ids: list[str]
    ) -> dict[str, tuple[tuple[str, str | None], ...]]:
        """Ids and statuses of the snapshots of volumes."""
        import sqlalchemy as sa
        from cinder.db import models

        table = models.Snapshot.__table__
        query = sa.select(table.c.volume_id, table.c.id, table.c.status).where(
            table.c.volume_id.in_(ids), table.c.deleted.is_(False)
        )
        found: dict[str, tuple[tuple[str, str | None], ...]] = {}
        for volume, snapshot, status in connection.execute(query):
            found[volume] = (*found.get(volume, ()), (snapshot, status))
        return found


def folder_of(backend: Backend, share: str) -> str:
    """
    Where a share is mounted.

    Source: os_brick/remotefs/remotefs.py, get_mount_point.
    """
    name = hashlib.md5(share.encode(), usedforsecurity=False).hexdigest()
    return os.path.join(backend.mounts, name)
