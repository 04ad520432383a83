"""
The part of a driver that Cinder's backup service asks: what it reads, and where a restore may write.

The service opens one file, by its name in connection_info, and copies bytes: it calls no qemu-img.
A restore truncates the file first. Source: cinder/backup/manager.py, continue_backup, _run_restore.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from typing import Any, Final

from cinder import objects
from cinder.db import api as db
from cinder.image import image_utils
from cinder.objects import fields
from cinder.volume import volume_utils
from oslo_utils import excutils

from qmpsnap.errors import Refused
from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.values import File, Format
from qmpsnap.openstack.cinder.attaching import await_operation
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.encrypted import is_encrypted, layers_of
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import ledger_id
from qmpsnap.openstack.cinder.reading import FileUnusable, describe

log = logging.getLogger(__name__)
GIB: Final = 1 << 30
_RESTORED: Final = ("restoring-backup", "creating")
"""What a volume is while a backup is written into it; `creating` if it was made for that."""


_overwritten: ContextVar[bool] = ContextVar("overwritten", default=False)


def is_overwritten() -> bool:
    """Whether a restore is about to begin, and what the volume's file holds is of no interest."""
    return _overwritten.get()


class BackupRefused(Refused):
    """An encrypted volume would have to be copied, and the copy would have another key."""

    msg = (
        "volume {self.volume} is encrypted: it is backed up only while it is not attached and has "
        "no snapshots"
    )
    remedy = "Nothing was read. Detach it, and delete its snapshots, then take the backup again."

    volume: str


class BackupOvertaken(Refused):
    """A snapshot was taken between the choice of what is to be read and the reading."""

    msg = (
        "volume {self.volume} is not backed up: a snapshot was taken since the backup began, and "
        "{self.file} holds only what was written after it"
    )
    remedy = "Nothing was read. Take the backup again."

    volume: str
    file: str


class RestoreRefused(Refused):
    """A backup would be written into a file that others lie on, or that lies on others."""

    msg = "no backup is restored over volume {self.volume}: it has snapshots, and {self.file} is a part"
    remedy = (
        "Nothing was written. Restore into a new volume, or delete the snapshots of this one first. "
        "`cinder reset-state --state available {self.volume}` makes it usable again."
    )

    volume: str
    file: str


class RestoreUnfit(Refused):
    """A backup would be written into a file of another format than the backups here hold."""

    msg = (
        "no backup is restored over volume {self.volume}: {self.file} is {self.format}, and backups "
        "hold what new volumes are made as, {self.held}"
    )
    remedy = (
        "Nothing was written. Restore into a new volume. "
        "`cinder reset-state --state available {self.volume}` makes this one usable again."
    )

    volume: str
    file: str
    format: str
    held: str


