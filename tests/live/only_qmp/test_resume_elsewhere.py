"""`qmpsnap resume` on another host: two state folders, and the share that they have in common."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.doors import Killed, dying_at
from tests.rig.rig import BASE, DISK, SERIAL, run_cli
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.state_folder import own_state

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")


def elsewhere_on(factory: pytest.TempPathFactory) -> Path:
    """The state folder of another host."""
    folder = factory.mktemp("second")
    folder.chmod(0o700)
    return folder


def test_a_token_is_that_of_its_last_operation(
    make_rig: MakeRig, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the token was taken back, and the second has one more id."""
    own_state(tmp_path_factory, monkeypatch)
    with make_rig("raw") as rig:
        for does, file in ((Does.MAKE, BASE), (Does.SWITCH, f"{BASE}.new")):
            with rig.host() as host, pytest.raises(Killed):
                created(Journal(), dying_at(host, does, "after"), (NEW,), token="t")
            said = run_cli(["resume", "t", "-o", "json"])
            assert said.code == 0, said
            assert said.json["operations"][0]["active"] == str(rig.folder / file)


@pytest.mark.parametrize("before", ["has ended", "is open", "was on another share"])
@pytest.mark.parametrize("by", ["path", "socket"])
def test_one_token_on_two_hosts(
    make_rig: MakeRig,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    by: str,
) -> None:
    """A caller repeats it where the guest runs by now: the first host has another one of this id."""
    own_state(tmp_path_factory, monkeypatch)
    first, second = Journal(), Journal(elsewhere_on(tmp_path_factory))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images.create_raw(elsewhere / BASE, 65536)
    with make_rig("raw") as rig:
        with direct_rig(elsewhere, raw_disk(elsewhere / BASE, DISK, SERIAL)) as other:
            there = other if before == "was on another share" else rig
            with there.host() as host, pytest.raises(Killed):
                created(first, dying_at(host, Does.MAKE), (NEW,), token="t")
            if before != "is open":
                assert run_cli(["resume", "t"]).code == 0
        with rig.host() as host, pytest.raises(Killed):
            created(second, dying_at(host, Does.SWITCH, "after"), (NEW,), token="t")
        rig.guest.write(DISK, 0, 65536, 77)
        rig.guest.qemu_io(DISK, "flush")
        content, active = rig.guest.read_sha256(DISK), str(rig.folder / f"{BASE}.new")
        if by == "path":
            rig.kill()
        (marker,) = rig.folder.glob(".qmpsnap-*")
        if before != "was on another share":
            said = run_cli(["resume", "t"])
            assert (said.code, active in said.out) == (6, False), said
            (command,) = re.findall(r"`qmpsnap (resume [^`]*)`", " ".join(said.out.split()))
            assert command == f"resume {marker}"
            assert marker.exists()
        road = [] if by == "path" else rig.road
        planned = run_cli([*road, "resume", str(marker), "--plan", "-o", "json"])
        assert planned.json["operations"][0]["active"] == active, planned
        said = run_cli([*road, "resume", *([str(marker)] if by == "path" else []), "-o", "json"])
        outcomes = {one["outcome"]: one["active"] for one in said.json["operations"]}
        assert outcomes["finished"] == active, said
        assert not marker.exists()
        if by == "socket":
            assert run_cli(["resume"]).code == 0
            rig.kill()
        elif before == "is open":
            assert run_cli(["resume", "t", "--take", "active"]).code == 0
        said = run_cli(["resume", str(marker), "-o", "json"])
        assert said.json["operations"][0]["active"] == active, said
        assert images.sha256_of(active, "qcow2") == content
