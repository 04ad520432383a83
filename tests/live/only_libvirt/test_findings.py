"""`verify` and `audit` under libvirt; the problems of single files are tried on the direct road."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.rig import images, qemu_machine
from tests.rig.disks import qcow2_chain, raw_disk
from tests.rig.libvirt_machine import wait_until_gone
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, Said, unlocked
from tests.rig.roads import MakeRig, libvirt_rig


@pytest.fixture
def alone(connection: Any) -> None:
    """Let libvirt forget the guests of earlier tests: it does so when their QEMU is reaped."""
    for domain in connection.listAllDomains():
        wait_until_gone(connection, domain.name())


def verify(rig: Rig) -> list[str]:
    said = rig.cli("verify", "-o", "json")
    ids = [one["id"] for one in said.json["findings"]]
    assert said.code == (3 if ids else 0), said
    return ids


def audit(rig: Rig, *arguments: str) -> Said:
    """All guests: the name of the rig's own is left out."""
    host = Rig(rig.guest, rig.folder, rig.road, [], rig.connect, rig.kill)
    return host.cli("audit", *arguments)


def test_a_clean_guest_through_its_snapshots(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        assert verify(rig) == []
        rig.grow(3)
        assert verify(rig) == []
        assert rig.delete(f"{BASE}.s1", BASE).code == 0
        assert verify(rig) == []
        assert rig.cli("delete", DISK, "s2").code == 0  # pivots; the XML lags behind
        assert verify(rig) == []


def test_without_passthrough_it_is_only_partly_read(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        rig.road.append("--no-passthrough")
        assert verify(rig) == ["guest-partly-read"]


def test_a_snapshot_behind_libvirts_back(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        overlay = rig.folder / "behind"
        images.create_qcow2(overlay, rig.guest.virtual_size(DISK), BASE, "raw")
        file = {"driver": "file", "filename": str(overlay)}
        new = {"driver": "qcow2", "node-name": "behind", "file": file, "backing": None}
        rig.guest.qmp("blockdev-add", new)
        active = rig.guest.active_node(DISK)
        rig.guest.qmp("blockdev-snapshot", {"node": active, "overlay": "behind"})
        assert verify(rig) == ["chain-differs"]


@pytest.fixture
def defined(connection: Any) -> Iterator[str]:
    """A guest that is off."""
    domain = connection.defineXML(
        "<domain type='qemu'><name>sleeper</name><memory>32768</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    yield "sleeper"
    domain.undefine()


@pytest.mark.usefixtures("alone")
def test_a_host(connection: Any, tmp_path: Path, defined: str) -> None:
    """One guest of libvirt and two with sockets, in one call; a base of one is written by another."""
    for name in ("share", "other"):
        (tmp_path / name).mkdir()
    share, other = tmp_path / "share", tmp_path / "other"
    images.create_raw(share / BASE, SIZE)
    images.create_raw(other / "active", MIB)
    images.create_qcow2(other / "top", SIZE, share / BASE, "raw")
    chain = qcow2_chain([(other / "top", "qcow2"), (share / BASE, "raw")], "vda")
    with ExitStack() as stack:
        first = stack.enter_context(
            qemu_machine.run([raw_disk(other / "active", "vda")], directory=tmp_path)
        )
        first.write_bytes("vda", 0, b"conectix".ljust(512, b"\0"))
        rig = stack.enter_context(libvirt_rig(connection, share, "raw"))
        second = stack.enter_context(
            qemu_machine.run(
                [unlocked(chain)], directory=tmp_path, machine_args=["-name", "second"]
            )
        )
        sockets = ["--socket", first.qmp_path, "--socket", second.qmp_path]
        said = audit(rig, *sockets, "--jobs", "3", "-o", "json")
        assert said.code == 3, said
        found = {(one["id"], one["guest"]) for one in said.json["findings"]}
        assert found == {
            ("file-active-and-base", rig.names[0]),
            ("image-header-in-raw", first.qmp_path),
            ("backing-outside-folder", "second"),
        }
        assert said.json["not_audited"] == [
            {"guest": defined, "source": rig.road[1], "reason": "not running"}
        ]
        assert f"not audited, not running: 1 guest ({defined})" in said.err
        said = audit(rig)
        assert said.code == 0, said
        assert "1 guest, 1 disk: no findings" in said.err


@pytest.mark.usefixtures("alone")
def test_a_host_without_running_guests(connection: Any, make_rig: MakeRig, defined: str) -> None:
    with make_rig("raw") as rig:
        name = rig.names[0]
    wait_until_gone(connection, name)
    said = audit(rig, "-o", "json")
    assert said.code == 0, said
    assert said.json["audited"] == []


def test_a_connection_that_cannot_be_opened(tmp_path: Path, make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.road[:] = ["--connect", "test:///no/such/file"]
        said = audit(rig, "-o", "json")
        assert said.code == 7, said
        (found,) = said.json["findings"]
        assert (found["id"], found["guest"]) == ("guest-unreadable", "test:///no/such/file")
        images.create_raw(tmp_path / "x", MIB)
        with qemu_machine.run([raw_disk(tmp_path / "x", "vda")], directory=tmp_path) as guest:
            said = audit(rig, "--socket", guest.qmp_path, "-o", "json")
        assert said.code == 3, said
        assert [one["read"] for one in said.json["audited"]] == [False, True]
