"""Disks that are volumes of a storage pool, on a libvirtd of its own: the embedded driver has none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.monitor.virt import open_connection
from qmpsnap.operations.step import Does, Step
from tests.rig import daemon as libvirtd
from tests.rig import images
from tests.rig.daemon import Daemon
from tests.rig.doors import at, patch
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Said, run_cli
from tests.rig.situations import situation
from tests.rig.tiers import missing
from tests.rig.waiting import until

DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='{format}'/><source pool='{pool}' volume='{volume}'/>
      <target dev='vda' bus='virtio'/><serial>{serial}</serial>
    </disk>
  </devices>
</domain>
"""
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    if libvirtd.which("libvirtd") is None:
        missing("libvirt", "install Debian's libvirt-daemon")
    with libvirtd.running() as daemon:
        yield daemon


@dataclass
class Pool:
    """A folder that libvirt keeps volumes in."""

    daemon: Daemon
    kept_in: Any
    """The `virStoragePool`."""
    folder: Path

    @contextmanager
    def guest(self, volume: str, format_: str) -> Iterator[Pooled]:
        """Define a guest on a volume; it is off."""
        name = f"pooled{next(_NUMBERS)}"
        text = DOMAIN.format(
            name=name, format=format_, pool=self.kept_in.name(), volume=volume, serial=SERIAL
        )
        domain = self.kept_in.connect().defineXML(text)
        try:
            yield Pooled(self, domain)
        finally:
            with suppress(libvirt.libvirtError):  # it is off
                domain.destroy()
            domain.undefine()

    def refresh(self) -> None:
        """Let libvirt see what is new; the daemon's user may read it."""
        self.daemon.give(self.folder)
        self.kept_in.refresh()

    def bytes(self) -> dict[str, bytes]:
        """What is in its files."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@dataclass
class Pooled:
    """A guest whose disk is a volume."""

    pool: Pool
    domain: Any

    def cli(self, command: str, *arguments: str) -> Said:
        return run_cli(["-c", self.pool.daemon.uri, command, self.domain.name(), *arguments])

    def done(self, command: str, *arguments: str) -> None:
        """The same, of what has to succeed; libvirtd's QEMU may open what root has made."""
        said = self.cli(command, *arguments)
        assert said.code == 0, said
        self.pool.daemon.give(self.pool.folder)

    def start(self) -> None:
        self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)

    def stop(self) -> None:
        self.domain.destroy()
        until(lambda: not self.domain.isActive())

    def layers(self) -> list[tuple[str, str]]:
        """Path and verdict of each."""
        (disk,) = self.cli("chain", "-o", "json").json["disks"]
        return [(layer["path"], layer["verdict"]) for layer in disk["layers"]]

    def files(self) -> list[str]:
        return [Path(path or "").name for path, _ in self.layers()]

    def write(self, number: int) -> None:
        """Something that only the active layer has; while it is off."""
        (disk,) = self.cli("chain", "-o", "json").json["disks"]
        active = disk["layers"][0]
        images.write(Path(active["path"]), active["format"], number * MIB // 2, 65536, number)

    def content(self) -> str:
        (disk,) = self.cli("chain", "-o", "json").json["disks"]
        active = disk["layers"][0]
        return images.sha256_of(active["path"], active["format"])

    def definition(self) -> str:
        return str(self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def sound(self) -> None:
        """Nothing is found, off and running, and the chain is the same to both."""
        off = [path for path, _ in self.layers()]
        assert None not in off
        said = self.cli("verify", "-o", "json")
        assert (said.code, said.json["findings"]) == (0, []), said
        self.start()
        assert self.layers() == [(path, "agreed") for path in off]
        said = self.cli("verify", "-o", "json")
        assert (said.code, said.json["findings"]) == (0, []), said
        self.stop()


@pytest.fixture
def pool(daemon: Daemon) -> Iterator[Pool]:
    name = f"pool{next(_NUMBERS)}"
    folder = daemon.folder / name
    folder.mkdir()
    daemon.give(folder)
    with closing(open_connection(daemon.uri)) as connection:
        text = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        kept_in = connection.storagePoolDefineXML(text)
        kept_in.create()
        yield Pool(daemon, kept_in, folder)
        with suppress(libvirt.libvirtError):  # the test has done it
            kept_in.destroy()
        kept_in.undefine()


@pytest.fixture(params=["raw", "qcow2"])
def pooled(pool: Pool, request: pytest.FixtureRequest) -> Iterator[Pooled]:
    """A guest that is off; its volume is in the format given."""
    format_ = str(request.param)
    make = images.create_raw if format_ == "raw" else images.create_qcow2
    make(pool.folder / BASE, SIZE)
    pool.refresh()
    with pool.guest(BASE, format_) as guest:
        guest.write(1)
        yield guest


@pytest.mark.parametrize("way", ["off", "running"])
def test_snapshots_of_a_volume(pooled: Pooled, way: str) -> None:
    """libvirt leaves the volume's name below the file that comes over it; both mean one file."""
    pooled.sound()
    content = pooled.content()
    for number, name in enumerate(("s1", "s2", "s3"), start=2):
        if way == "running":
            pooled.start()
        pooled.done("create", DISK, name)
        if way == "running":
            pooled.stop()
        assert pooled.content() == content
        pooled.write(number)
        content = pooled.content()
    assert pooled.files() == [f"{BASE}.s3", f"{BASE}.s2", f"{BASE}.s1", BASE]
    assert ("volume='volume-1234'" in pooled.definition()) is (way == "running")
    pooled.sound()
    assert pooled.content() == content


@pytest.mark.parametrize("way", ["off", "running"])
@pytest.mark.parametrize(
    ("delete", "left"),
    [
        (("s1", "--method", "commit"), [f"{BASE}.s3", f"{BASE}.s2", BASE]),
        (("s3", "--method", "commit"), [f"{BASE}.s2", f"{BASE}.s1", BASE]),
    ],
    ids=["commit", "active commit"],
)
def test_merges_down_to_a_volume(
    pooled: Pooled, way: str, delete: tuple[str, ...], left: list[str]
) -> None:
    pooled.start()
    for name in ("s1", "s2", "s3"):
        pooled.done("create", DISK, name)
    pooled.stop()
    pooled.write(2)
    content = pooled.content()
    if way == "running":
        pooled.start()
    pooled.done("delete", DISK, *delete, "--remove-file")
    if way == "running":
        pooled.stop()
    assert pooled.files() == left
    assert sorted(path.name for path in pooled.pool.folder.iterdir()) == sorted(left)
    pooled.sound()
    assert pooled.content() == content


@pytest.mark.parametrize("way", ["off", "running"])
def test_back_to_the_volume_alone(pooled: Pooled, way: str) -> None:
    """The definition names the volume again as it did, or its file."""
    pooled.start()
    pooled.done("create", DISK, "s1")
    pooled.stop()
    pooled.write(2)
    content = pooled.content()
    if way == "running":
        pooled.start()
    pooled.done("delete", DISK, "s1", "--method", "commit")
    if way == "running":
        pooled.stop()
    assert pooled.files() == [BASE]
    assert "volume='volume-1234'" in pooled.definition()
    pooled.sound()
    assert pooled.content() == content


@situation(
    "Another guest, running or off, has the base as a volume of a storage pool, started or not",
    happens="a merge into it is refused, and no file of it is removed; `orphans` and `explain` name that guest",
    code=4,
    then="Pull instead.",
    pain=4,
    kind=2,
)
@pytest.mark.parametrize("state", ["running", "off", "pool not started"])
@pytest.mark.parametrize("depth", [0, 1], ids=["itself", "below its volume"])
def test_another_guest_on_the_volume(pool: Pool, state: str, depth: int) -> None:
    images.create_qcow2(pool.folder / BASE, SIZE)
    other = BASE
    if depth:
        other = "other"
        images.create_qcow2(pool.folder / other, SIZE, backing=BASE, backing_format="qcow2")
    pool.refresh()
    with pool.guest(BASE, "qcow2") as one, pool.guest(other, "qcow2") as two:
        one.done("create", DISK, "s1")
        one.done("create", DISK, "s2")
        pool.refresh()
        if state == "running":
            two.start()
        elif state == "pool not started":
            pool.kept_in.destroy()
        before = pool.bytes()
        # QEMU's lock keeps two guests from running on one file when one of them writes to it.
        for runs in (False, True) if depth or state == "off" else (False,):
            if runs:
                one.start()
            said = one.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
            assert said.code == 4, said
            assert f"{BASE} is also read by" in said.err
            assert two.domain.name() in said.err
            named = one.cli("orphans", DISK, "-o", "json").json["files"]
            assert BASE not in {entry["file"] for entry in named}
            explained = run_cli(
                ["-c", pool.daemon.uri, "explain", str(pool.folder / BASE), "-o", "json"]
            ).json
            assert any(two.domain.name() in use["who"] for use in explained["uses"])
        if one.domain.isActive():
            one.stop()
        assert pool.bytes() == before


@situation(
    "The guest is off, and the pool that its disk is a volume of is not started, or has no such volume",
    happens="a note says what libvirt says; operations are refused; no conflict is made of it",
    code=4,
    then="Start the pool, or `virsh pool-refresh` it: libvirt would not start the guest either.",
    kind=15,
)
@pytest.mark.parametrize("depth", [0, 1], ids=["active", "below"])
@pytest.mark.parametrize("why", ["not started", "not there"])
def test_volume_that_libvirt_does_not_find(pooled: Pooled, depth: int, why: str) -> None:
    if depth:
        pooled.start()
        pooled.done("create", DISK, "s1")
        pooled.stop()
    files, text, place = pooled.pool.bytes(), pooled.definition(), pooled.pool.folder / BASE
    if why == "not started":
        pooled.pool.kept_in.destroy()
    else:
        place.rename(pooled.pool.daemon.folder / "away")
        pooled.pool.refresh()
    shown = pooled.cli("chain", "-o", "json").json
    assert [layer["path"] for layer in shown["disks"][0]["layers"]][depth] is None
    assert shown["disks"][0]["xml_differs"] is None
    assert any("libvirt gives no file for" in note for note in shown["notes"])
    said = pooled.cli("verify", "-o", "json")
    assert said.code == 3, said
    outside = {"backing-outside-folder"} if depth else set()
    assert {one["id"] for one in said.json["findings"]} == {"guest-partly-read", *outside}
    for command in (("create", DISK, "n"), ("revert", DISK, "s1")):
        assert pooled.cli(*command).code == 4
    with pytest.raises(libvirt.libvirtError):
        pooled.start()
    if why == "not there":
        (pooled.pool.daemon.folder / "away").rename(place)
    else:
        pooled.pool.kept_in.create()
    pooled.pool.refresh()
    assert (pooled.pool.bytes(), pooled.definition()) == (files, text)
    pooled.sound()


def test_definition_edited_in_between(pooled: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody points it to another volume after the plan: it stays as they have it."""
    images.create_qcow2(pooled.pool.folder / "other", SIZE)
    pooled.pool.refresh()
    before = images.sha256_of_bytes(pooled.pool.folder / BASE)
    edited = pooled.definition().replace(f"volume='{BASE}'", "volume='other'")

    def edit(_step: Step) -> None:
        pooled.domain.connect().defineXML(edited)

    patch(monkeypatch, OfflineGuest, before=at(Does.SWITCH, edit))
    said = pooled.cli("create", DISK, "s1")
    assert said.code == 1, said
    assert "Somebody else changed this guest" in said.err
    assert "volume='other'" in pooled.definition()
    assert pooled.files() == ["other"]
    assert images.sha256_of_bytes(pooled.pool.folder / BASE) == before
