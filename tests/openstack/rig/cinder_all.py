"""
Cinder's API, scheduler and volume service in one process: in one process `fake:/` is a bus.

Its backup service as well, where a driver for it is configured that needs nothing else: see
`pairings.with_backups`. No file of Cinder's is changed, and no class replaced.
"""

# ruff: noqa: I001
from tests.openstack.rig.cinder_begun import begun

import importlib
import time

from cinder import service
from cinder.common import constants

CONF = begun()
importlib.import_module("cinder.backup.manager")  # registers backup_driver, and needs `begun`
volumes = [
    service.Service.create(
        host=f"{CONF.host}@{backend}",
        service_name=backend,
        binary=constants.VOLUME_BINARY,
        coordination=True,
        cluster=None,
    )
    for backend in CONF.enabled_backends
]
for one in volumes:
    one.start()
service.Service.create(binary=constants.SCHEDULER_BINARY).start()
if CONF.backup_driver.startswith("cinder.backup.drivers.posix."):
    service.Service.create(
        binary=constants.BACKUP_BINARY, service_name="backup", coordination=True
    ).start()
while not all(one.manager.driver.initialized for one in volumes):
    time.sleep(0.02)
# Last: whoever gets an answer from the API finds the others ready.
service.WSGIService("osapi_volume").start()
while True:
    time.sleep(3600)
