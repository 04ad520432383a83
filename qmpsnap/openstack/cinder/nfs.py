"""Cinder's NFS driver, with the format of every file kept."""

from __future__ import annotations

from cinder.volume.drivers import nfs

from qmpsnap.openstack.cinder.above import Above
from qmpsnap.openstack.cinder.below import Below


class NfsDriver(Above, nfs.NfsDriver, Below):  # type: ignore[misc]
    """`volume_driver = qmpsnap.openstack.cinder.NfsDriver`; all options are upstream's."""
