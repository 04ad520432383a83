"""All that the services of Cinder import, before anything is configured; for warm.py."""

# ruff: noqa: E402, F401, I001
from tests.openstack.rig import cinder_begun  # it patches, so it comes first

from cinder import objects

objects.register_all()  # cinder.volume.manager needs it

import cinder.api.v3.router
import cinder.backup.manager
import cinder.scheduler.manager
import cinder.volume.drivers.nfs
import cinder.volume.manager

import qmpsnap.openstack.cinder.nfs
