"""
The part of a driver that stands above its family's: what Cinder calls first.

Each family has `initialize_connection`, `delete_volume` and the like of its own, which call no
parent's. So this comes before the family's class, and `Below` behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from cinder import exception
from cinder.image import image_utils
from msgspec.structs import replace

from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.values import File, Format, Place, Statement, Witness
from qmpsnap.openstack.cinder import adopt
from qmpsnap.openstack.cinder.attaching import await_operation
from qmpsnap.openstack.cinder.backups import Backups
from qmpsnap.openstack.cinder.encrypted import (
    Keyed,
    Layer,
    is_encrypted,
    layers_of,
    making,
    opening,
)
from qmpsnap.openstack.cinder.files import leaves
from qmpsnap.openstack.cinder.migrating import Migrating
from qmpsnap.openstack.cinder.names import ledger_id
from qmpsnap.openstack.cinder.temporary import uncounted

GIB: Final = 1 << 30


class Above(Migrating, Backups):
    """Has the ledger asked before each of a family's own methods, and told after it."""

    _books: Any

    def initialize_connection(self: Any, volume: Any, connector: Any) -> Any:
        """
        Tell the file and its format; the ledger's, after it has taken the volume over.

        Raises:
            OperationUnsettled: An operation is open by which another file becomes the active one.
        """
        if self._books is not None:
            await_operation(self._books, volume)
            self._adopted(volume)
            self._follow_metadata(volume)
        return super().initialize_connection(volume, connector)

    def _do_create_volume(self: Any, volume: Any) -> None:
        if self._books is not None:
            _say_where(volume, volume.provider_location)
        super()._do_create_volume(volume)
        if self._books is not None:
            self._made(volume, self._own_format(volume))
            self._follow_metadata(volume)

    def _own_format(self: Any, volume: Any) -> str:
        """The format that the driver makes new volumes with."""
        if is_encrypted(volume):
            return "qcow2"  # Cinder's encrypted files are qcow2 with LUKS in it
        qcow2 = getattr(self.configuration, f"{self.driver_prefix}_qcow2_volumes", False)
        return "qcow2" if qcow2 else "raw"

    def _made(
        self: Any,
        volume: Any,
        format_: str,
        *,
        gib: int | None = None,
        encrypted: bool | None = None,
    ) -> None:
        """
        State that `volume-<id>` has been made, alone and with this format.

        Args:
            volume: Cinder's.
            format_: Of its file.
            gib: Its size; None: the volume's.
            encrypted: Whether it is; None: as the volume is.
        """
        statement = Statement(
            file=volume.name,
            format=Format(format_),
            base=True,
            backing=None,
            place=Place.CHAIN,
            size=(volume.size if gib is None else gib) * GIB,
            encrypted=is_encrypted(volume) if encrypted is None else encrypted,
            witness=Witness.MADE,
            detail="created",
        )
        key = ledger_id(volume)
        self._books.run(lambda ledger: ledger.state(key, [statement]))

    def delete_volume(self: Any, volume: Any) -> None:
        """Delete a volume, with the files beside its chain; the ledger calls all of them gone."""
        if self._books is None or not volume.provider_location:
            super().delete_volume(volume)
            return
        key = ledger_id(volume)
        known = self._books.look(lambda ledger: ledger.files(key))
        for one in known:
            if one.place is Place.LEFT:
                self._remove(volume, one.file)
        super().delete_volume(volume)
        self._remove_unfinished(self._local_path_volume_info(volume))
        if not self._has_moved(volume):
            for one in known:
                if one.place is Place.UNSURE:  # no guest has the volume: Cinder deletes none then
                    self._books.run(partial(leaves, key, one, "its volume is deleted"))
                    self._remove(volume, one.file)
            self._books.run(lambda ledger: ledger.forget(key))

    def delete_snapshot(self: Any, snapshot: Any) -> None:
        """Delete a snapshot; a family's own waits for the lock of its volume first."""
        self._lost.discard(snapshot.id)
        try:
            super().delete_snapshot(snapshot)
        finally:
            self._was_tried(snapshot.id)

    def extend_volume(self: Any, volume: Any, new_size: int) -> None:
        """Extend the active file, with its format."""
        if self._books is None:
            super().extend_volume(volume, new_size)
            return
        self._mend_headers(volume, self._adopted(volume))
        self._follow_metadata(volume)
        if is_encrypted(volume):
            self._extend_encrypted(volume, int(new_size))
        else:
            super().extend_volume(volume, new_size)
        self._restate_size(volume, int(new_size))

    def _extend_encrypted(self: Any, volume: Any, gib: int) -> None:
        """As upstream's, which gives `qemu-img` no key and so always fails."""
        if self._is_volume_attached(volume):
            raise exception.ExtendVolumeError(reason="it is attached")
        if not self._is_share_eligible(volume.provider_location, gib - volume.size):
            raise exception.ExtendVolumeError(reason="there is no room for it on the share")
        chain: Chain[File] = self._books.chain(ledger_id(volume))
        layers = layers_of(self._local_volume_dir(volume), chain.layers)
        self._resize_encrypted(volume, layers, gib)

    def _restate_size(self: Any, volume: Any, gib: int) -> None:
        key = ledger_id(volume)
        active = self._books.chain(key).active
        grown = replace(active.statement, size=gib * GIB)
        self._books.run(lambda ledger: ledger.state(key, [grown]))

    def create_cloned_volume(self: Any, volume: Any, src_vref: Any) -> Any:
        """Clone a volume. Stock gives the clone its source's format, whatever it has been made in."""
        if self._books is None:
            return super().create_cloned_volume(volume, src_vref)
        self._adopted(src_vref)
        _say_where(volume, src_vref.provider_location)
        try:
            with uncounted():
                done = super().create_cloned_volume(volume, src_vref)
        except Exception:
            self._end_clone(volume.id)
            raise
        self._follow_metadata(volume)
        return done

    def copy_image_to_volume(
        self: Any,
        context: Any,
        volume: Any,
        image_service: Any,
        image_id: str,
        disable_sparse: bool = False,
    ) -> None:
        """Write an image to a volume in the volume's own format, and give it the volume's size."""
        if self._books is None:
            super().copy_image_to_volume(context, volume, image_service, image_id, disable_sparse)
            return
        path, stated = self.local_path(volume), self._own_format(volume)
        image_utils.fetch_to_volume_format(
            context,
            image_service,
            image_id,
            path,
            stated,
            self.configuration.volume_dd_blocksize,
            size=volume.size,
            run_as_root=self._execute_as_root,
            disable_sparse=disable_sparse,
        )
        self._made(volume, stated)
        self._follow_metadata(volume)
        image_utils.resize_image(
            path, volume.size, run_as_root=self._execute_as_root, file_format=stated
        )
        size = self._qemu_img_info(path, volume.name).virtual_size
        if size != volume.size * GIB:
            reason = f"the volume has {size} bytes then, not {volume.size} GiB"
            raise exception.ImageUnacceptable(image_id=image_id, reason=reason)

    def _copy_volume_from_snapshot(
        self: Any, snapshot: Any, volume: Any, volume_size: int, *keys: Any, **named: Any
    ) -> None:
        """
        Copy what a snapshot holds to a new volume, each file by its format.

        Upstream's copy of an encrypted snapshot is LUKS without qcow2, over which it makes no
        overlay; here it is made as new volumes are. Of a clone `volume` is but a tuple, without a
        key and with its source's size.
        """
        if self._books is None:
            super()._copy_volume_from_snapshot(snapshot, volume, volume_size, *keys, **named)
            return
        new = Keyed(volume.id, volume.obj_context, _new_key(*keys, **named))
        if is_encrypted(new) != is_encrypted(snapshot.volume):
            reason = (
                f"volume {volume.id} or snapshot {snapshot.id} is encrypted, and the other is not"
            )
            raise exception.InvalidVolume(reason=reason)
        source, target = self._snapshot_path(snapshot), self.local_path(volume)
        stated = self._own_format(new)
        is_longer = volume_size > snapshot.volume_size
        try:
            if is_encrypted(new):
                self._convert_encrypted(snapshot.volume, source, new, target)
                if is_longer:
                    self._resize_encrypted(new, [(target, stated)], volume_size)
            else:
                self._convert(snapshot.volume, source, target, stated)
                if is_longer:
                    image_utils.resize_image(
                        target, volume_size, run_as_root=self._execute_as_root, file_format=stated
                    )
        except Exception:
            # A share that is full stays full otherwise, and each try adds to it.
            self._delete(target)
            raise
        self._made(volume, stated, gib=volume_size, encrypted=is_encrypted(new))
        self._set_rw_permissions_for_all(target)

    def _convert_encrypted(self: Any, volume: Any, source: str, new: Any, target: str) -> None:
        """Copy a file of a volume's chain, and all below it, into one with the new volume's key."""
        chain: Chain[File] = self._adopted(volume)
        folder, name = os.path.split(source)
        layers = chain.layers[[one.file for one in chain.layers].index(name) :]
        with opening(volume, layers_of(folder, layers)) as files, making(new) as made:
            command = ["qemu-img", "convert", "-q", *files, "-O", "qcow2", *made, target]
            self._execute(*command, run_as_root=self._execute_as_root)

    def _resize_encrypted(self: Any, volume: Any, layers: Sequence[Layer], gib: int) -> None:
        with opening(volume, layers) as files:
            command = ["qemu-img", "resize", "-q", *files, f"{gib}G"]
            self._execute(*command, run_as_root=self._execute_as_root)

    def _snapshot_path(self: Any, snapshot: Any) -> str:
        """The file that holds a snapshot: what backs the one that was written to after it."""
        volume = snapshot.volume
        chain: Chain[File] = self._adopted(volume)
        content = self._read_info_file(self._local_path_volume_info(volume))
        above = chain.layer(content[snapshot.id])
        if above is None or above.backing is None:
            reason = f"{content[snapshot.id]}, written to since snapshot {snapshot.id}, has no base"
            raise adopt.ChainBroken(volume.name, reason)
        return os.path.join(self._local_volume_dir(volume), above.backing)

    def _convert(self: Any, volume: Any, source: str, target: str, format_: str) -> None:
        """Copy a file of a volume's chain, and all below it, into one of this format."""
        if not self._is_volume_attached(volume):
            self._mend_headers(volume, self._adopted(volume))
        seen = self._qemu_img_info(source, volume.name)
        image_utils.convert_image(
            source,
            target,
            format_,
            src_format=seen.file_format,
            run_as_root=self._execute_as_root,
            data=seen,
        )


def _say_where(volume: Any, share: str) -> None:
    """
    Write the volume's share into its row before a file is made there.

    Upstream writes it when all is done. If the driver fails or is killed before, the deletion of the
    volume skips the file, which then stays on the share (nfs.py, delete_volume).
    """
    volume.provider_location = share
    volume.save()


def _new_key(
    src_encryption_key_id: str | None = None, new_encryption_key_id: str | None = None
) -> str | None:
    """The key of the copy, as upstream's callers give it: by place, by name, or not at all."""
    return new_encryption_key_id
