"""
The part of a driver that has a say while Cinder migrates a volume to another back end.

The manager makes a volume there, copies the bytes of one file into the other's, and swaps the two rows
and perhaps the names of the files. It calls no qemu-img, and copies as many bytes as the volume is
long. Source: cinder/volume/manager.py, _migrate_volume_generic, _copy_volume_data,
migrate_volume_completion; cinder 29.0.0.
"""

from __future__ import annotations

from typing import Any

from cinder import context as cinder_context
from cinder import exception, objects
from msgspec.structs import replace
from oslo_config import cfg

from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import ledger_id


class Migrating(Family):  # type: ignore[misc]
    """Has the ledger follow the names."""

    _books: Books | None

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
