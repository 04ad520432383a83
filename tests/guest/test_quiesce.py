"""
Snapshots of a Linux that runs, frozen by its own qemu-guest-agent; each test on both roads.

Each class is named after what went wrong elsewhere: a freeze without a limit (oVirt/vdsm#160), no
thaw after an error (OpenNebula), several disks that are not one unit (qmpbackup#5).
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from qmpsnap.guests.agent.agent import AgentSilent, AgentSocket, DomainAgent
from qmpsnap.guests.agent.thawer import Thawer
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.quiesce import (
    CannotFreeze,
    NotConsistent,
    NotThawed,
    Policy,
    Quiesce,
)
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import create, create_all
from qmpsnap.operations.step import Does, Step
from tests.guest.conftest import SOON_S, Linux
from tests.rig import linux
from tests.rig.doors import at, patch, with_door
from tests.rig.remedies import remedy
from tests.rig.waiting import HANG_S

REQUIRE = Quiesce(policy=Policy.REQUIRE, limit_s=HANG_S)
TRY = Quiesce(policy=Policy.TRY, limit_s=HANG_S)
_NUMBERS = itertools.count()


def request(disk: str = "vda") -> CreateRequest:
    """A snapshot with a new name."""
    return CreateRequest(disk=disk, new_file=None, snapshot=f"q{next(_NUMBERS)}")


def data_of(volume: dict[str, Any], folder: Path) -> Path:
    """What a snapshot holds, as a raw image."""
    layer = volume["disk"]["layers"][1]
    copy = folder / f"{layer['file']}.copy"
    qemu_img.run(
        "convert", layer["path"], "-U", "-f", layer["format"], "-O", "raw", layer["path"], str(copy)
    )
    return copy


def hooks(guest: Linux) -> list[str]:
    """Freezes and thaws that the guest has seen."""
    return guest.sh("cat /run/hooks").split()


def with_switch(guest: Guest, act: Callable[[Step], object]) -> Guest:
    """Something else happens before the switch."""
    return with_door(guest, before=at(Does.SWITCH, act))


def act(error: BaseException) -> Callable[[Step], object]:
    def fail(_step: Step) -> None:
        raise error

    return fail


def _note_readings(monkeypatch: pytest.MonkeyPatch, kind: type, notes: list[str]) -> None:
    read: Callable[..., object] = kind.read  # type: ignore[attr-defined]

    def noting(self: object, *arguments: Any) -> object:
        notes.append("read")
        return read(self, *arguments)

    monkeypatch.setattr(kind, "read", noting)


class TestConsistency:
    def test_two_disks_at_one_moment_and_frozen_for_nothing_else(
        self, guest: Linux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done_in_order: list[str] = []
        for kind in (QmpGuest, LibvirtGuest):
            patch(monkeypatch, kind, before=lambda step: done_in_order.append(step.does))
            _note_readings(monkeypatch, kind, done_in_order)
        arguments = ["vda", f"q{next(_NUMBERS)}", "--also", "vdb", "--quiesce", "require"]
        arguments += ["--freeze-timeout", str(HANG_S), "-o", "json"]
        said = guest.cli("create", *arguments)
        assert said.code == 0, said
        done = said.json
        print(f"frozen for {done['frozen_s'] * 1000:.1f} ms")
        assert (done["consistency"], done["notes"]) == ("filesystem", [])
        frozen = done_in_order.index(Does.FREEZE)
        assert done_in_order[frozen : frozen + 3] == [Does.FREEZE, Does.SWITCH, Does.THAW]
        assert [one["disk"]["disk"] for one in done["volumes"]] == ["vda", "vdb"]
        for volume in done["volumes"]:
            copy = data_of(volume, tmp_path)
            assert not linux.needs_recovery(copy)
            assert linux.is_clean(copy)
        assert guest.status() == "thawed"
        assert hooks(guest) == ["freeze", "thaw"]
        guest.sh("for folder in /mnt/*; do echo alive > $folder/alive; sync; done")

    def test_without_a_freeze_it_is_what_a_power_cut_leaves(
        self, guest: Linux, tmp_path: Path
    ) -> None:
        said = guest.cli("create", "vda", f"q{next(_NUMBERS)}", "-o", "json")
        assert said.json["consistency"] == "crash"
        (volume,) = said.json["volumes"]
        assert linux.needs_recovery(data_of(volume, tmp_path))
        assert hooks(guest) == []


class TestThawAfterAnError:
    """OpenNebula froze, took the snapshot and thawed, with nothing in between for an error."""

    @pytest.mark.parametrize(
        "error", [CommandFailed("transaction", "GenericError", "no"), KeyboardInterrupt()]
    )
    def test_switch_that_fails(self, guest: Linux, error: BaseException) -> None:
        files, nodes = guest.files(), guest.nodes()
        with guest.connect() as host, pytest.raises(type(error)):
            create_all(with_switch(host, act(error)), [request(), request("vdb")], REQUIRE)
        assert guest.status() == "thawed"
        assert hooks(guest) == ["freeze", "thaw"]
        assert (guest.files(), guest.nodes()) == (files, nodes)

    def test_second_of_two_disks_that_qemu_refuses(self, guest: Linux) -> None:
        """qmpbackup#5: all or none; a real transaction, of which one action cannot be done."""
        files, nodes = guest.files(), guest.nodes()
        with guest.connect() as host:
            opened: list[Step] = []

            def spoil(step: Step) -> None:
                if step.does is Does.MAKE:
                    opened.append(step)
                if step.does is Does.SWITCH and guest.names:
                    os.unlink(str(opened[1].arguments["path"]))  # libvirt opens it only now
                elif step.does is Does.SWITCH:
                    (action,) = cast(Any, step.arguments["actions"])[1:]
                    close = {"node-name": action["data"]["overlay"]}
                    host.take(Step(does=Does.CLOSE, by="qmp", what="blockdev-del", arguments=close))

            with pytest.raises(CommandFailed):
                create_all(with_door(host, before=spoil), [request(), request("vdb")], REQUIRE)
        assert guest.status() == "thawed"
        assert hooks(guest) == ["freeze", "thaw"]
        assert (guest.files(), guest.nodes()) == (files, nodes)

    def test_ctrl_c_in_the_moment_of_the_freeze(
        self, guest: Linux, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = guest.files()
        with guest.connect() as host:
            kind: Any = DomainAgent if guest.names else AgentSocket
            freeze = kind.freeze

            def interrupted(agent: Any, timeout: float) -> int:
                freeze(agent, timeout)
                raise KeyboardInterrupt

            monkeypatch.setattr(kind, "freeze", interrupted)
            with pytest.raises(KeyboardInterrupt):
                create(host, request(), TRY)
        assert guest.status() == "thawed"
        assert hooks(guest) == ["freeze", "thaw"]
        assert guest.files() == files


class TestFreezeTimeOut:
    """oVirt/vdsm#160: the time-out of the freeze did not time out; blocked for 7.7 hours."""

    @remedy("NotThawed")
    @pytest.mark.parametrize("policy", [Policy.TRY, Policy.REQUIRE])
    def test_freeze_that_is_late_is_thawed_all_the_same(self, guest: Linux, policy: Policy) -> None:
        files = guest.files()
        guest.sh("echo 9 > /run/delay")
        quiesce = Quiesce(policy=policy, limit_s=3)
        with guest.connect() as host:
            if policy is Policy.TRY:
                result = create(host, request(), quiesce)
                assert result.consistency == "crash"
                assert "crash-consistent" in " ".join(result.notes)
                assert "has not confirmed" in " ".join(result.notes)
            else:
                with pytest.raises(NotThawed):
                    create(host, request(), quiesce)
                assert guest.files() == files
        # The helper goes on, until the freeze has come and is gone.
        guest.wait_until(lambda: hooks(guest)[-1:] == ["thaw"])
        assert hooks(guest)[0] == "freeze"
        assert guest.status() == "thawed"


class TestThawByHand:
    """The tool's own thaw was not answered, and its helper is gone as well."""

    @remedy("NotThawed")
    def test_as_the_message_says(self, guest: Linux, monkeypatch: pytest.MonkeyPatch) -> None:
        def silent(*_: object) -> int:
            raise AgentSilent("no reply")

        def end(helper: Thawer) -> None:
            helper._process.kill()
            helper._process.communicate()

        with guest.connect() as host, monkeypatch.context() as patched:
            patched.setattr(DomainAgent if guest.names else AgentSocket, "thaw", silent)
            patched.setattr(Thawer, "leave", end)
            with pytest.raises(NotThawed) as caught:
                create(host, request(), REQUIRE)
        assert guest.status() == "frozen"
        if guest.names:
            assert "`virsh domfsthaw GUEST`" in caught.value.way_out
            with guest.connect() as host:
                assert isinstance(host, LibvirtGuest)
                host._domain.fsThaw()
        else:
            assert "`guest-fsfreeze-thaw` at the agent's socket" in caught.value.way_out
            guest.ask("guest-fsfreeze-thaw", {})
        assert guest.status() == "thawed"
        guest.sh("for folder in /mnt/*; do echo alive > $folder/alive; sync; done")
        assert guest.cli("chain").code == 0


class TestPaused:
    """harvester#3976: no agent answers in a guest that is paused; a freeze must not wait in it."""

    @pytest.mark.parametrize("policy", [Policy.TRY, Policy.REQUIRE])
    def test_nothing_waits_for_the_agent(self, guest: Linux, policy: Policy) -> None:
        files = guest.files()
        quiesce = Quiesce(policy=policy, limit_s=1)
        guest.pause()
        try:
            with guest.connect() as host:
                if policy is Policy.TRY:
                    assert create(host, request(), quiesce).consistency == "crash"
                else:
                    with pytest.raises(CannotFreeze) as caught:
                        create(host, request(), quiesce)
                    assert caught.value.exit_code == 4
                    assert guest.files() == files
        finally:
            guest.go_on()
        guest.wait_until(lambda: guest.status(SOON_S) == "thawed")
        assert hooks(guest) == []


THAW_BY_HAND = """
    until grep -q freeze /run/hooks; do sleep 0.1; done
    until fsfreeze --unfreeze /mnt/vda; do sleep 0.1; done
    until grep -q thaw /run/hooks; do
        dd if=/dev/zero of=/mnt/vda/written bs=4096 count=1 conv=fsync
        sleep 0.1
    done
"""


class TestSomebodyElse:
    def test_freeze_of_somebody_else_is_left_alone(self, guest: Linux) -> None:
        files = guest.files()
        guest.ask("guest-fsfreeze-freeze", {})
        try:
            with guest.connect() as host, pytest.raises(CannotFreeze):
                create(host, request(), REQUIRE)
            assert guest.status() == "frozen"
        finally:
            guest.ask("guest-fsfreeze-thaw", {})
        assert guest.files() == files

    @remedy("NotConsistent")
    def test_thaw_by_somebody_else_is_noticed(self, guest: Linux) -> None:
        """Windows thaws by itself after ten seconds; here somebody does it by hand."""
        guest.sh(f"({THAW_BY_HAND}) >/dev/null 2>&1 &")
        with guest.connect() as host:
            waits = with_switch(host, lambda _step: _wait_written(guest))
            taken = request()
            with pytest.raises(NotConsistent, match="1 were still frozen"):
                create(waits, taken, Quiesce(policy=Policy.REQUIRE, limit_s=HANG_S))
        assert guest.status() == "thawed"
        assert guest.cli("delete", "vda", str(taken.snapshot), "--remove-file").code == 0
        limit = ("--quiesce", "require", "--freeze-timeout", str(HANG_S))
        again = guest.cli("create", "vda", f"q{next(_NUMBERS)}", *limit, "-o", "json")
        assert again.code == 0, again
        assert again.json["consistency"] == "filesystem"


KILLED = """
    import sys, time
    from qmpsnap.guests.qmp.guest import QmpGuest
    from qmpsnap.monitor.socket import SocketMonitor
    from qmpsnap.operations.snapshot import create
    from qmpsnap.operations.quiesce import Policy, Quiesce
    from qmpsnap.operations.requests import CreateRequest
    from qmpsnap.operations.step import Does

    class Hangs(QmpGuest):
        def take(self, step):
            if step.does is Does.SWITCH:
                print("frozen", flush=True)
                time.sleep(1000)
            return super().take(step)

    qmp, agent, limit, name = sys.argv[1:]
    host = Hangs(SocketMonitor.connect(qmp), agent=agent)
    request = CreateRequest(disk="vda", new_file=None, snapshot=name)
    create(host, request, Quiesce(policy=Policy.REQUIRE, limit_s=float(limit)))
"""


class TestToolDies:
    """Nothing in the guest ends a freeze: the helper does, when the tool cannot."""

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
    def test_killed_or_stopped_while_the_guest_is_frozen(
        self, direct_linux: Linux, end: signal.Signals
    ) -> None:
        guest = direct_linux
        guest.sh("rm -f /run/delay; : > /run/hooks")
        name = f"killed{end:d}"
        limit = str(HANG_S if end is signal.SIGKILL else 30)
        tool = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(KILLED),
                guest.road[1],
                guest.road[3],
                limit,
                name,
            ],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert tool.stdout is not None
            with tool.stdout as printed:
                assert printed.readline() == b"frozen\n"
                os.kill(tool.pid, end)
                if end is signal.SIGKILL:
                    tool.wait()
                    guest.wait_until(lambda: guest.status(SOON_S) == "thawed")
                else:
                    _wait_written(guest)
        finally:
            tool.kill()
            tool.wait()
        guest.wait_until(lambda: guest.status(SOON_S) == "thawed")
        assert hooks(guest) == ["freeze", "thaw"]
        # What the dead call left is taken by the same command.
        assert guest.cli("create", "vda", name).code == 0


def _wait_written(guest: Linux) -> None:
    """Until the guest writes to vda; the agent cannot be asked now."""

    def written() -> int:
        return max(one.stat().st_mtime_ns for one in guest.folder.glob("volume-1*"))

    before = written()
    while written() == before:
        time.sleep(0.05)
