"""
Cinder's Virtuozzo Storage driver, with the format of every file kept.

Only its unit tests can be run without Virtuozzo.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cinder.image import image_utils
from cinder.volume.drivers import vzstorage

from qmpsnap.openstack.cinder.above import Above
from qmpsnap.openstack.cinder.below import Below


class VZStorageDriver(Above, vzstorage.VZStorageDriver, Below):  # type: ignore[misc]
    """`volume_driver = qmpsnap.openstack.cinder.VZStorageDriver`; all options are upstream's."""

    def _own_format(self, volume: Any) -> str:
        return str(self.choose_volume_format(volume))

    def _qemu_img_info(self, path: str, volume_name: str) -> Any:
        """Upstream takes what qemu-img once found from a file beside it; here it only writes it."""
        if self._books is None:
            return super()._qemu_img_info(path, volume_name)
        inside = path
        if os.path.isdir(path):
            inside = os.path.join(path, vzstorage.PLOOP_BASE_DELTA_NAME)
        found = self._qemu_img_info_base(
            inside, volume_name, self.configuration.vzstorage_mount_point_base
        )
        with open(path + ".qemu_img_info", "w", encoding="utf-8") as cache:
            json.dump({"file_format": found.file_format, "backing_file": found.backing_file}, cache)
        return found

    def _stated(self, path: str, volume_name: str) -> str:
        if os.path.basename(path) == vzstorage.PLOOP_BASE_DELTA_NAME:
            return "parallels"
        return str(super()._stated(path, volume_name))

    def _copy_volume_from_snapshot(
        self, snapshot: Any, volume: Any, volume_size: int, *keys: Any, **named: Any
    ) -> None:
        if self._books is None or self.get_volume_format(snapshot.volume) == "ploop":
            super(Above, self)._copy_volume_from_snapshot(snapshot, volume, volume_size)
            if self._books is not None:
                self._made(volume, self._own_format(volume))
            return
        stated = self._own_format(volume)
        target = self.local_path(volume)
        if stated == "ploop":
            target = os.path.join(target, vzstorage.PLOOP_BASE_DELTA_NAME)
        source = self._snapshot_path(snapshot)
        self._convert(snapshot.volume, source, target, image_utils.fixup_disk_format(stated))
        self._made(volume, stated)
        self._extend_volume(volume, volume_size, stated)
        self._qemu_img_info(self.local_path(volume), volume.name)

    def _do_extend_volume(self, volume_path: str, size_gb: int, volume_format: str) -> None:
        """Resize with the format; upstream leaves it to qemu-img."""
        if self._books is None or volume_format == vzstorage.DISK_FORMAT_PLOOP:
            super()._do_extend_volume(volume_path, size_gb, volume_format)
            return
        image_utils.resize_image(volume_path, size_gb, file_format=volume_format)
