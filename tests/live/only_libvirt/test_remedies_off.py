"""What is advised of guests that libvirt has defined, run in the state in which it is printed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import pytest
from lxml import etree

from qmpsnap.formats.layers import Disks
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.beside import nbd_server
from tests.rig.doors import at, patch
from tests.rig.libvirt_machine import embedded_process, machine_of
from tests.rig.off import Off
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE
from tests.rig.waiting import until


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


@remedy("XmlBehind")
def test_definition_that_does_not_follow(off: Off, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody takes a snapshot behind libvirt's back, right after ours."""
    off.rig.create("s1")
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    theirs = off.folder / "theirs"

    def take_theirs(_step: Step) -> None:
        images.create_qcow2(theirs, SIZE, f"{BASE}.s2", "qcow2")
        machine = machine_of(off.domain, embedded_process(off.domain), off.folder, off.folder)
        file = {"driver": "file", "filename": str(theirs)}
        node = {"driver": "qcow2", "node-name": "theirs", "backing": None, "file": file}
        machine.qmp("blockdev-add", node)
        active = machine.active_node(DISK)
        machine.qmp("blockdev-snapshot", {"node": active, "overlay": "theirs"})

    with monkeypatch.context() as patched:
        patched.setattr("qmpsnap.operations.fresh.XML_LAG_S", 0.1)
        patch(patched, LibvirtGuest, after=at(Does.SWITCH, take_theirs))
        said = off.rig.cli("create", DISK, "s2", "-o", "json")
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (6, "XmlBehind"), said
    assert "`virsh edit`" in told["remedy"]
    with TemporaryDirectory(prefix="qs-", dir="/tmp") as scratch:
        process = embedded_process(off.domain)
        machine = machine_of(off.domain, process, Path(scratch), off.folder)
        machine.write(DISK, 0, SIZE, 7)
        content = machine.read_sha256(DISK)
        machine.quit()
    until(lambda: not off.domain.isActive())
    definition = etree.fromstring(off.definition())
    (disk,) = definition.iterfind("./devices/disk[@device='disk']")
    for name, (key, value) in {
        "source": ("file", str(theirs)),
        "driver": ("type", "qcow2"),
    }.items():
        for one in disk.findall(name):
            one.set(key, value)
    for below in disk.findall("backingStore"):
        disk.remove(below)
    off.domain.connect().defineXML(etree.tostring(definition).decode())
    assert off.rig.files() == ["theirs", f"{BASE}.s2", f"{BASE}.s1", BASE]
    assert off.content() == content
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    assert off.rig.cli("create", DISK, "s3").code == 0
