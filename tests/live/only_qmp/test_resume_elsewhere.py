"""`qmpsnap resume` on another host: two state folders, and the share that they have in common."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.requests import CreateRequest, Method, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.doors import Killed, dying_at
from tests.rig.rig import BASE, DISK, SERIAL, Rig, run_cli
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.state_folder import own_state

Left = tuple[Rig, Callable[[Method | None], Path]]
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


class TestOfAHostThatIsGone:
    """Nobody can ask there whether the guest runs; its marker is on the share."""

    @pytest.fixture
    def left(
        self,
        make_rig: MakeRig,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[Left]:
        """A rig, and what interrupts a merge, or a snapshot, there and goes to another host."""
        own_state(tmp_path_factory, monkeypatch)
        with make_rig("raw") as rig:

            def interrupted(method: Method | None) -> Path:
                if method is None:
                    with rig.host() as host, pytest.raises(Killed):
                        created(Journal(), dying_at(host, Does.SWITCH, "after"), (NEW,))
                else:
                    request = NamedDeleteRequest(disk=DISK, snapshot="s1", method=method)
                    with rig.host() as host, pytest.raises(Killed):
                        deleted(Journal(), dying_at(host, Does.COMMIT, "after"), request)
                rig.guest.write(DISK, 0, 65536, 78)
                rig.guest.qemu_io(DISK, "flush")
                own_state(tmp_path_factory, monkeypatch)
                monkeypatch.setattr(platform, "node", lambda: "elsewhere")
                (marker,) = rig.folder.glob(".qmpsnap-*")
                return marker

            yield rig, interrupted

    @pytest.mark.parametrize("take", ["active", "base"])
    def test_a_person_decides(self, left: Left, take: str) -> None:
        rig, interrupted = left
        rig.grow(2)
        marker = interrupted("commit")
        socket = Path(rig.road[1])
        socket.rename(socket.with_name("gone"))
        said = run_cli(["resume", str(marker)])
        ways = re.findall(r"if (\S+) is right: qmpsnap (resume \S+ --take (\w+))", said.out)
        assert (said.code, [way[2] for way in ways]) == (6, ["active", "base"]), said
        ((path, command, _),) = [way for way in ways if way[2] == take]
        refused = run_cli(command.split())
        assert (refused.code, "its guest runs" in refused.err) == (4, True), refused
        assert marker.exists()
        rig.kill()
        said = run_cli([*command.split(), "-o", "json"])
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert (one["active"], "somebody has decided" in one["notes"][0]) == (path, True)
        assert not marker.exists()
        assert run_cli(["resume"]).out == "nothing is open\n"

    def test_what_the_files_say_is_not_decided_otherwise(self, left: Left) -> None:
        rig, interrupted = left
        rig.grow(2)
        marker = interrupted(None)
        content = rig.guest.read_sha256(DISK)
        rig.kill()
        assert run_cli(["resume", str(marker)]).code == 6
        new = rig.folder / f"{BASE}.new"
        refused = run_cli(["resume", str(marker), "--take", "base"])
        assert (refused.code, f"{new} is right" in refused.err) == (4, True), refused
        said = run_cli(["resume", str(marker), "--take", "active", "-o", "json"])
        assert said.code == 0, said
        assert images.sha256_of(said.json["operations"][0]["active"], "qcow2") == content
        assert not marker.exists()

    def test_a_pull_that_may_have_been_in_its_memory_alone(self, left: Left) -> None:
        rig, interrupted = left
        rig.grow(2)
        marker = interrupted("pull")
        content = rig.guest.read_sha256(DISK)
        rig.kill()
        assert run_cli(["resume", str(marker)]).code == 6
        top = rig.folder / f"{BASE}.s1"
        assert read_header(str(top), follow=False).backing_file is None
        said = run_cli(["resume", str(marker), "--take", "active"])
        assert said.code == 0, said
        assert read_header(str(top), follow=False).backing_file == BASE
        assert images.sha256_of(top, "qcow2") == content
        assert not marker.exists()
