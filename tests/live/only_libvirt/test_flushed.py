"""
A merge whose data cannot be flushed is no success, under libvirt and of a guest that is off.

libvirt lets QEMU change the chain at once, so the flush is heard afterwards: from QEMU by passthrough,
without that by the file and its tables on disk.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.offline import block_layer
from qmpsnap.monitor.virt import find_domain, libvirt_module
from qmpsnap.operations import merge
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.requests import NamedDeleteRequest
from tests.rig import images
from tests.rig.doors import at_the_end
from tests.rig.flushes import FLUSHES, S1, S2, TABLES, UNTIL_READ, faulty
from tests.rig.libvirt_machine import LibvirtMachine, wait_until_gone
from tests.rig.off import Off, defined_off
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, Rig, run_cli
from tests.rig.roads import MakeRig
from tests.rig.waiting import until

COMMIT = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")
FAILURES = [("qcow2", TABLES), ("qcow2", FLUSHES), ("raw", FLUSHES)]


def grown(rig: Rig) -> str:
    """Three layers, with data in the middle one; returns the content."""
    rig.guest.write(DISK, 3 * MIB, 65536, 3)
    rig.create("s1")
    rig.guest.write(DISK, MIB, MIB, 7)
    rig.create("s2")
    return rig.guest.read_sha256(DISK)


def make_failing(rig: Rig, format_: str, errors: Mapping[str, Any], layer: int = 2) -> None:
    """Put blkdebug below a node of libvirt's; only its own words have changed for the node."""
    node = rig.disk().layers[layer]
    if node.node == node.protocol_node:  # seen with libvirt 11.3
        pytest.skip("this libvirt gives a raw file no node below which blkdebug could be put")
    lower = {"read-only": True} if layer else {}
    rig.guest.qmp("blockdev-add", {**faulty(node.protocol_node, [errors]), "node-name": "bad"})
    options = {"driver": format_, "node-name": node.node, "file": "bad", **lower}
    if format_ != "raw":
        below = rig.disk().layers[layer + 1 :]
        options["backing"] = below[0].node if below else None
    rig.guest.qmp("blockdev-reopen", {"options": [options]})


def not_flushed(rig: Rig, kind: str) -> str:
    """A commit is done that QEMU cannot flush; returns the content."""
    content = grown(rig)
    make_failing(rig, "qcow2", UNTIL_READ[kind])
    said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
    assert (said.code, "run `qmpsnap resume`: it flushes" in said.err) == (1, True), said
    return content


def mend(rig: Rig) -> None:
    """Have the storage take writes again."""
    for _ in range(2):
        rig.guest.qemu_io(DISK, f"read {3 * MIB} 64k")  # see UNTIL_READ


def resumed(rig: Rig) -> tuple[str, list[str]]:
    """The outcome of `resume`, which settles what other tests have left as well; and the files."""
    operations = run_cli(["resume", "-o", "json"]).json["operations"]
    assert isinstance(rig.guest, LibvirtMachine)
    (one,) = [one for one in operations if one["guest"] == rig.guest.name]
    return one["outcome"], sorted(path.name for path in rig.folder.iterdir())


@remedy("NotFlushed")
@pytest.mark.parametrize("kind", UNTIL_READ)
def test_resume_flushes_when_the_storage_is_mended(make_rig: MakeRig, kind: str) -> None:
    with make_rig("qcow2") as rig:
        content = not_flushed(rig, kind)
        assert resumed(rig) == ("unknown", [BASE, S1, S2])
        mend(rig)
        assert resumed(rig) == ("finished", [BASE, S2])
        rig.kill()
        assert images.sha256_of(rig.folder / S2, "qcow2") == content


@remedy("NotFlushed")
@pytest.mark.parametrize("kind", UNTIL_READ)
def test_resume_names_again_what_was_never_flushed(make_rig: MakeRig, kind: str) -> None:
    """The guest has died, and what had been committed with it: the merged file still has all of it."""
    with make_rig("qcow2") as rig:
        content = not_flushed(rig, kind)
        rig.kill()
        assert resumed(rig) == ("rolled-back", [BASE, S1, S2])
        assert images.sha256_of(rig.folder / S2, "qcow2") == content
        assert str(rig.folder / S1) not in run_cli(["orphans", str(rig.folder)]).out


def test_guest_that_was_started_without_what_was_never_flushed(make_rig: MakeRig) -> None:
    with make_rig("qcow2") as rig:
        not_flushed(rig, "tables")
        assert isinstance(rig.guest, LibvirtMachine)
        connection, text = rig.guest.domain.connect(), rig.guest.domain.XMLDesc(0)
        rig.kill()
        wait_until_gone(connection, rig.guest.name)
        started: list[Any] = []

        def start() -> bool:
            with suppress(libvirt_module().libvirtError):  # it is still being removed
                started.append(connection.createXML(text))
            return bool(started)

        until(start)
        assert resumed(rig) == ("unknown", [BASE, S1, S2])
        started[0].destroy()
        assert resumed(rig) == ("rolled-back", [BASE, S1, S2])


@remedy("NotFlushed")
@pytest.mark.parametrize(("base", "errors"), FAILURES)
def test_base_that_cannot_be_flushed(
    make_rig: MakeRig, base: str, errors: Mapping[str, Any]
) -> None:
    with make_rig(base) as rig:
        content = grown(rig)
        make_failing(rig, base, errors)
        said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 1, said
        assert "it could not be flushed: Error flushing drive: " in said.err
        assert (rig.folder / S1).exists()
        rig.kill()
        top = rig.folder / S2
        back = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", S1, "-F", "qcow2"]
        subprocess.run([*back, str(top)], check=True)  # as the message says
        assert images.sha256_of(top, "qcow2") == content


