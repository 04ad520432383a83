"""All that compute.py imports, before anything is configured; for warm.py."""

# ruff: noqa: E402, F401
from nova import monkey_patch

monkey_patch.patch(backend="threading")  # as nova.cmd.compute, which is why it comes first

import nova.api.openstack.compute.schemas
import nova.db.main.api
import nova.objects
import nova.virt.driver
import nova.virt.fake
import nova.virt.libvirt.driver

import qmpsnap.openstack.nova.driver
