"""What QEMU has open cannot be seen: operations go by the names, and no file is removed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.rig import unprivileged
from tests.rig.relay import Relay
from tests.rig.rig import BASE, DISK, Rig, run_cli
from tests.rig.roads import MakeRig, direct_rigs
from tests.rig.situations import situation


@pytest.fixture
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    """A guest with two snapshots."""
    with make_rig("raw") as made:
        made.grow(3)
        yield made


@pytest.fixture
def behind(rig: Rig) -> Iterator[Rig]:
    """The same guest behind a proxy."""
    with (
        tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch,
        Relay(rig.road[1], f"{scratch}/relay.sock") as between,
    ):
        yield replace(rig, road=["--qmp", between.path])


@situation(
    "Which files QEMU has open cannot be seen: it is another user's process, or the QMP socket is a "
    "proxy's",
    happens="the layers are `not-seen`; operations go by the names and say so, and no file is removed",
    code=0,
    then="Run as root on QEMU's own socket, or remove the file that left the chain yourself.",
    kind=1,
)
def test_behind_a_proxy(behind: Rig) -> None:
    said = behind.cli("verify", "-o", "json")
    (found,) = said.json["findings"]
    assert (said.code, found["id"], found["severity"]) == (0, "file-not-seen", "note")
    layers = behind.cli("chain", "-o", "json").json["disks"][0]["layers"]
    assert [layer["flags"] for layer in layers] == [["not-seen"]] * 3
    made = behind.cli("create", DISK, "s3", "-o", "json")
    assert made.code == 0, made
    assert "no file is removed" in made.json["notes"][0]
    gone = behind.folder / f"{BASE}.s1"
    merged = behind.cli("delete", DISK, "s1", "--remove-file", "-o", "json")
    assert merged.code == 0, merged
    document = merged.json
    assert (document["dropped"], document["removed"]) == ([], [])
    assert document["held"] == [str(gone)]
    assert gone.exists()


def test_a_name_that_leads_to_no_file_here(behind: Rig) -> None:
    """Names do not agree then: QEMU may run where they mean other files."""
    path = behind.folder / BASE
    path.rename(behind.folder / "moved")
    assert behind.cli("verify").code == 0
    for command in ("create", "delete"):
        said = behind.cli(command, DISK, "s2")
        assert (said.code, "leads to no file on this host" in said.err) == (4, True), said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_another_user() -> None:
    # Not in pytest's folder, which is root's alone.
    with tempfile.TemporaryDirectory(prefix="qi-", dir="/var/tmp") as name:
        folder = Path(name)
        with direct_rigs(folder)("raw") as rig:
            rig.grow(3)
            socket = Path(rig.road[1])
            for path in (folder, socket.parent):
                path.chmod(0o777)
            for path in (socket, *folder.iterdir()):
                path.chmod(0o666)
            _as_another_user(rig)


def _as_another_user(rig: Rig) -> None:
    said = unprivileged.run(*rig.road, "chain", "-o", "json")
    assert said.code == 0, said
    assert [one["flags"] for one in said.json["disks"][0]["layers"]] == [["not-seen"]] * 3
    gone = rig.folder / f"{BASE}.s1"
    merged = unprivileged.run(
        *rig.road, "delete", "--no-journal", DISK, "s1", "--remove-file", "-o", "json"
    )
    assert merged.code == 0, merged
    assert (merged.json["removed"], merged.json["held"]) == ([], [str(gone)])
    assert any("is another user's: run as root" in note for note in merged.json["notes"]), merged
    assert gone.exists()
    (rig.folder / BASE).unlink()  # its process is on this host, so this is seen
    refused = unprivileged.run(*rig.road, "verify", "-o", "json")
    assert refused.code == 3, refused
    assert "file-replaced" in {one["id"] for one in refused.json["findings"]}
    assert run_cli([*rig.road, "verify"]).code == 3
