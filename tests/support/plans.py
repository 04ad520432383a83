"""`--plan`, on both roads: nothing happens, and what is shown is what is sent then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.operations import MakeRig
from tests.support.rig import BASE, DISK, Rig


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


class Plans:
    """The same scenario on both roads."""

    @pytest.mark.parametrize(("name", "kind"), [("s1", "commit"), ("s2", "active-commit")])
    def test_delete(self, make_rig: MakeRig, name: str, kind: str) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            plan = planned(rig, "delete", DISK, name)
            assert plan["kind"] == kind
            assert plan["moves"] > 0
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
            assert json.dumps(DISK) in out or "block-commit" in out
