"""What must hold on both roads: create, commit, pull and active commit on a disk that is written to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files.header import read_header
from qmpsnap.operations import merge
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from tests.rig import images
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


class TestOperations:
    """Happy paths, with a writer at work all the time."""

    def test_create_on_one_to_eight_layers(self, make_rig: MakeRig, base: str) -> None:
        with make_rig(base) as rig:
            for depth in range(1, 9):
                rig.fill_layer(depth)
                with rig.writer(depth) as writer:
                    said = rig.create(f"s{depth}")
                    writer.wait_for(5)
                assert said.status == {
                    "status": "creating_compute_complete",
                    "progress": "90%",
                    "file_format": {f"{BASE}.s{depth}": "qcow2"},
                }
                disk = rig.disk()
                assert len(disk.layers) == depth + 1
                assert disk.layers[-1].format == base
                assert_sound(disk)
                assert rig.guest.read_sha256(DISK) == writer.sha256()

    def test_commit_on_three_to_eight_layers(self, make_rig: MakeRig, base: str) -> None:
        with make_rig(base) as rig:
            rig.fill_layer(0)
            for depth in range(3, 9):
                before = rig.grow_to(depth)
                top, target = before[-1 - depth // 2], before[-(depth // 2)]
                with rig.writer(depth) as writer:
                    said = rig.delete(top, target)
                    writer.wait_for(5)
                assert said.code == 0, said
                expected = base if target == BASE else "qcow2"
                assert said.status == {
                    "status": "deleting_compute_complete",
                    "progress": "90%",
                    "file_format": {target: expected},
                }
                assert rig.files() == [file for file in before if file != top]
                self._holds(rig, writer.sha256())

    @pytest.mark.parametrize("depth", [2, 3, 8])
    def test_pull_whole_chain(self, make_rig: MakeRig, base: str, depth: int) -> None:
        with make_rig(base) as rig:
            rig.grow(depth)
            active = rig.files()[0]
            with rig.writer(depth) as writer:
                said = rig.delete(None, None)
                writer.wait_for(5)
            assert said.code == 0, said
            assert said.status["file_format"] == {active: "qcow2"}
            assert rig.files() == [active]
            assert read_header(str(rig.folder / active)).backing_file is None
            self._holds(rig, writer.sha256())

    def test_pull_down_to_a_base_on_three_to_eight_layers(
        self, make_rig: MakeRig, base: str
    ) -> None:
        with make_rig(base) as rig:
            rig.fill_layer(0)
            for depth in range(3, 9):
                files = rig.grow_to(depth)
                new_base = files[-1 - (depth - 3) // 2]
                with rig.writer(depth) as writer:
                    said = rig.delete(new_base, None)
                    writer.wait_for(5)
                assert said.code == 0, said
                expected = base if new_base == BASE else "qcow2"
                assert said.status["file_format"] == {files[0]: "qcow2", new_base: expected}
                assert rig.files() == [files[0], *files[files.index(new_base) :]]
                self._holds(rig, writer.sha256())

    def test_active_commit_of_eight_layers_down_to_one(self, make_rig: MakeRig, base: str) -> None:
        with make_rig(base) as rig:
            rig.grow(8)
            content = rig.guest.read_sha256(DISK)
            for depth in range(8, 1, -1):
                files = rig.files()
                with rig.writer_over_a_pivot(depth) as writer:
                    said = rig.cli("delete", DISK, f"s{depth - 1}", "-o", "json")
                    writer.wait_for(5)
                assert said.code == 0, said
                expected = base if depth == 2 else "qcow2"
                assert said.json["file_format"] == {files[1]: expected}
                assert rig.files() == files[1:]
                assert_sound(rig.disk())
                content = writer.sha256()
                assert rig.guest.read_sha256(DISK) == content
            self._holds(rig, content)

    def test_commit_of_several_layers_at_once(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(5)
            before = rig.guest.read_sha256(DISK)
            said = rig.delete(f"{BASE}.s3", BASE)
            assert said.status["file_format"] == {BASE: "raw"}
            assert rig.files() == [f"{BASE}.s4", BASE]
            self._holds(rig, before)

    def test_create_and_delete_over_and_over(self, make_rig: MakeRig) -> None:
        """Left-over nodes of earlier merges must not be in the way of later ones."""
        with make_rig("raw") as rig:
            for round_ in range(3):
                rig.create("a")
                rig.guest.write(DISK, round_ * MIB, 65536, round_ + 1)
                rig.create("b")
                assert rig.delete(f"{BASE}.a", BASE).code == 0
                assert rig.cli("delete", DISK, "b", "--remove-file").code == 0
                assert rig.files() == [BASE]
                (rig.folder / f"{BASE}.a").unlink()
            assert_sound(rig.disk())

    def test_legacy_dialect(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            info = json.dumps({"type": "qcow2", "new_file": f"{BASE}.l", "snapshot_id": "l"})
            said = rig.cli("volume-snapshot-create", "--dialect", "legacy", SERIAL, info)
            assert said.status == {"status": "creating", "progress": "90%"}

    def test_asked_for_again(self, make_rig: MakeRig) -> None:
        """Who was killed before its one line, or lost it: the guest writes to the overlay."""
        with make_rig("raw") as rig:
            info = json.dumps({"type": "qcow2", "new_file": f"{BASE}.a", "snapshot_id": "a"})
            said = [rig.cli("volume-snapshot-create", SERIAL, info) for _ in range(2)]
            assert [one.code for one in said] == [0, 4]
            assert said[1].status == {"status": "creating", "progress": "0%"}
            assert "the guest writes to it" in said[1].err
            assert rig.files() == [f"{BASE}.a", BASE]
            wrong = json.dumps({"type": "qcow2", "new_file": BASE, "snapshot_id": "a"})
            assert rig.cli("volume-snapshot-create", SERIAL, wrong).status["status"] == "error"

    def test_asked_for_again_with_its_token(self, make_rig: MakeRig) -> None:
        """Whoever lost the answer gets it, and nothing is done again."""
        with make_rig("raw") as rig:
            made = {"type": "qcow2", "new_file": f"{BASE}.a", "snapshot_id": "a", "id": "one"}
            merged = {"type": "qcow2", "file_to_merge": None, "merge_target_file": None}
            create = ("volume-snapshot-create", SERIAL, json.dumps(made))
            delete = (
                "volume-snapshot-delete",
                SERIAL,
                "a",
                json.dumps({**merged, "operation": "two"}),
            )
            for command in (create, delete):
                said = [rig.cli(*command) for _ in range(2)]
                assert [one.code for one in said] == [0, 0], said
                assert said[0].status == said[1].status
                assert said[0].status["progress"] == "90%"
            assert rig.files() == [f"{BASE}.a"]
            # Another request is carried out; of another token nothing is remembered.
            statuses = []
            for token in ("one", "three"):
                other = json.dumps({**made, "new_file": f"{BASE}.b", "id": token})
                statuses.append(rig.cli("volume-snapshot-create", SERIAL, other).status)
            assert rig.files() == [f"{BASE}.b", f"{BASE}.a"]
            assert [one["status"] for one in statuses] == ["creating_compute_complete", "creating"]

    def test_list_names_what_create_made(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            assert rig.cli("create", DISK, "before-upgrade").code == 0
            listed = rig.cli("list", "-o", "json").json
            assert [one["name"] for one in listed["snapshots"]] == ["before-upgrade"]
            assert listed["snapshots"][0]["data"] == BASE

    def _holds(self, rig: Rig, content: str) -> None:
        """
        Headers, formats and content are right while it runs, and in the files if it ended now.

        They are copied to another folder, where their relative names must lead to each other.
        """
        disk = rig.disk()
        assert_sound(disk)
        assert rig.guest.read_sha256(DISK) == content
        rig.guest.qemu_io(DISK, "flush")  # what the guest itself wrote is the guest's to flush
        active = disk.layers[0]
        assert active.format is not None
        with TemporaryDirectory(dir=rig.folder) as folder:
            for layer in disk.layers:
                assert layer.path is not None
                shutil.copy(layer.path, folder)
            assert images.sha256_of(Path(folder, active.file), active.format) == content


class TestDurability:
    """A merge that is reported as done survives the end of QEMU in the next moment."""

    @situation(
        "QEMU is killed right after a pull",
        happens="nothing is lost: the pulled data is flushed before the delete is reported as done",
        code=0,
        then="Start the guest again.",
        pain=7,
    )
    @pytest.mark.parametrize("round_", range(3))
    def test_pull_then_kill(self, make_rig: MakeRig, round_: int) -> None:
        with make_rig("raw", size=16 * MIB) as rig:
            rig.guest.write(DISK, 0, 16 * MIB, round_ + 1)
            rig.create("s1")
            content = rig.guest.read_sha256(DISK)
            with rig.host() as host:
                merge.delete(
                    host, DeleteRequest(disk=SERIAL, file_to_merge=None, merge_target_file=None)
                )
                rig.kill()
            assert images.sha256_of(rig.folder / f"{BASE}.s1", "qcow2") == content


class TestCancelled:
    """Somebody else cancels the job."""

    def test_cancel_after_ready_is_no_success(self, make_rig: MakeRig) -> None:
        """Ends with BLOCK_JOB_COMPLETED and no error: only the graph tells."""
        with make_rig("raw") as rig:
            rig.grow(2)
            content = rig.guest.read_sha256(DISK)
            before = rig.files()
            cancelled = False

            def on_progress(plan: object, view: JobView) -> None:
                nonlocal cancelled
                if view.status == "ready" and not cancelled:
                    cancelled = True
                    _cancel_softly(rig)

            with rig.host() as host, pytest.raises(QmpsnapError) as caught:
                merge.delete(host, NamedDeleteRequest(disk=DISK, snapshot="s1"), on_progress)
            assert cancelled
            assert caught.value.exit_code == 5, caught.value
            assert rig.files() == before
            assert_sound(rig.disk())
            assert rig.guest.read_sha256(DISK) == content
            assert rig.cli("delete", DISK, "s1").code == 0  # and it can be done again


def _cancel_softly(rig: Rig) -> None:
    """As another client of the same QEMU, or of libvirt, which aborts without a pivot."""
    if isinstance(rig.guest, LibvirtMachine):
        rig.guest.domain.blockJobAbort(DISK, 0)
    else:
        jobs = rig.guest.qmp("query-jobs")
        assert isinstance(jobs, list)
        rig.guest.qmp("block-job-cancel", {"device": jobs[0]["id"]})


class TestAttack:
    """A guest writes image headers into its raw disk."""

    @pytest.mark.parametrize("payload", ["plain", "backing", "data-file"])
    def test_raw_stays_raw(self, make_rig: MakeRig, payload: str, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"somebody else's\n" * 4096)
        header = images.foreign_qcow2_header(
            SIZE,
            backing=bytes(secret) if payload == "backing" else None,
            data_file=bytes(secret) if payload == "data-file" else None,
        )
        with make_rig("raw") as rig:
            rig.guest.write_bytes(DISK, 0, header)
            content = rig.guest.read_sha256(DISK)
            assert _formats(rig) == {BASE: "raw"}
            rig.create("s1")
            assert _formats(rig) == {f"{BASE}.s1": "qcow2", BASE: "raw"}
            assert read_header(str(rig.folder / f"{BASE}.s1")).backing_format == "raw"
            rig.create("s2")
            rig.guest.write_bytes(DISK, 0, header)  # through the overlay, into the base by commit
            said = rig.delete(f"{BASE}.s1", BASE)
            assert said.status["file_format"] == {BASE: "raw"}
            assert _formats(rig) == {f"{BASE}.s2": "qcow2", BASE: "raw"}
            assert read_header(str(rig.folder / f"{BASE}.s2")).backing_format == "raw"
            assert rig.cli("delete", DISK, "s2").code == 0
            assert _formats(rig) == {BASE: "raw"}
            assert rig.guest.read_sha256(DISK) == content


def _formats(rig: Rig) -> dict[str, str]:
    document = rig.cli("chain", "-o", "json").json
    assert document["schema"] == "qmpsnap.chain/1"
    layers = document["disks"][0]["layers"]
    assert all(layer["verdict"] in ("exact", "agreed") for layer in layers)
    return {layer["file"]: layer["format"] for layer in layers}
