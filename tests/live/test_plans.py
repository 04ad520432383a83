"""`--plan`, on both roads: nothing happens, and what is shown is what is sent then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import MakeRig


def planned(rig: Rig, command: str, *arguments: str) -> Any:
    """The plan, with nothing changed by asking for it."""
    before, content = rig.files(), rig.guest.read_sha256(DISK)
    found = sorted(path.name for path in rig.folder.iterdir())
    said = rig.cli(command, *arguments, "--plan", "-o", "json")
    assert said.code == 0, said
    assert (rig.files(), rig.guest.read_sha256(DISK)) == (before, content)
    assert sorted(path.name for path in rig.folder.iterdir()) == found
    assert said.json["schema"] == "qmpsnap.plan/1"
    return said.json["disks"][0]


class TestPlans:
    """The same scenario on both roads."""

    @pytest.mark.parametrize(("name", "kind"), [("s1", "commit"), ("s2", "active-commit")])
    def test_delete(self, make_rig: MakeRig, name: str, kind: str) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            plan = planned(rig, "delete", DISK, name)
            assert plan["kind"] == kind
            assert plan["moves"] > 0
            found = rig.cli("chain", DISK, "-o", "json").json["disks"][0]["layers"]
            assert plan["before"] == [
                {key: layer[key] for key in ("file", "path", "node", "format")} for layer in found
            ]
            done = rig.cli("delete", DISK, name, "-o", "json")
            layers = done.json["disk"]["layers"]
            assert plan["after"] == [
                {"file": layer["file"], "format": layer["format"]} for layer in layers
            ]

    def test_create(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            plan = planned(rig, "create", DISK, "new")
            first = plan["steps"][0]
            assert (first["by"], first["arguments"]["backing-format"]) == ("file", "qcow2")
            assert [one["file"] for one in plan["after"]] == [f"{BASE}.new", BASE]
            done = rig.cli("create", DISK, "new", "-o", "json")
            layers = done.json["disk"]["layers"]
            assert [one["format"] for one in plan["after"]] == [one["format"] for one in layers]

    def test_what_would_be_refused_is_refused(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            assert rig.cli("delete", DISK, "nosuch", "--plan").code == 4

    def test_for_people(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            out = rig.cli("delete", DISK, "s1", "--plan").out
            assert f"afterwards: {BASE} (raw)" in out
            assert "block-commit" in out or "virDomainBlockCommit" in out

    def test_with_novas_arguments(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            info = {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": BASE}
            command = ("volume-snapshot-delete", SERIAL, "some-id", json.dumps(info))
            assert planned(rig, *command) == planned(rig, "delete", DISK, "s1")
            info = {"type": "qcow2", "new_file": f"{BASE}.new", "snapshot_id": "new"}
            create = planned(rig, "volume-snapshot-create", SERIAL, json.dumps(info))
            assert create["after"][0] == {"file": f"{BASE}.new", "format": "qcow2"}
            info["new_file"] = BASE
            said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info), "--plan")
            assert (said.code, said.out) == (4, "")

    def test_names_the_file_that_is_removed(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            plan = planned(rig, "delete", DISK, "s1", "--remove-file")
            path = rig.folder / f"{BASE}.s1"
            last = plan["steps"][-1]
            status = path.stat()
            identity = ["file", status.st_dev, status.st_ino]
            assert last["what"] == "unlink"
            assert last["arguments"] == {"path": str(path), "identity": identity}

    def test_output_goes_with_plan(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            assert rig.cli("cancel", DISK, "-o", "json").code == 2

    def test_job_that_is_not_there(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            assert rig.cli("cancel", DISK, "--plan").code == 4
