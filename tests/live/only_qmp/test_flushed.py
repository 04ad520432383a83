"""
A merge whose data cannot be flushed is no success, however its files are open.

blkdebug makes every write of a table, or every flush, of the file that is written fail: what was
copied then stays in QEMU's memory.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations import merge
from qmpsnap.operations.guest import Guest, NotFlushed
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.requests import NamedDeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import at, with_door
from tests.rig.flushes import FLUSHES, S1, S2, TABLES, UNTIL_READ, disk, make_chain
from tests.rig.qemu_machine import QemuMachine
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import direct_rig
from tests.rig.situations import situation
from tests.rig.waiting import until

Errors = list[Mapping[str, Any]]
COMMIT = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")


@situation(
    "What a merge has copied cannot be flushed",
    happens="an error, whatever QEMU says of the job: on QEMU's own socket, and of a guest that is "
    "off, the job is cancelled and the chain is as it was; under libvirt, which lets QEMU change the "
    "chain at once, NotFlushed (1). No file is removed, and none is said to be unused",
    code=5,
    then="Make room, or mend the storage; then give the same command again. After NotFlushed do "
    "as the message says.",
    pain=1,
    kind=4,
)
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("base", "errors"), [("qcow2", TABLES), ("qcow2", FLUSHES), ("raw", FLUSHES)]
)
def test_base_that_cannot_be_flushed(
    tmp_path: Path, base: str, errors: Mapping[str, Any], read_only: bool
) -> None:
    folder = tmp_path / "share"
    make_chain(folder, base)
    with direct_rig(folder, disk(folder, base, [errors], options={"read-only": read_only})) as rig:
        content = rig.guest.read_sha256(DISK)
        said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 5, said
        assert "had written could not be flushed: Error flushing drive: " in said.err
        assert rig.files() == [S2, S1, BASE]
        assert rig.guest.read_sha256(DISK) == content
        rig.kill()
    assert images.sha256_of(folder / S2, "qcow2") == content


@pytest.mark.parametrize("errors", [TABLES, FLUSHES])
@pytest.mark.parametrize("exported", [True, False])
def test_pull_that_cannot_be_flushed(
    tmp_path: Path, errors: Mapping[str, Any], exported: bool
) -> None:
    """An export forbids the resize that would flush it when it has ended."""
    folder = tmp_path / "share"
    make_chain(folder, "qcow2")
    with direct_rig(folder, disk(folder, "qcow2", [errors], S2)) as rig:
        content = rig.guest.read_sha256(DISK)
        if exported:
            export(rig)
        said = rig.delete(None, None)
        assert said.code in (1, 5), said
        assert said.status["status"] == "error_deleting"
        assert rig.files() == [S2, S1, BASE]
        rig.kill()
    assert images.sha256_of(folder / S2, "qcow2") == content


def export(rig: Rig) -> None:
    """Let somebody read and write the disk by NBD, as a backup does."""
    address = {"type": "unix", "data": {"path": str(rig.folder / "nbd")}}
    rig.guest.qmp("nbd-server-start", {"addr": address})
    node = {"type": "nbd", "id": "theirs", "node-name": "s2", "writable": True}
    rig.guest.qmp("block-export-add", node)


@pytest.mark.parametrize("errors", [TABLES, FLUSHES])
def test_active_commit_into_what_cannot_be_flushed(
    tmp_path: Path, errors: Mapping[str, Any]
) -> None:
    """The mirror flushes by itself, and fails when that does."""
    folder = tmp_path / "share"
    make_chain(folder, "qcow2")
    with direct_rig(folder, disk(folder, "qcow2", [errors])) as rig:
        content = rig.guest.read_sha256(DISK)
        said = rig.delete(S2, BASE)
        assert said.code == 5, said
        assert rig.files() == [S2, S1, BASE]
        rig.kill()
    assert images.sha256_of(folder / S2, "qcow2") == content


def finished_by_another(rig: Rig, guest: Guest) -> Guest:
    """Another client finishes the job before this one has flushed what it wrote."""

    def finish(_step: Step) -> None:
        until(lambda: status(rig) == "pending")
        (job,) = jobs(rig)
        rig.guest.qmp("job-finalize", {"id": job["id"]})
        until(lambda: status(rig) == "concluded")

    return with_door(guest, after=at(Does.START, finish))


def jobs(rig: Rig) -> list[dict[str, Any]]:
    found = rig.guest.qmp("query-jobs")
    assert isinstance(found, list)
    return found


def status(rig: Rig) -> str:
    (job,) = jobs(rig)
    return str(job["status"])


@remedy("NotFlushed")
@pytest.mark.parametrize("kind", UNTIL_READ)
@pytest.mark.parametrize("read_only", [True, False])
def test_shutting_down_flushes_when_the_storage_is_mended(
    tmp_path: Path, kind: str, read_only: bool
) -> None:
    folder = tmp_path / "share"
    make_chain(folder, "qcow2")
    content = images.sha256_of(folder / S2, "qcow2")
    spec = disk(folder, "qcow2", [UNTIL_READ[kind]], options={"read-only": read_only})
    with direct_rig(folder, spec) as rig:
        with rig.host() as guest, pytest.raises(NotFlushed) as said:
            merge.delete(finished_by_another(rig, guest), COMMIT, remove=True)
        assert "shut the guest down instead, which also flushes" in said.value.way_out
        assert (folder / S1).exists()
        for _ in range(2):
            rig.guest.qemu_io(DISK, f"read {3 * MIB} 64k")  # see UNTIL_READ
        assert isinstance(rig.guest, QemuMachine)
        rig.guest.quit()
    (folder / S1).unlink()
    assert images.sha256_of(folder / S2, "qcow2") == content


@remedy("NotFlushed")
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("base", "errors", "flushed"),
    [
        ("qcow2", [TABLES], False),
        ("qcow2", [FLUSHES], False),
        ("raw", [FLUSHES], False),
        ("qcow2", [], True),
        ("raw", [], True),
    ],
)
def test_commit_that_somebody_else_has_finished(
    tmp_path: Path, base: str, errors: Errors, read_only: bool, flushed: bool
) -> None:
    """Nobody has flushed it before; QEMU has done so since, and has told nobody."""
    folder = tmp_path / "share"
    make_chain(folder, base)
    with direct_rig(folder, disk(folder, base, errors, options={"read-only": read_only})) as rig:
        content = rig.guest.read_sha256(DISK)
        with rig.host() as guest:
            if flushed:
                done = merge.delete(finished_by_another(rig, guest), COMMIT, remove=True)
                assert done.removed == (str(folder / S1),)
            else:
                with pytest.raises(NotFlushed, match="Error flushing drive: "):
                    merge.delete(finished_by_another(rig, guest), COMMIT, remove=True)
        rig.kill()
    assert (folder / S1).exists() is not flushed
    if not flushed:  # as the message says
        back = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", S1, "-F", "qcow2"]
        subprocess.run([*back, str(folder / S2)], check=True)
    assert images.sha256_of(folder / S2, "qcow2") == content


def without_hmp(guest: Guest) -> Guest:
    """As qemu-storage-daemon: there is no human monitor."""

    def refuse(step: Step) -> None:
        if step.what == "human-monitor-command":
            raise CommandFailed(step.what, "CommandNotFound", "The command has not been found")

    return with_door(guest, before=refuse)


@pytest.mark.parametrize(
    ("base", "errors", "flushed"),
    [("qcow2", [], True), ("raw", [], True), ("qcow2", [TABLES], False)],
)
def test_qemu_without_a_human_monitor(
    tmp_path: Path, base: str, errors: Errors, flushed: bool
) -> None:
    """
    What is on disk is looked at: the file is synced, and its tables are compared.

    QEMU has flushed the base, since it was open for reading only before.
    """

    def deleted(guest: Guest) -> Result:
        return merge.delete(without_hmp(guest), COMMIT)

    folder = tmp_path / "share"
    make_chain(folder, base)
    spec = disk(folder, base, errors, options={"read-only": True})
    with direct_rig(folder, spec) as rig, rig.host() as guest:
        if flushed:
            assert deleted(guest).dropped == (str(folder / S1),)
        else:
            with pytest.raises(NotFlushed, match=rf"bytes at {MIB} are not in its tables on disk"):
                deleted(guest)


def test_nobody_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No human monitor, and a file that this process may not open: done, and nothing is released."""

    def fails(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    folder = tmp_path / "share"
    make_chain(folder, "raw")
    with direct_rig(folder, disk(folder, "raw", [])) as rig, rig.host() as guest:
        monkeypatch.setattr("qmpsnap.guests.files.door.open_to_sync", fails)
        done = merge.delete(without_hmp(guest), COMMIT, remove=True)
        assert (done.dropped, done.removed, done.held) == ((), (), (str(folder / S1),))
        assert any(f"whether all of {BASE} is on the disk is not certain" in n for n in done.notes)
        assert (folder / S1).exists()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"discard": "unmap", "detect-zeroes": "unmap"},
    {"cache": {"direct": False, "no-flush": False}, "l2-cache-size": 65536},
    {"lazy-refcounts": False, "pass-discard-request": False, "overlap-check": "all"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_base_keeps_its_options(tmp_path: Path, options: dict[str, Any]) -> None:
    """What is opened again to be flushed is as it was."""
    folder = tmp_path / "share"
    make_chain(folder, "qcow2")
    with direct_rig(folder, disk(folder, "qcow2", [], options=options)) as rig:
        content, before = rig.guest.read_sha256(DISK), told(rig, "base")
        assert rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
        assert told(rig, "base") == before
        assert rig.guest.read_sha256(DISK) == content
        rig.kill()
    assert images.sha256_of(folder / S2, "qcow2") == content


def told(rig: Rig, node: str) -> dict[str, Any]:
    """What QEMU tells of a node, but for what a merge changes."""
    nodes = rig.guest.qmp("query-named-block-nodes", {"flat": True})
    assert isinstance(nodes, list)
    (found,) = [one for one in nodes if one["node-name"] == node]
    changes = ("image", "file", "backing_file", "backing_file_depth")
    return {key: value for key, value in found.items() if key not in changes}


Deleted = Callable[[Rig], int]
MERGES: dict[str, Deleted] = {
    "pull": lambda rig: rig.delete(None, None).code,
    "commit": lambda rig: rig.delete(S1, BASE).code,
}


@pytest.mark.parametrize("kind", MERGES)
def test_drive_keeps_what_is_no_option_of_its_node(tmp_path: Path, kind: str) -> None:
    """QEMU would forget `detect-zeroes` of a `-drive` whose node is opened again to be flushed."""
    folder = tmp_path / "share"
    make_chain(folder, "qcow2")
    drive = f"file={folder / S2},format=qcow2,if=none,id=d,discard=unmap,detect-zeroes=unmap"
    device = f"virtio-blk-pci,id={DISK},drive=d,serial={SERIAL}"
    with direct_rig(folder, [], ["-drive", f"{drive},node-name=s2", "-device", device]) as rig:
        before = told(rig, "s2")
        assert before["detect_zeroes"] == "unmap"
        assert MERGES[kind](rig) == 0
        assert told(rig, "s2") == before
