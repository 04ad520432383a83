"""What each process of Cinder begins with: the order of the calls is that of cinder.cmd.*."""

# ruff: noqa: E402
from cinder import monkey_patch

monkey_patch.patch()

import shlex
import sys
from typing import Any

import os_brick
from cinder import coordination, objects, rpc, utils, version
from cinder.common import config
from oslo_config import cfg
from oslo_log import log
from oslo_privsep import priv_context


def begun() -> Any:
    """Read the configuration, and set up what all of Cinder's services need; returns CONF."""
    conf = cfg.CONF
    objects.register_all()
    log.register_options(conf)
    conf(sys.argv[1:], project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    log.setup(conf, "cinder")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(conf)
    utils.monkey_patch()
    coordination.COORDINATOR.start()
    rpc.init(conf)
    return conf
