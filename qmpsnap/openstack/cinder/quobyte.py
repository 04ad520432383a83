"""Cinder's Quobyte driver, with the format of every file kept."""

from __future__ import annotations

import os
import shutil
from typing import Any

from cinder import exception
from cinder.image import image_utils
from cinder.volume.drivers import quobyte

from qmpsnap.openstack.cinder.above import Above
from qmpsnap.openstack.cinder.below import Below


class QuobyteDriver(Above, quobyte.QuobyteDriver, Below):  # type: ignore[misc]
    """`volume_driver = qmpsnap.openstack.cinder.QuobyteDriver`; all options are upstream's."""

    def _stated(self, path: str, volume_name: str) -> str:
        """A file in the cache of copies has the format that the driver makes volumes in."""
        if self.QUOBYTE_VOLUME_SNAP_CACHE_DIR_NAME in path.split(os.sep):
            return "qcow2" if self.configuration.quobyte_qcow2_volumes else "raw"
        return str(super()._stated(path, volume_name))

    def _copy_volume_from_snapshot(
        self, snapshot: Any, volume: Any, volume_size: int, *keys: Any, **named: Any
    ) -> None:
        """Copy a snapshot to a new volume; by way of the cache, where that is switched on."""
        cache = self.configuration.quobyte_volume_from_snapshot_cache
        encrypted = any((*keys, *named.values()))
        if self._books is None or not cache or encrypted:
            super()._copy_volume_from_snapshot(snapshot, volume, volume_size, *keys, **named)
            return
        self._ensure_shares_mounted()
        stated, target = self._own_format(volume), self._local_path_volume(volume)
        source = self._snapshot_path(snapshot)
        cached = self._local_volume_from_snap_cache_path(snapshot)
        overlays = self.configuration.quobyte_overlay_volumes
        if not os.access(cached, os.F_OK):
            self._convert(snapshot.volume, source, cached, stated)
            if overlays:
                os.symlink(source, f"{cached}.parent-{snapshot.id}")
        if overlays:
            self._create_overlay_volume_from_snapshot(volume, snapshot, volume_size, stated)
        else:
            shutil.copyfile(cached, target)
            self._fallocate_file(target, volume_size)
        self._made(volume, "qcow2" if overlays else stated)
        self._set_rw_permissions(target)

    def extend_volume(self, volume: Any, size_gb: int) -> None:
        """Extend the active file; upstream does not say its format."""
        if self._books is None:
            super().extend_volume(volume, size_gb)
            return
        active = self._adopted(volume).active
        self._mend_headers(volume, self._adopted(volume))
        path = os.path.join(self._local_volume_dir(volume), active.file)
        image_utils.resize_image(
            path, size_gb, run_as_root=self._execute_as_root, file_format=str(active.format)
        )
        if self._qemu_img_info(path, volume.name).virtual_size != size_gb << 30:
            raise exception.ExtendVolumeError(reason="Resizing image file failed.")
        self._restate_size(volume, size_gb)