class Backups(Family):  # type: ignore[misc]
    """Has all that the guest sees backed up, and nothing restored into an overlay."""

    _books: Books | None

    def get_backup_device(self: Any, context: Any, backup: Any) -> Any:
        """
        The volume that the service is to read.

        Of a volume with snapshots that nobody has attached, upstream has the active file copied, an
        overlay alone. Here it is a copy of the whole, as upstream has it of one that is attached. So
        it is where the one file has another format than new volumes, into which backups are restored.

        Cinder calls this without waiting for a result, so it would not learn of an error: backup
        and volume would stay `creating` and `backing-up` until cinder-backup is restarted.

        Raises:
            BackupRefused: It is encrypted, and would have to be copied.
            OperationUnsettled: An operation on it does not end.
        """
        if self._books is None:
            return super().get_backup_device(context, backup)
        volume = objects.Volume.get_by_id(context, backup.volume_id)
        try:
            return self._backup_device(context, backup, volume)
        except Exception as error:
            with excutils.save_and_reraise_exception():
                _tell_failed(context, backup, volume, error)

    def _backup_device(self: Any, context: Any, backup: Any, volume: Any) -> Any:
        if backup.snapshot_id is None:
            await_operation(self._books, volume)
        chain: Chain[File] = self._adopted(volume)
        is_copied = backup.snapshot_id is not None or volume.previous_status == "in-use"
        if is_encrypted(volume) and (is_copied or len(chain.layers) > 1):
            raise BackupRefused(volume.id)
        is_whole = len(chain.layers) == 1 and self._fits_backups(volume, chain.active)
        if is_whole and not is_copied:
            return super().get_backup_device(context, backup)
        return self._copied(context, backup, volume), False

    def _copied(self: Any, context: Any, backup: Any, volume: Any) -> Any:
        """
        Copy a volume, or its snapshot; the backup's row names the copy before its file is made.

        Upstream writes the name when the copy is done. If it is killed before, cinder-backup does not
        know of the copy, and it stays (_create_temp_cloned_volume, _create_temp_volume_from_snapshot).
        """
        copy = self._create_temp_volume(context, volume)
        backup.temp_volume_id = copy.id
        backup.save()
        try:
            if backup.snapshot_id is None:
                made = self.create_cloned_volume(copy, volume)
            else:
                snapshot = objects.Snapshot.get_by_id(context, backup.snapshot_id)
                made = self.create_volume_from_snapshot(copy, snapshot)
            copy.update(made)
        except Exception:
            with excutils.save_and_reraise_exception():
                self._let_go_of_copy(copy)
        copy.status = fields.VolumeStatus.BACKING_UP
        copy.save()
        return copy

    def _let_go_of_copy(self: Any, copy: Any) -> None:
        """
        Remove what there is of a copy by now: what failed may be what comes after it.

        If that fails, too, the row stays, and the next start of cinder-backup has it deleted.
        """
        try:
            self.delete_volume(copy)
        except Exception:
            log.exception("the copy %s of a backup that has failed is not removed", copy.id)
        else:
            copy.destroy()

    def _fits_backups(self: Any, volume: Any, file: File) -> bool:
        """Whether a file has the format of all backups here: new volumes', and a copy is one."""
        return is_encrypted(volume) or file.format == self._own_format(volume)

    def initialize_connection(self: Any, volume: Any, connector: Any) -> Any:
        """
        Tell the file and its format; for a restore whatever it holds, for that is truncated.

        So one that went wrong can be done again.

        Raises:
            BackupOvertaken: It is to be backed up as it is, and is an overlay by now.
            RestoreRefused: It is an overlay.
            RestoreUnfit: It has another format than a backup holds.
        """
        if self._books is not None and _is_read_itself(volume):
            overlaid: Chain[File] = self._adopted(volume)
            if len(overlaid.layers) > 1:
                raise BackupOvertaken(volume.id, overlaid.active.file)
        if self._books is None or volume.status not in _RESTORED:
            return super().initialize_connection(volume, connector)
        chain: Chain[File] = self._adopted(volume)
        if len(chain.layers) > 1:
            raise RestoreRefused(volume.id, chain.active.file)
        if not self._fits_backups(volume, chain.active):
            known, held = chain.active, self._own_format(volume)
            raise RestoreUnfit(volume.id, known.file, str(known.format), held)
        token = _overwritten.set(True)
        try:
            return super().initialize_connection(volume, connector)
        finally:
            _overwritten.reset(token)

    def terminate_connection(self: Any, volume: Any, connector: Any, **named: Any) -> None:
        """Let go of a volume; after a restore, see that its file is what it is said to be."""
        super().terminate_connection(volume, connector, **named)
        if self._books is not None and volume.status in _RESTORED:
            self._check_restored(volume)

    def _check_restored(self: Any, volume: Any) -> None:
        """
        The bytes of a backup are the file's, whose format stays what it was.

        The service leaves out the zeros at the end of a new volume, and all that lies behind the
        end of a smaller backup.

        Raises:
            FileUnusable: They are nothing that such a file may hold.
        """
        chain: Chain[File] = self._books.chain(ledger_id(volume))
        if len(chain.layers) > 1 or not self._fits_backups(volume, chain.active):
            return  # refused; nothing was written
        stated = chain.active.format
        path = os.path.join(self._local_volume_dir(volume), chain.active.file)
        size = volume.size * GIB
        if stated not in (Format.RAW, Format.QCOW2):
            return
        seen = describe(path, stated, run=self._execute, as_root=self._execute_as_root)
        encrypted = is_encrypted(volume)
        if seen.get("backing-filename") is not None:
            raise FileUnusable(path, stated, "its header names a backing file")
        if stated is Format.QCOW2 and seen["encrypted"] != encrypted:
            raise FileUnusable(
                path, stated, "one of backup and volume is encrypted, and one is not"
            )
        if seen["virtual-size"] > size:
            raise FileUnusable(
                path, stated, f"it is larger than the {volume.size} GiB of its volume"
            )
        if seen["virtual-size"] < size and encrypted:
            # By now the volume's key is that of the bytes: the service has written it with them.
            layers = layers_of(self._local_volume_dir(volume), chain.layers)
            self._resize_encrypted(volume, layers, volume.size)
        elif seen["virtual-size"] < size:
            image_utils.resize_image(
                path, volume.size, run_as_root=self._execute_as_root, file_format=str(stated)
            )


def _is_read_itself(volume: Any) -> bool:
    """Whether the backup service reads the volume's own file, and no copy of it."""
    return bool(volume.status == "backing-up" and volume.previous_status != "in-use")


def _tell_failed(context: Any, backup: Any, volume: Any, error: Exception) -> None:
    """As the backup service tells its own failures: cinder/backup/manager.py, create_backup."""
    if backup.snapshot_id is None:
        before = {"status": volume.previous_status, "previous_status": "error_backing-up"}
        db.volume_update(context, volume.id, before)
    else:
        db.snapshot_update(context, backup.snapshot_id, {"status": fields.SnapshotStatus.AVAILABLE})
    volume_utils.update_backup_error(backup, str(error))
