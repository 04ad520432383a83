"""What is read of a guest that is off: every disk by itself, whatever is the matter with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.rig.off import Off
from tests.rig.rig import BASE, DISK
from tests.rig.situations import situation

MISSING = "<source file='/nowhere/not-mounted'/>"
IN_A_POOL = "<source pool='p' volume='x'/>"
ON_THE_NETWORK = "<source protocol='rbd' name='p/i'><host name='127.0.0.1' port='1'/></source>"


def attach(domain: Any, type_: str, source: str) -> None:
    """Give the definition a second disk."""
    disk = (
        f"<disk type='{type_}' device='disk'><driver name='qemu' type='raw'/>{source}"
        "<target dev='vdb' bus='virtio'/></disk>"
    )
    text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    domain.connect().defineXML(text.replace("</devices>", f"{disk}</devices>"))


@situation(
    "The guest is off, and the image of one disk is missing, in a pool that is not there, or on the network",
    happens="the disk gets a note; the other disks work",
    code=0,
    then="Bring the image back, or take the disk out of the definition.",
    kind=16,
)
@pytest.mark.parametrize(
    ("type_", "source", "name"),
    [
        ("file", MISSING, "not-mounted"),
        ("volume", IN_A_POOL, "p/x"),
        ("network", ON_THE_NETWORK, "p/i"),
    ],
    ids=["missing", "pool", "network"],
)
def test_one_disk_that_cannot_be_looked_at(off: Off, type_: str, source: str, name: str) -> None:
    attach(off.domain, type_, source)
    said = off.rig.cli("chain", "-o", "json")
    assert said.code == 0, said
    vda, vdb = (
        next(disk for disk in said.json["disks"] if disk["disk"] == target)
        for target in (DISK, "vdb")
    )
    assert vdb["layers"][0]["file"] == name
    assert any(note.startswith("vdb: ") for note in said.json["notes"])
    assert vda["layers"][0]["virtual_size"] is not None
    said = off.rig.cli("create", DISK, "s1")
    assert said.code == 0, said
    assert off.rig.files() == [f"{BASE}.s1", BASE]
    said = off.rig.cli("delete", DISK, "s1", "--method", "pull")
    assert said.code == 0, said
    said = off.rig.cli("create", "vdb", "s1")
    assert said.code == 4, said
    said = off.rig.cli("verify", "-o", "json")
    assert said.code == 3
    assert {one["disk"] for one in said.json["findings"]} == {"vdb"}


def test_verify_of_a_sound_guest(off: Off) -> None:
    off.grow(3)
    said = off.rig.cli("verify", "-o", "json")
    assert (said.code, said.json["findings"]) == (0, []), said


@pytest.mark.parametrize("fault", ["gone", "garbage"])
def test_layer_whose_header_cannot_be_read(off: Off, fault: str) -> None:
    off.grow(3)
    middle = off.folder / f"{BASE}.s1"
    if fault == "gone":
        middle.unlink()
    else:
        middle.write_bytes(b"\0" * 65536)
    said = off.rig.cli("chain", "-o", "json")
    assert said.code == 0
    assert any(f"{BASE}.s1" in note for note in said.json["notes"])
    assert off.rig.cli("verify").code == 3
    for command in (("create", DISK, "new"), ("delete", DISK, "s2")):
        assert off.rig.cli(*command).code == 4
    assert not Path(off.folder, f"{BASE}.new").exists()


WORDS = {
    "nbd": ("network", "<source protocol='nbd'><host name='h' port='1'/></source>", "nbd://h:1"),
    "nvme": (
        "nvme",
        "<source type='pci' managed='yes' namespace='1'>"
        "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>",
        "0000:01:00.0/1",
    ),
    "pool": ("volume", IN_A_POOL, "p/x"),
    "librbd": (
        "network",
        "<source protocol='rbd' name='p/i'><host name='h' port='1'/>"
        "<encryption format='luks2' engine='librbd'>"
        "<secret type='passphrase' uuid='c1f11a6d-8c5d-4a3e-ac7a-4e171c5e0d4a'/></encryption>"
        "</source>",
        "p/i",
    ),
}


@situation(
    "A disk is no file (NVMe, NBD, a volume that libvirt does not find), or the storage's own library decrypts it",
    happens="it has a name, and libvirt's words mean what QEMU makes of them; operations on it are "
    "refused",
    code=4,
    then="Choose another disk.",
    kind=15,
)
@pytest.mark.parametrize("kind", WORDS)
def test_libvirts_words(off: Off, kind: str) -> None:
    type_, source, name = WORDS[kind]
    attach(off.domain, type_, source)
    shown = off.rig.cli("chain", "vdb", "-o", "json")
    (layer,) = shown.json["disks"][0]["layers"]
    assert (layer["file"], layer["path"], layer["format"]) == (name, None, "raw")
    assert ("encrypted" in layer["flags"]) is (kind == "librbd")
    assert off.rig.cli("create", "vdb", "s1").code == 4
