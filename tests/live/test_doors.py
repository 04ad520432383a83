"""
What `--plan` shows is what is sent: every act, in order, with every argument, on all roads.

And a plan itself sends nothing, whatever is around.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig.doors import Killed, dying_at
from tests.rig.headers import without_format
from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import MakeRig
from tests.rig.wire import Act, overheard, planned


def wrong_header(rig: Rig) -> None:
    without_format(rig.folder / f"{BASE}.s2")


def as_it_is(_rig: Rig) -> None:
    """Nothing is prepared."""


def by_novas_names(target: str) -> tuple[str, ...]:
    info = f'{{"type": "qcow2", "file_to_merge": "{target}", "merge_target_file": null}}'
    return ("volume-snapshot-delete", SERIAL, "id", info)


OPERATIONS: dict[str, tuple[tuple[str, ...], Callable[[Rig], None]]] = {
    "create": (("create", DISK, "new"), as_it_is),
    "create over a wrong header": (("create", DISK, "new"), wrong_header),
    "commit": (("delete", DISK, "s1"), as_it_is),
    "commit, file removed": (("delete", DISK, "s1", "--remove-file"), as_it_is),
    "active commit": (("delete", DISK, "s2", "--method", "commit"), as_it_is),
    "active commit with a limit": (("delete", DISK, "s2", "--bandwidth", "1G"), as_it_is),
    "pull to a base": (by_novas_names(BASE), as_it_is),
}


def assert_shown_is_sent(rig: Rig, arguments: tuple[str, ...]) -> None:
    """Ask for a plan, carry the same out, and compare all that was heard."""
    plan = shown(rig, arguments)
    with overheard() as sent:
        said = rig.cli(*arguments)
    assert said.code == 0, said
    assert plan
    assert sent == plan


def shown(rig: Rig, arguments: tuple[str, ...]) -> list[Act]:
    """The plan's acts; asking for it must not send anything."""
    with overheard() as sent:
        said = rig.cli(*arguments, "--plan", "-o", "json")
    assert said.code == 0, said
    assert sent == []
    return planned([step for disk in said.json["disks"] for step in disk["steps"]])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_shown_is_what_is_sent(make_rig: MakeRig, operation: str) -> None:
    arguments, prepare = OPERATIONS[operation]
    with make_rig("raw") as rig:
        rig.grow(3)
        prepare(rig)
        assert_shown_is_sent(rig, arguments)


def test_of_a_job_that_is_there_what_is_left_is_shown(make_rig: MakeRig) -> None:
    """A call that was killed has left it; the same command takes it up, and `--plan` says so."""
    with make_rig("raw") as rig:
        rig.grow(3)
        command = ("delete", DISK, "s2", "--method", "commit")
        whole = shown(rig, command)
        request = NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit")
        with rig.host() as host, pytest.raises(Killed):
            delete(dying_at(host, Does.START, "after"), request)
        plan = shown(rig, command)
        assert plan == whole[1:]
        with overheard() as sent:
            said = rig.cli(*command)
        assert said.code == 0, said
        assert sent == plan


@pytest.mark.parametrize("road", ["qmp"])
@pytest.mark.parametrize("arguments", [("delete", DISK, "s1"), ("create", DISK, "new")])
def test_a_plan_leaves_a_concluded_job_alone(make_rig: MakeRig, arguments: tuple[str, ...]) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        concluded = left_concluded(rig)
        shown(rig, arguments)
        assert rig.guest.qmp("query-jobs") == concluded


def left_concluded(rig: Rig) -> Any:
    """A commit of a call that died before it could dismiss it, cancelled by somebody."""
    layers = rig.disk().layers
    job = {
        "job-id": "qmpsnap-commit-0123456789ab",
        "device": layers[0].node,
        "top-node": layers[1].node,
        "base-node": layers[2].node,
        "auto-dismiss": False,
        "speed": 1,
    }
    rig.guest.qmp("block-commit", job)
    rig.guest.qmp("job-cancel", {"id": job["job-id"]})
    while True:
        found = rig.guest.qmp("query-jobs")
        assert isinstance(found, list)
        if found[0]["status"] == "concluded":
            return found
