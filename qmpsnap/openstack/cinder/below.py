"""
What stands between a family of drivers and `RemoteFSSnapDriverBase`.

A family's `_qemu_img_info` and its like call their parent's, and come out here: by deriving from
the same base, these stand behind the family's class in the order of resolution.
"""

from __future__ import annotations

from cinder.volume.drivers import remotefs

from qmpsnap.openstack.cinder.concluding import Concluding
from qmpsnap.openstack.cinder.files import Files
from qmpsnap.openstack.cinder.images import Images
from qmpsnap.openstack.cinder.snapshots import Snapshots
from qmpsnap.openstack.cinder.starting import Starting


class Below(Starting, Snapshots, Concluding, Images, Files, remotefs.RemoteFSSnapDriverBase):  # type: ignore[misc]
    """Everything of a RemoteFS driver that reads, makes or removes a file of a volume."""
