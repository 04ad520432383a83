"""Upstream's RemoteFSSnapDriver, for drivers outside of Cinder's tree that are made of it."""

from __future__ import annotations

from cinder.volume.drivers import remotefs

from qmpsnap.openstack.cinder.above import Above
from qmpsnap.openstack.cinder.below import Below


class RemoteFSSnapDriver(Above, remotefs.RemoteFSSnapDriver, Below):  # type: ignore[misc]
    """A RemoteFS driver that keeps the format of every file."""
