"""
Cinder's API, scheduler and volume service in one process: in one process `fake:/` is a bus.

The order of the calls is that of cinder.cmd.api, .scheduler and .volume. No file of Cinder's is
changed, and no class replaced.
"""

# ruff: noqa: E402
from cinder import monkey_patch

monkey_patch.patch()

import shlex
import sys
import time

import os_brick
from cinder import coordination, objects, rpc, service, utils, version
from cinder.common import config, constants
from oslo_config import cfg
from oslo_log import log
from oslo_privsep import priv_context

CONF = cfg.CONF
objects.register_all()
log.register_options(CONF)
CONF(sys.argv[1:], project="cinder", version=version.version_string())
config.set_middleware_defaults()
log.setup(CONF, "cinder")
priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
os_brick.setup(CONF)
utils.monkey_patch()
coordination.COORDINATOR.start()
rpc.init(CONF)
backend = CONF.enabled_backends[0]
volume = service.Service.create(
    host=f"{CONF.host}@{backend}",
    service_name=backend,
    binary=constants.VOLUME_BINARY,
    coordination=True,
    cluster=None,
)
volume.start()
service.Service.create(binary=constants.SCHEDULER_BINARY).start()
while not volume.manager.driver.initialized:
    time.sleep(0.02)
# Last: whoever gets an answer from the API finds the others ready.
service.WSGIService("osapi_volume").start()
while True:
    time.sleep(3600)
