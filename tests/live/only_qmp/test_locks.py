"""Two calls on two disks of one guest, each by a socket of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import qmpsnap
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created
from qmpsnap.journal.resume import resume
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.doors import Killed, at, with_door
from tests.rig.kills import Trace, at_points, open_entries, traced
from tests.rig.rig import MIB, Rig, Said, run_cli
from tests.rig.roads import direct_rig


@pytest.fixture
def second() -> Iterator[str]:
    """Path of another socket."""
    with tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp") as scratch:
        yield f"{scratch}/second"


@pytest.fixture
def rig(tmp_path: Path, second: str) -> Iterator[Rig]:
    for name in ("a", "b"):
        images.create_raw(tmp_path / name, MIB)
    disks = [raw_disk(tmp_path / name, f"vd{name}", name) for name in ("a", "b")]
    with direct_rig(tmp_path, disks, ["-qmp", f"unix:{second},server=on,wait=off"]) as made:
        yield made


def test_what_a_call_has_open_is_no_leftover_of_a_dead_one(rig: Rig, second: str) -> None:
    """An overlay that waits for its switch looks the same, but for the lock."""
    said: list[Said] = []

    def other_disk(_step: Step) -> None:
        said.append(run_cli(["--qmp", second, "create", "vdb", "s1"]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, other_disk))
        create(meddling, CreateRequest(disk="vda", new_file=None, snapshot="s1"))
    assert said[0].code == 0, said
    with rig.host() as host:
        chains = [[layer.file for layer in disk.layers] for disk in host.read().disks]
    assert chains == [["a.s1", "a"], ["b.s1", "b"]]


def test_the_same_disk_is_refused(rig: Rig, second: str) -> None:
    said: list[Said] = []

    def same_disk(_step: Step) -> None:
        said.append(run_cli(["--qmp", second, "create", "vda", "s1"]))
        said.append(run_cli(["--qmp", second, "create", "vdb", "s1", "--also", "vda"]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, same_disk))
        create(meddling, CreateRequest(disk="vda", new_file=None, snapshot="s1"))
    assert [one.code for one in said] == [4, 4], said
    assert all("another operation is at work on" in one.err for one in said)


def test_the_same_request_is_told_by_the_call_that_is_at_work_on_it(rig: Rig, second: str) -> None:
    """The other one's answer may come later: an error would be told of what has succeeded."""
    said: list[Said] = []
    info = {"type": "qcow2", "new_file": "a.s1", "snapshot_id": "s1"}
    words = ["--qmp", second, "volume-snapshot-create", "vda"]

    def again(_step: Step) -> None:
        said.append(run_cli([*words, json.dumps(info)]))
        said.append(run_cli([*words, json.dumps({**info, "new_file": "a.s2"})]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, again))
        done = qmpsnap.volume_snapshot_create(meddling, "vda", info)
    assert done.error is None, done
    assert [one.code for one in said] == [4, 4], said
    assert [one.status["status"] for one in said] == ["creating", "error"]


@pytest.mark.parametrize("journal", [True, False])
def test_another_host_is_refused_and_told_who(
    rig: Rig, second: str, tmp_path_factory: pytest.TempPathFactory, journal: bool
) -> None:
    """Two hosts have a state folder each; what they have in common is the share, and its locks."""
    state = tmp_path_factory.mktemp("elsewhere")
    state.chmod(0o700)
    environment = {**os.environ, "QMPSNAP_STATE": str(state)}
    words = [sys.executable, "-m", "qmpsnap", "--qmp", second, "create", "vda", "other"]
    words += [] if journal else ["--no-journal"]
    said: list[subprocess.CompletedProcess[str]] = []

    def elsewhere(_step: Step) -> None:
        said.append(
            subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        )

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, elsewhere))
        qmpsnap.create(meddling, "vda", "s1")
        assert [layer.file for layer in host.read().disks[0].layers] == ["a.s1", "a"]
    (refused,) = said
    assert refused.returncode == 4, refused
    assert f"(pid {os.getpid()})" in refused.stderr, refused
    assert not (rig.folder / "a.other").exists()


def test_several_disks_killed_and_resumed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All of them have their overlay, or none."""
    names, folder = ("a", "b", "c"), tmp_path / "share"
    state = tmp_path_factory.mktemp("journal")
    state.chmod(0o700)
    journal = Journal(state)
    requests = tuple(CreateRequest(disk=f"vd{one}", new_file=None, snapshot="s1") for one in names)

    def operate(trace: Trace) -> None:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name in names:
            images.create_raw(folder / name, MIB)
        disks = [raw_disk(folder / name, f"vd{name}", name) for name in names]
        with direct_rig(folder, disks) as rig:
            for number, name in enumerate(names):
                rig.guest.write(f"vd{name}", 0, 65536, number + 1)
            content = [rig.guest.read_sha256(f"vd{name}") for name in names]
            with rig.host() as host, traced(host, trace) as mortal, suppress(Killed):
                created(journal, mortal, requests)
            for entry in open_entries(journal):
                settled = resume(journal, entry)
                assert settled.outcome in ("finished", "rolled-back"), settled
            assert not open_entries(journal)
            with rig.host() as host:
                assert {len(disk.layers) for disk in host.read().disks} in ({1}, {2})
            assert [rig.guest.read_sha256(f"vd{name}") for name in names] == content
            assert not list(folder.glob(".*"))

    found = at_points("create on three disks, resumed", operate)
    print(found)
    assert found.count
