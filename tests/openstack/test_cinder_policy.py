"""Who may report: contexts as keystone would make them, on Cinder's own enforcer."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from cinder.common import config
from oslo_config import cfg
cfg.CONF([], project="cinder")
from cinder import context
from qmpsnap.openstack.cinder import policy
roles = sys.argv[1].split(",")
who = context.RequestContext("user", "project", roles=roles, is_admin=None)
print(policy.allows(who))
"""


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [("reader", False), ("member,reader", False), ("service", True), ("admin,member,reader", True)],
)
def test_a_service_and_an_administrator_may_report(roles: str, allowed: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-Wignore", "-c", SCRIPT, roles],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == str(allowed)
