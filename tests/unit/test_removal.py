"""Which acts remove what has left a chain, and what of it stays, whoever uses it."""

from __future__ import annotations

import pytest

from qmpsnap.formats.layers import Disk
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.removal import is_own, removal
from qmpsnap.operations.requests import DeleteRequest
from qmpsnap.operations.step import Does
from tests.unit import samples

PULL = DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None)


def plan(disk: Disk) -> MergePlan:
    return plan_delete(samples.guest(disk), PULL)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("identity", [None, ("file", 1, 2)])
def test_by_name_and_by_what_it_led_to(force: bool, identity: tuple[str, int, int] | None) -> None:
    disk = samples.changed_layer(samples.disk(2), 1, identity=identity)
    (step,) = removal(plan(disk), force=force)
    assert (step.does, step.by, step.what) == (Does.REMOVE, "file", "unlink")
    assert step.arguments == {
        "path": "/share/volume-1",
        **({"identity": ["file", 1, 2]} if identity else {}),
        **({"force": True} if force else {}),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/templates/volume-1"},
        {"identity": ("device", 7, 0)},
        {"flags": ("not-seen",)},
    ],
    ids=["in another folder", "a device", "not seen"],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_stays(changes: dict[str, object], force: bool) -> None:
    made = plan(samples.changed_layer(samples.disk(3), 2, **changes))
    assert [step.arguments["path"] for step in removal(made, force=force)] == ["/share/volume-1.s1"]
    assert is_own(made, made.dropped[1]) == ("path" not in changes)
