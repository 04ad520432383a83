"""
The part of a driver that has a say while Cinder migrates a volume to another back end.

The manager makes a volume there, copies the bytes of one file into the other's, and swaps the two rows
and perhaps the names of the files. It calls no qemu-img, and copies as many bytes as the volume is
long. Source: cinder/volume/manager.py, _migrate_volume_generic, _copy_volume_data,
migrate_volume_completion; cinder 29.0.0.
"""

from __future__ import annotations

from typing import Any, Final

from cinder import context as cinder_context
from cinder import exception, objects
from msgspec.structs import replace
from oslo_config import cfg

from qmpsnap.errors import Refused
from qmpsnap.ledger.values import File, Format
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import ledger_id

_COPIED: Final = ("starting", "migrating")
"""`migration_status` of a volume until it has been copied."""
_TARGET: Final = "target:"
"""How `migration_status` of the volume that is made begins; the id of the migrated one follows."""


class MigrationRefused(Refused):
    """The bytes of one of the two files are not the disk's."""

    msg = (
        "volume {self.migrated} is not migrated: {self.file} is {self.format}, and Cinder copies the "
        "bytes of a file as if they were the disk"
    )
    remedy = (
        "Nothing was copied. Where new volumes are raw, a clone of it is, and can be migrated to a "
        "back end where they are raw, too."
    )

    migrated: str
    file: str
    format: str


class Migrating(Family):  # type: ignore[misc]
    """Has only raw files copied by bytes, and the ledger follow the names."""

    _books: Books | None

    def before_volume_copy(
        self: Any, context: Any, src_vol: Any, dest_vol: Any, remote: str | None = None
    ) -> None:
        """
        Look at what is to be copied, before it is; not where a guest copies it, by Nova.

        Raises:
            MigrationRefused: It is no raw file.
        """
        super().before_volume_copy(context, src_vol, dest_vol, remote)
        if self._books is not None:
            _refuse_image(self._adopted(src_vol).active, str(src_vol.id))

    def initialize_connection(self: Any, volume: Any, connector: Any) -> Any:
        """
        Tell the file and its format; not to copy bytes into, if it is an image.

        Raises:
            MigrationRefused: It is no raw file.
        """
        status = volume.migration_status or ""
        if self._books is not None and status in _COPIED and not volume.volume_attachment:
            # A clone of it may have begun since it was looked at, and its overlay is the active file.
            _refuse_image(self._adopted(volume).active, str(volume.id))
        if self._books is not None and status.startswith(_TARGET):
            migrated = volume.migration_status.removeprefix(_TARGET)
            source = objects.Volume.get_by_id(cinder_context.get_admin_context(), migrated)
            if not _is_on_a_guest(source):
                _refuse_image(self._books.chain(ledger_id(volume)).active, migrated)
        return super().initialize_connection(volume, connector)

    def update_migrated_volume(
        self: Any, ctxt: Any, volume: Any, new_volume: Any, original_volume_status: str
    ) -> Any:
        """After a migration the new file may have the name of the old one."""
        done = super().update_migrated_volume(ctxt, volume, new_volume, original_volume_status)
        if self._books is not None and done.get("_name_id") is None:
            self._renamed(objects.Volume.get_by_id(ctxt, new_volume.id), volume)
        return done

    def _renamed(self: Any, new: Any, old: Any) -> None:
        source, key = ledger_id(new), str(old.id)
        known = self._books.chain(source).active
        name = cfg.CONF.volume_name_template % key
        moved = replace(known.statement, file=name, detail=f"was {known.file}")

        def work(ledger: Any) -> None:
            ledger.forget(key)
            ledger.state(key, [moved])
            ledger.forget(source)

        self._books.run(work)

    def _has_moved(self: Any, volume: Any) -> bool:
        """
        Whether a volume is but what is left at the source of a migration, under the name of another.

        What the ledger has by that name is then of the file at the destination.
        """
        key = ledger_id(volume)
        if key == str(volume.id):
            return False
        try:
            other = objects.Volume.get_by_id(cinder_context.get_admin_context(), key)
        except exception.VolumeNotFound:
            return False
        return ledger_id(other) == key


def _is_on_a_guest(volume: Any) -> bool:
    """Whether a guest copies it, by Nova: with the formats."""
    return any(one.attach_status == "attached" for one in volume.volume_attachment or ())


def _refuse_image(file: File, migrated: str) -> None:
    if file.format is not Format.RAW:
        raise MigrationRefused(migrated, file.file, str(file.format))
