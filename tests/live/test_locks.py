"""Two operations on one disk at the same time, from two processes: one at a time, the other refused."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from qmpsnap.guests.files.bytes import BYTE
from qmpsnap.operations import merge
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import create_all
from qmpsnap.operations.step import Does, Step
from tests.rig.doors import at, with_door
from tests.rig.jobs import REQUESTS
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation

HOLD = """
import sys
from qmpsnap.guests.files.locks import Claim
claim = Claim()
claim.take(sys.argv[1:])
print("held", flush=True)
sys.stdin.read()
"""
OURS = CreateRequest(disk=SERIAL, new_file=f"{BASE}.ours", snapshot="ours")


@contextmanager
def another(path: Path) -> Iterator[int]:
    """Another operation, in a process of its own, has a file; its pid."""
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


def locked(path: Path) -> bool:
    """Whether an operation has a file, as the kernel says."""
    wanted = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, BYTE, 1, 0)
    with path.open("rb") as file:
        found = struct.unpack_from("@h", fcntl.fcntl(file, fcntl.F_OFD_GETLK, wanted))
    return bool(found[0] != fcntl.F_UNLCK)


def refuses(rig: Rig, *commands: list[str]) -> None:
    listing = sorted(rig.folder.iterdir())
    for command, *arguments in commands:
        said = rig.cli(command, *arguments)
        assert (said.code, "another operation is at work on" in said.err) == (4, True), said
    assert sorted(rig.folder.iterdir()) == listing


class TestOneAtATime:
    @remedy("DiskLocked")
    @situation(
        "Another operation of qmpsnap is at work on the same disk",
        happens="refused at once; the message says which process it is, as far as that can be seen",
        code=4,
        then="Wait until it has ended, then give the command again. A process that dies lets go.",
        kind=3,
    )
    def test_a_second_one_is_refused(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            with another(rig.folder / f"{BASE}.s2") as pid:
                said = rig.cli("create", DISK, "s9")
                assert said.code == 4, said
                assert f"another operation is at work on {rig.folder}/{BASE}.s2" in said.err
                assert f"(pid {pid})" in said.err
                refuses(rig, ["create", DISK, "s9"], ["delete", DISK, "s1"])
                # Who only looks takes no lock, and heeds none.
                assert rig.cli("create", DISK, "s9", "--plan").code == 0
                assert rig.cli("verify").code == 0
            assert rig.cli("create", DISK, "s9").code == 0

    def test_base_that_another_one_writes(self, make_rig: MakeRig) -> None:
        """Two disks on one base, for example."""
        with make_rig("raw") as rig:
            rig.grow(3)
            with another(rig.folder / BASE):
                refuses(rig, ["delete", DISK, "s1", "--allow", "shared-base"])
                assert rig.cli("create", DISK, "s9").code == 0  # which does not write it

    def test_what_is_locked_in_a_merge(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            seen: dict[str, bool] = {}

            def look(_step: Step) -> None:
                for name in (BASE, f"{BASE}.s1", f"{BASE}.s2"):
                    seen[name] = locked(rig.folder / name)

            with rig.host() as host:
                merge.delete(with_door(host, before=at(Does.START, look)), REQUESTS["commit"])
            assert seen == {BASE: True, f"{BASE}.s1": False, f"{BASE}.s2": True}
            assert not any(locked(path) for path in rig.folder.iterdir() if path.is_file())
            assert_sound(rig.disk())

    def test_an_overlay_is_locked_before_it_has_its_name(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with make_rig("raw") as rig:
            seen: list[bool] = []
            link = os.link

            def linked(source: str, target: str) -> None:
                seen.append(locked(Path(source)))
                link(source, target)

            monkeypatch.setattr("qmpsnap.guests.files.overlay.os.link", linked)
            rig.create("new")
            assert seen == [True]


@situation(
    "The share has no locks that other hosts see (NFS with nolock, sshfs), and a file is to be removed",
    happens="the merge is done, and the file is kept; a note says so",
    code=0,
    then="See that no guest of another host uses the file, then remove it, or give --force-remove.",
    kind=2,
)
def test_share_without_locks(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmpsnap.guests.files.door.hides_other_hosts", lambda _path: "nfs")
    with make_rig("raw") as rig:
        rig.grow(4)
        for name, option, is_kept in (
            ("s1", "--remove-file", True),
            ("s2", "--force-remove", False),
        ):
            said = rig.cli("delete", DISK, name, option, "-o", "json")
            assert said.code == 0, said
            assert any("--force-remove" in note for note in said.json["notes"]) == is_kept
            assert (rig.folder / f"{BASE}.{name}").exists() == is_kept
            assert bool(said.json["removed"]) == (not is_kept)
        assert_sound(rig.disk())


class TestTakenBack:
    """A create that fails before its switch."""

    def failing(self, rig: Rig, do: Callable[[], object]) -> None:
        def fail(_step: Step) -> None:
            do()
            raise KeyboardInterrupt

        with rig.host() as host, pytest.raises(KeyboardInterrupt):
            create_all(with_door(host, before=at(Does.SWITCH, fail)), (OURS,))

    def test_overlay_that_nobody_has_taken_goes(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            self.failing(rig, lambda: None)
            assert not (rig.folder / f"{BASE}.ours").exists()

    @remedy("NotOurs")
    def test_overlay_that_somebody_has_open_stays(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            overlay = rig.folder / f"{BASE}.ours"
            taken: list[IO[bytes]] = []
            self.failing(rig, lambda: taken.append(overlay.open("rb")))
            assert overlay.exists()
            taken.pop().close()
            assert rig.cli("create", DISK, "ours").code == 0  # the next try takes it
            assert rig.files() == [f"{BASE}.ours", BASE]
            assert_sound(rig.disk())

    def test_what_has_come_to_its_name_stays(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            overlay = rig.folder / f"{BASE}.ours"

            def put_another_there() -> None:
                overlay.rename(rig.folder / "away")
                overlay.write_bytes(b"precious")

            self.failing(rig, put_another_there)
            assert overlay.read_bytes() == b"precious"
