"""The part of a driver that uploads a volume as an image, and goes back to a snapshot."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from cinder import exception
from cinder.image import image_utils
from cinder.volume import volume_utils

from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.values import File
from qmpsnap.openstack.cinder.books import Books
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.names import UNFINISHED


class Images(Family):  # type: ignore[misc]
    """Uploads and reverts, each file opened by its format."""

    _books: Books | None

    def _copy_volume_to_image(
        self: Any,
        context: Any,
        volume: Any,
        image_service: Any,
        image_meta: dict[str, Any],
        store_id: str | None = None,
    ) -> None:
        """
        Upload what the guest sees, in the image's format.

        `image_utils.upload_volume` looks into a raw file as soon as the image is to be anything but
        raw, and converts by what it finds there. So it gets a file in the format that is wanted,
        which it hands on as it is. A compressed image it does look into: that gets a qcow2 file,
        whose header is qemu-img's.
        """
        if self._books is None:
            super()._copy_volume_to_image(context, volume, image_service, image_meta)
            return
        chain: Chain[File] = self._adopted(volume)
        if not self._is_volume_attached(volume):
            self._mend_headers(volume, chain)
        active = os.path.join(self._local_volume_dir(volume), chain.active.file)
        seen = self._qemu_img_info(active, volume.name)
        wanted = str(image_meta["disk_format"])
        compressed = image_meta.get("container_format") == "compressed"
        image_utils.check_image_conversion_disable(wanted, "raw", image_meta["id"], upload=True)
        if seen.file_format == "raw" and wanted == "raw" and not compressed:
            volume_utils.upload_volume(
                context, image_service, image_meta, active, volume,
                run_as_root=self._execute_as_root,
            )  # fmt: skip
            return
        own = "qcow2" if compressed else image_utils.fixup_disk_format(wanted)
        prefix = f"{volume.id}.temp_image.{image_meta['id']}"
        with image_utils.temporary_file(prefix=prefix, suffix=".img") as path:
            image_utils.convert_image(
                active, path, own, src_format=seen.file_format, data=seen,
                run_as_root=self._execute_as_root,
            )  # fmt: skip
            volume_utils.upload_volume(
                context, image_service, image_meta, path, volume,
                volume_format="qcow2" if compressed else wanted,
                run_as_root=self._execute_as_root,
            )  # fmt: skip

    def _revert_to_snapshot(self: Any, context: Any, volume: Any, snapshot: Any) -> None:
        """
        Go back to the newest snapshot: its file is replaced by an empty one, in one step.

        Source: cinder/volume/drivers/remotefs.py, RevertToSnapshotMixin, which removes it first.
        """
        if self._books is None:
            super()._revert_to_snapshot(context, volume, snapshot)
            return
        self._validate_state(snapshot.volume.status, ["available", "reverting"])
        chain: Chain[File] = self._adopted(volume)
        content = self._read_info_file(self._local_path_volume_info(volume))
        file = content[snapshot.id]
        if file != chain.active.file or chain.active.backing is None:
            raise exception.InvalidSnapshot(
                f"volume {volume.id} cannot go back to snapshot {snapshot.id}: its file {file} is "
                f"not the active one, {chain.active.file} is"
            )
        folder = self._local_volume_dir(volume)
        path = os.path.join(folder, file)
        temporary = path + UNFINISHED
        self._do_create_snapshot(snapshot, chain.active.backing, temporary)
        try:
            os.replace(temporary, path)
        except PermissionError:
            self._execute("mv", "-f", temporary, path, run_as_root=self._execute_as_root)
        with suppress(OSError):
            sync_folder(folder)
