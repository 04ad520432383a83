"""A plan in a file, on both roads: carried out as it was shown, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.journal import keep
from qmpsnap.journal.file import Journal
from qmpsnap.operations import merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.requests import NamedDeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.doors import at, patch
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, Said, run_cli
from tests.rig.roads import MakeRig, Road, direct_rig
from tests.rig.signals import guest_class

CREATE = {"type": "qcow2", "new_file": f"{BASE}.new", "snapshot_id": "new"}
COMMIT = {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": BASE}
PULL = {"type": "qcow2", "file_to_merge": None, "merge_target_file": None}
COMMANDS = {
    "create": (["create", DISK, "new"], ["new", "s2", "s1"]),
    "commit": (["delete", DISK, "s1", "--remove-file"], ["s2"]),
    "active commit": (["delete", DISK, "s2", "--bandwidth", "1G"], ["s1"]),
    "Nova's create": (["volume-snapshot-create", SERIAL, json.dumps(CREATE)], ["new", "s2", "s1"]),
    "Nova's commit": (["volume-snapshot-delete", SERIAL, "id", json.dumps(COMMIT)], ["s2"]),
    "Nova's pull": (["volume-snapshot-delete", SERIAL, "id", json.dumps(PULL)], None),
}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def planned(rig: Rig, plan: Path, command: list[str]) -> Any:
    """Write the plan of a command to the file."""
    said = rig.cli(command[0], *command[1:], "--plan", "-o", "json")
    assert said.code == 0, said
    plan.write_text(said.out)
    return said.json


def applied(plan: Path) -> Said:
    """Of a guest that only the file names."""
    return run_cli(["apply", str(plan), "-o", "json"])


def refused(rig: Rig, plan: Path, *why: str) -> None:
    """Nothing is touched, and the difference is told."""
    files, found = rig.files(), sorted(path.name for path in rig.folder.iterdir())
    said = applied(plan)
    assert (said.code, said.out) == (4, ""), said
    assert json.loads(said.err.splitlines()[-1])["error"] == "PlanDiffers", said
    for one in why:
        assert one in said.err
    assert (rig.files(), sorted(path.name for path in rig.folder.iterdir())) == (files, found)
    with rig.host() as host:
        assert host.jobs() == ()


@pytest.mark.parametrize("operation", COMMANDS)
def test_is_carried_out_and_not_again(make_rig: MakeRig, plan: Path, operation: str) -> None:
    command, names = COMMANDS[operation]
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        shown = planned(rig, plan, command)
        rig.guest.write(DISK, 0, 4096, 9)  # moves nothing but data
        content = rig.guest.read_sha256(DISK)
        said = applied(plan)
        assert said.code == 0, said
        assert said.json["schema"] == "qmpsnap.result/1"
        after = [one["file"] for one in shown["disks"][0]["after"]]
        files = [f"{BASE}.s2"] if names is None else [*(f"{BASE}.{one}" for one in names), BASE]
        assert rig.files() == files == after
        assert rig.guest.read_sha256(DISK) == content
        again = applied(plan)
        assert again.code == 4, again
        assert (rig.files(), rig.guest.read_sha256(DISK)) == (files, content)


@remedy("PlanDiffers")
def test_chain_that_has_moved(make_rig: MakeRig, plan: Path) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        planned(rig, plan, ["delete", DISK, "s1"])
        rig.create("s3")
        refused(rig, plan, "the chain of vda was", f"{BASE}.s3")
        planned(rig, plan, ["delete", DISK, "s1"])
        assert applied(plan).code == 0
        assert rig.files() == [f"{BASE}.s3", f"{BASE}.s2", BASE]


def test_chain_that_moves_between_the_look_and_the_first_act(
    make_rig: MakeRig,
    plan: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison is made with the very plan that would be carried out; nothing has begun."""
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(state))
    with make_rig("raw") as rig:
        rig.grow(3)
        planned(rig, plan, ["delete", DISK, "s2", "--method", "commit"])
        deleted = keep.deleted

        def later(journal: Journal, guest: Guest, *arguments: Any, **named: Any) -> Any:
            merge.delete(guest, NamedDeleteRequest(disk=DISK, snapshot="s1"))
            return deleted(journal, guest, *arguments, **named)

        monkeypatch.setattr(keep, "deleted", later)
        said = applied(plan)
        assert said.code == 4, said
        assert "does not hold any more" in said.err
        assert rig.files() == [f"{BASE}.s2", BASE]
        assert run_cli(["log", "-o", "json"]).json["operations"] == []