@pytest.mark.parametrize("errors", [TABLES, FLUSHES])
def test_pull_that_cannot_be_flushed(make_rig: MakeRig, errors: Mapping[str, Any]) -> None:
    with make_rig("raw") as rig:
        grown(rig)
        make_failing(rig, "qcow2", errors, 0)
        said = rig.delete(None, None)
        assert said.code in (1, 5), said
        assert said.status["status"] == "error_deleting"


def without_tables(path: Path) -> None:
    """As if QEMU had not been able to write the tables of a qcow2 file."""
    with path.open("r+b") as file:
        (table,) = struct.unpack(">40xQ", file.read(48))
        file.seek(table)
        (entry,) = struct.unpack(">Q", file.read(8))
        file.seek(entry & 0x00FFFFFFFFFFFE00)
        file.write(bytes(65536))


def by_xml(rig: Rig) -> LibvirtGuest:
    assert isinstance(rig.guest, LibvirtMachine)
    domain = find_domain(rig.guest.domain.connect(), rig.guest.name)
    return LibvirtGuest(domain, passthrough=False)


@pytest.mark.parametrize("base", ["raw", "qcow2"])
def test_by_the_file_alone(make_rig: MakeRig, base: str) -> None:
    with make_rig(base) as rig:
        content = grown(rig)
        with by_xml(rig) as guest:
            done = merge.delete(guest, COMMIT)
        assert done.dropped == (str(rig.folder / S1),)
        assert rig.guest.read_sha256(DISK) == content


def test_tables_that_are_not_on_disk(make_rig: MakeRig) -> None:
    with make_rig("qcow2") as rig:
        grown(rig)
        broken = rig.folder / BASE
        with by_xml(rig) as guest, pytest.raises(NotFlushed, match="are not in its tables on disk"):
            merge.delete(at_the_end(guest, lambda: without_tables(broken)), COMMIT, remove=True)
        assert (rig.folder / S1).exists()


def test_raw_base_that_the_kernel_could_not_write(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with make_rig("raw") as rig:
        grown(rig)
        monkeypatch.setattr("qmpsnap.guests.files.door.os.fsync", fails)
        with by_xml(rig) as guest, pytest.raises(NotFlushed, match=f"cannot sync .*{BASE}: Input"):
            merge.delete(guest, COMMIT, remove=True)
        assert (rig.folder / S1).exists()


@pytest.mark.parametrize("base", ["raw", "qcow2"])
def test_files_that_this_process_cannot_open(
    make_rig: MakeRig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of group libvirt: QEMU tells by passthrough; without it nobody does, and that is said."""

    def fails(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    with make_rig(base) as rig:
        content = grown(rig)
        rig.create("s3")
        monkeypatch.setattr("qmpsnap.guests.files.door.open_to_sync", fails)
        said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 0, said
        assert not (rig.folder / S1).exists()
        with by_xml(rig) as guest:
            request = NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit")
            done = merge.delete(guest, request, remove=True)
        assert (done.dropped, done.removed) == ((), ())
        assert any(f"whether all of {BASE} is on the disk is not certain" in n for n in done.notes)
        assert (rig.folder / S2).exists()
        assert rig.guest.read_sha256(DISK) == content


@pytest.fixture
def off_with(connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`off_with(base, file, errors)`: a guest that is off; one of its files fails when it is opened."""
    nodes = block_layer._nodes
    contexts: list[Any] = []

    def failing(name: str, errors: Mapping[str, Any]) -> Any:
        def made(layers: Sequence[tuple[str, str]]) -> Iterator[dict[str, object]]:
            for node in nodes(layers):
                if not str(node.get("filename", "")).endswith(f"/{name}"):
                    yield node
                    continue
                image = {key: value for key, value in node.items() if key != "node-name"}
                bad = {"driver": "blkdebug", "image": image, "inject-error": [errors]}
                yield {**bad, "node-name": node["node-name"]}

        return made

    def make(base: str, file: str, errors: Mapping[str, Any]) -> Off:
        folder = tmp_path / "share"
        folder.mkdir()
        context = defined_off(connection, folder, base)
        off = context.__enter__()
        contexts.append(context)
        off.write(3 * MIB, 65536, 3)
        off.rig.create("s1")
        off.write(MIB, MIB, 7)
        off.rig.create("s2")
        off.write(2 * MIB, 65536, 9)
        monkeypatch.setattr(block_layer, "_nodes", failing(file, errors))
        return off

    yield make
    for context in contexts:
        context.__exit__(None, None, None)


MERGES = {
    "commit": (S1, BASE, BASE),
    "active commit": (S2, BASE, BASE),
    "pull": (None, None, S2),
}


@pytest.mark.parametrize("kind", MERGES)
@pytest.mark.parametrize(("base", "errors"), FAILURES)
def test_guest_that_is_off(off_with: Any, kind: str, base: str, errors: Mapping[str, Any]) -> None:
    """The job is cancelled before it changes the chain, as on QEMU's own socket."""
    top, target, written = MERGES[kind]
    off: Off = off_with(base, written, errors)
    content, files = off.content(), off.rig.files()
    said = off.rig.delete(top, target)
    assert said.code == 5, said
    assert said.status["status"] == "error_deleting"
    assert off.rig.files() == files
    assert off.active() == (S2, "qcow2")
    assert off.content() == content
