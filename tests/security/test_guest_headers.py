"""A guest writes image headers into its disk: at rest, while it runs, and between all operations."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from tests.rig import images
from tests.rig.attacks import Book, Seen, probe
from tests.rig.detector import detecting
from tests.rig.export import exported
from tests.rig.machine import Machine
from tests.rig.payloads import PAYLOADS, Payload, put
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, assert_sound
from tests.security.conftest import SECRET, MakeRig, Victim

FULL = {
    "direct": {"qcow2-backing", "qcow2-data-file", "qed", "vmdk-flat"},
    "libvirt": {"qcow2-data-file"},
}
"""These go through every operation; the others through a create and an active commit."""


@pytest.fixture(params=PAYLOADS, ids=lambda payload: payload.name)
def payload(request: pytest.FixtureRequest) -> Payload:
    """Each of them."""
    assert isinstance(request.param, Payload)
    return request.param


def test_raw_stays_raw(
    payload: Payload,
    victim: Victim,
    volume: Path,
    start: MakeRig,
    book: Book,
    request: pytest.FixtureRequest,
) -> None:
    full = payload.name in FULL[request.node.callspec.params["start"]]
    forged = victim.forged(payload.name)
    put(forged, volume)
    believed = probe(volume, victim.path, SECRET, victim.detector)
    assert believed.format not in (None, "raw")  # otherwise it attacks nobody
    with start(volume, "raw") as rig:
        formats = _Formats(rig, victim)
        formats.are({BASE: "raw"})  # at rest
        rig.guest.write_bytes(DISK, 0, forged)  # while it runs
        rig.create("s1")
        formats.are({f"{BASE}.s1": "qcow2", BASE: "raw"})
        _write_by_nbd(rig.guest, forged)
        active = "s1"
        if full:
            active = "s3"
            _commit_and_pull(rig, formats, forged)
        # The header goes down into the raw base.
        said = rig.cli("delete", DISK, active, "--method", "commit")
        assert said.code == 0, said
        formats.are({BASE: "raw"})
        assert volume.read_bytes().startswith(forged.rstrip(b"\0"))
        if full:
            assert probe(volume, victim.path, SECRET, victim.detector) == believed
            rig.create("s4")
            said = rig.delete(None, None)
            assert said.status["file_format"] == {f"{BASE}.s4": "qcow2"}, said
            formats.are({f"{BASE}.s4": "qcow2"})
        content = rig.guest.read_all(DISK)
        assert content.startswith(forged.rstrip(b"\0"))
        assert SECRET not in content
        victim.assert_safe(said, folder=rig.folder)
    book.check("headers", Seen(payload.title, believed, formats.of_base))


def _commit_and_pull(rig: Rig, formats: _Formats, forged: bytes) -> None:
    """From the overlay s1 to the overlay s3, by way of s2."""
    rig.create("s2")
    rig.guest.write_bytes(DISK, 0, forged)
    said = rig.delete(f"{BASE}.s1", BASE)
    assert said.status["file_format"] == {BASE: "raw"}, said
    formats.are({f"{BASE}.s2": "qcow2", BASE: "raw"})
    rig.create("s3")
    said = rig.delete(BASE, None)
    assert said.status["file_format"] == {f"{BASE}.s3": "qcow2", BASE: "raw"}, said
    formats.are({f"{BASE}.s3": "qcow2", BASE: "raw"})
    assert_sound(rig.disk())
    rig.guest.write_bytes(DISK, 0, forged)


class _Formats:
    """The chain as qmpsnap tells it, again and again."""

    def __init__(self, rig: Rig, victim: Victim) -> None:
        self._rig = rig
        self._victim = victim
        self.of_base = ""

    def are(self, expected: dict[str, str]) -> None:
        files = [self._rig.folder / name for name in expected if expected[name] == "raw"]
        with detecting(*files) as detector:
            said = self._rig.cli("chain", "-o", "json")
            assert detector.events() == []  # a raw file is not even opened
        layers = said.json["disks"][0]["layers"]
        assert {layer["file"]: layer["format"] for layer in layers} == expected
        assert {layer["verdict"] for layer in layers} <= {"exact", "agreed"}
        self._victim.assert_safe(said)
        for upper, lower in itertools.pairwise(layers):
            header = read_header(str(self._rig.folder / upper["file"]))
            assert header.backing_format == expected[lower["file"]]
        self.of_base = expected.get(BASE, self.of_base)


def _write_by_nbd(guest: Machine, data: bytes) -> None:
    """Write to the start of the disk in the way of a guest's request."""
    with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as folder:
        source, socket = Path(folder, "data"), Path(folder, "nbd")
        source.write_bytes(data)
        with exported(guest.qmp, guest.active_node(DISK), socket=socket, writable=True) as url:
            words = f"write -s {source} 0 {len(data)}"
            done = subprocess.run(
                ["qemu-io", "-f", "raw", "-c", words, url], capture_output=True, text=True
            )
            assert f"wrote {len(data)}/{len(data)} bytes" in done.stdout, done


def test_a_header_in_the_content_of_a_qcow2(victim: Victim, share: Path, start: MakeRig) -> None:
    """Nested: what the guest sees begins with a header, and the file with another, true one."""
    forged = victim.forged("qcow2-nested")
    images.create_qcow2(share / BASE, SIZE)
    with start(share / BASE, "qcow2") as rig:
        formats = _Formats(rig, victim)
        rig.guest.write_bytes(DISK, 0, forged)
        formats.are({BASE: "qcow2"})
        rig.create("s1")
        rig.guest.write_bytes(DISK, 0, forged)
        rig.create("s2")
        formats.are({f"{BASE}.s2": "qcow2", f"{BASE}.s1": "qcow2", BASE: "qcow2"})
        assert rig.delete(f"{BASE}.s1", BASE).status["file_format"] == {BASE: "qcow2"}
        assert rig.cli("delete", DISK, "s2", "--method", "commit").code == 0
        formats.are({BASE: "qcow2"})
        assert SECRET not in rig.guest.read_all(DISK)
        victim.assert_safe(folder=share)


def test_a_restart_by_the_headers_alone(victim: Victim, volume: Path, start: MakeRig) -> None:
    """Whoever starts the guest again from the overlay, and believes its header, opens no victim."""
    forged = victim.forged("qcow2-backing")
    with start(volume, "raw") as rig:
        rig.guest.write_bytes(DISK, 0, forged)
        rig.create("s1")
        rig.guest.write(DISK, 2 * MIB, 4096, 7)
        rig.guest.qemu_io(DISK, "flush")
        content = rig.guest.read_sha256(DISK)
        rig.kill()
    assert images.sha256_of(volume.with_name(f"{BASE}.s1"), "qcow2") == content
    victim.assert_safe(folder=volume.parent)
