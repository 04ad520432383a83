"""An interrupted operation whose guest is started again by another name of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.requests import CreateRequest, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig.disks import qcow2_chain
from tests.rig.doors import Killed, dying_at
from tests.rig.rig import BASE, DISK, SERIAL, Rig, run_cli
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.state_folder import own_state
from tests.rig.waiting import until

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")
CASES: Final[dict[str, tuple[Does, CreateRequest | NamedDeleteRequest]]] = {
    "create, before the switch": (Does.OPEN, NEW),
    "create": (Does.SWITCH, NEW),
    "commit": (Does.COMMIT, NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")),
    "active commit": (Does.COMMIT, NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit")),
    "pull": (Does.COMMIT, NamedDeleteRequest(disk=DISK, snapshot="s1", method="pull")),
}


def interrupted(rig: Rig, what: str) -> list[str]:
    """The tool dies, then QEMU; returns the files that the guest had."""
    does, request = CASES[what]
    if isinstance(request, CreateRequest):
        with rig.host() as host, pytest.raises(Killed):
            created(Journal(), dying_at(host, does, "after"), (request,))
    else:
        with rig.host() as host, pytest.raises(Killed):
            deleted(Journal(), dying_at(host, does, "after"), request)
    rig.guest.write(DISK, 0, 65536, 77)
    rig.guest.qemu_io(DISK, "flush")
    if what == "pull":  # nobody may look while its ended job is there
        until(
            lambda: read_header(str(rig.folder / f"{BASE}.s1"), follow=False).backing_file is None
        )
    files = [f"{BASE}.s1"] if what == "pull" else rig.files()
    rig.kill()
    return files


def told(*arguments: str) -> tuple[int, list[tuple[Any, ...]]]:
    """What is said of each operation, without the folder's name."""
    said = run_cli([*arguments, "-o", "json"])
    return said.code, [
        (one["id"], one["outcome"], Path(one["active"] or "").name, one["notes"])
        for one in said.json["operations"]
    ]


@pytest.mark.parametrize("by", ["the socket", "the id"])
@pytest.mark.parametrize("what", CASES)
def test_it_is_the_same_guest(
    make_rig: MakeRig,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    by: str,
) -> None:
    own_state(tmp_path_factory, monkeypatch)
    with make_rig("raw") as rig:
        rig.grow(2 if what == "pull" else 3)
        files = interrupted(rig, what)
        (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
        link = tmp_path / "link"
        link.symlink_to(rig.folder)
        names = ["resume"] if by == "the socket" else ["resume", entry["id"]]
        answers = []
        for folder, how in ((rig.folder, ["--plan"]), (link, ["--plan"]), (link, [])):
            chain = [(folder / one, "raw" if one == BASE else "qcow2") for one in files]
            with direct_rig(tmp_path, qcow2_chain(chain, DISK, SERIAL)) as again:
                answers.append(told(*again.road, *names, *how))
        assert answers[0][1]
        assert answers[0][1] == answers[1][1] == answers[2][1], answers
        assert answers[0][0] == answers[2][0]
        assert not run_cli(["resume", "--plan", "-o", "json"]).json["operations"] or answers[0][0]
        assert all((rig.folder / one).exists() for one in files)