def test_steps_are_never_taken_from_the_file(
    make_rig: MakeRig, road: Road, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with other steps, or for another disk's chain, does nothing at all."""
    taken: list[Step] = []
    with make_rig("raw") as rig:
        rig.grow(3)
        shown = planned(rig, plan, ["delete", DISK, "s1"])
        patch(monkeypatch, guest_class(road), before=taken.append)
        steps = shown["disks"][0]["steps"]
        evil = {"by": "file", "what": "unlink", "arguments": {"path": str(rig.folder / BASE)}}
        for forged in ([*steps, evil], [evil], [], steps[:-1], [steps[0], *steps]):
            shown["disks"][0]["steps"] = forged
            plan.write_text(json.dumps(shown))
            refused(rig, plan, "step ")
        shown["disks"][0]["steps"] = steps
        shown["request"]["delete_by_name"]["snapshot"] = "s2"
        plan.write_text(json.dumps(shown))
        refused(rig, plan)
        assert taken == []


def test_freeze_that_may_fail(make_rig: MakeRig, plan: Path) -> None:
    """What `--quiesce` asks for is part of the request."""
    with make_rig("raw") as rig:
        shown = planned(rig, plan, ["create", DISK, "new", "--quiesce", "try"])
        assert shown["request"]["quiesce"]["policy"] == "try"
        said = applied(plan)
        assert said.code == 0, said
        assert said.json["consistency"] == "crash"


def test_while_the_job_runs(
    make_rig: MakeRig, road: Road, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation that was interrupted is for `resume`, or for its own command."""
    with make_rig("raw") as rig:
        rig.grow(3)
        planned(rig, plan, ["delete", DISK, "s1", "--bandwidth", "1"])
        with monkeypatch.context() as patched:

            def interrupt(_step: Step) -> None:
                raise KeyboardInterrupt

            patch(patched, guest_class(road), after=at(Does.START, interrupt))
            assert applied(plan).code == 6
        assert applied(plan).code == 4


@pytest.mark.qemu
def test_several_disks(tmp_path: Path, plan: Path) -> None:
    """All of them, or none."""
    folder = tmp_path / "share"
    folder.mkdir()
    disks = []
    for number, name in enumerate(("vda", "vdb")):
        images.create_raw(folder / f"volume-{number}", SIZE)
        disks.append(raw_disk(folder / f"volume-{number}", name, str(number)))
    with direct_rig(folder, disks) as rig:
        planned(rig, plan, ["create", "vda", "new", "--also", "vdb"])
        assert rig.cli("create", "vdb", "other").code == 0
        said = applied(plan)
        assert said.code == 4, said
        assert "the chain of vdb was" in said.err
        planned(rig, plan, ["create", "vda", "new", "--also", "vdb"])
        said = applied(plan)
        assert said.code == 0, said
        assert len(said.json["volumes"]) == 2


@remedy("BadPlan")
def test_by_the_global_options(make_rig: MakeRig, plan: Path) -> None:
    with make_rig("raw") as rig:
        shown = planned(rig, plan, ["create", DISK, "new"])
        shown["request"]["way"].update(qmp=None, connect=None)
        plan.write_text(json.dumps(shown))
        assert applied(plan).code == 2
        said = run_cli([*rig.road, "apply", str(plan), "-o", "json"])
        assert said.code == 0, said
        planned(rig, plan, ["delete", DISK, "new"])
        assert applied(plan).code == 0
