"""
Who may update a snapshot's status: the service, or an administrator.

Upstream's rule lets every member of the project do it, so that the formats in an update would be
the tenant's word. A rule of our own, so that `policy.yaml` may change it, and upstream's stays as
an operator has set it. Admin stands beside service because a Nova before the service role calls
as admin, and takes no notice of a 403: Cinder would wait ten minutes (nova/volume/cinder.py).
"""

from __future__ import annotations

from typing import Any, Final

from cinder import policy as cinder_policy
from oslo_policy import policy

UPDATE: Final = "volume_extension:qmpsnap:update_snapshot_status"
RULE: Final = policy.DocumentedRuleDefault(
    name=UPDATE,
    check_str="role:service or rule:admin_api",
    description="Report what compute has done for a snapshot, and the formats of its files; or "
    "that compute has started, and what it knows of.",
    operations=[
        {
            "method": "POST",
            "path": "/snapshots/{snapshot_id}/action (os-update_snapshot_status)",
        },
        {"method": "POST", "path": "/os-qmpsnap"},
    ],
)


def register() -> None:
    """Make the rule known to Cinder's enforcer, which has no other way in from outside."""
    cinder_policy.init()
    enforcer = cinder_policy._ENFORCER
    if UPDATE not in enforcer.registered_rules:
        enforcer.register_default(RULE)
        # `load_rules` merges the defaults in only when it first loads a file.
        enforcer.rules.setdefault(UPDATE, RULE.check)


def allows(context: Any) -> bool:
    """Whether a request's context may send an update."""
    register()  # tests of Cinder's reset the enforcer
    target = {"project_id": context.project_id, "user_id": context.user_id}
    return bool(context.authorize(UPDATE, target, fatal=False))
