"""What is advised of guests that libvirt has defined, run in the state in which it is printed."""

from __future__ import annotations

import json
from contextlib import ExitStack

import libvirt
import pytest

from qmpsnap.formats.layers import Disks
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.operations.step import Does, Step
from tests.rig.beside import nbd_server
from tests.rig.doors import at, patch
from tests.rig.off import Off
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK


@remedy("CannotOpen")
def test_chain_that_is_locked_until_another_program_ends(
    off: Off, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins between our last look and our own QEMU."""
    off.grow(3)
    content = off.content()
    with ExitStack() as others, monkeypatch.context() as patched:

        def begin(_step: Step) -> None:
            others.enter_context(nbd_server(off.folder / "nbd", "-f", "qcow2", str(path)))

        path = off.folder / f"{BASE}.s2"
        patch(patched, OfflineGuest, before=at(Does.HOLD, begin))
        said = off.rig.cli("delete", DISK, "s1", "-o", "json")
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (4, "CannotOpen"), said
    assert "give the same command again when that has ended" in told["remedy"]
    assert off.rig.cli("delete", DISK, "s1").code == 0
    assert off.content() == content


@remedy("CannotOpen")
def test_chain_that_cannot_be_opened_until_it_is_mended(
    off: Off, monkeypatch: pytest.MonkeyPatch
) -> None:
    off.grow(3)
    content, path = off.content(), off.folder / f"{BASE}.s2"
    good = path.read_bytes()

    def spoil(_step: Step) -> None:
        with path.open("r+b") as file:
            file.write(b"\0\0\0\0")

    with monkeypatch.context() as patched:
        patch(patched, OfflineGuest, before=at(Does.HOLD, spoil))
        said = off.rig.cli("delete", DISK, "s1", "-o", "json")
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (4, "CannotOpen"), said
    assert "Mend the cause, then give the same command again" in told["remedy"]
    with path.open("r+b") as file:
        file.write(good[:4])
    assert off.rig.cli("delete", DISK, "s1").code == 0
    assert off.content() == content


@remedy("GuestStarted")
def test_guest_that_is_started_before_it_is_read(off: Off, monkeypatch: pytest.MonkeyPatch) -> None:
    off.grow(3)
    read = OfflineGuest.read

    def started(guest: OfflineGuest) -> Disks:
        off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        return read(guest)

    with monkeypatch.context() as patched:
        patched.setattr(OfflineGuest, "read", started)
        said = off.rig.cli("delete", DISK, "s1", "-o", "json")
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (4, "GuestStarted"), said
    assert off.rig.cli("delete", DISK, "s1").code == 0  # of the guest that runs now
    assert off.domain.isActive()
