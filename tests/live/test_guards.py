"""What a merge would harm, on both roads: refused, nothing changed, and done when asked by name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.rig import images
from tests.rig.beside import device_or_skip
from tests.rig.guards import (
    read_by_another_process,
    refused,
    refused_then_done,
    resize,
)
from tests.rig.jobs import ACTIVE, TOP, fill, make_chain, small_file_system
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB
from tests.rig.roads import MakeRig, Road, chain_rig
from tests.rig.situations import situation


class TestGuards:
    """Each refuses alone; no other guard holds in the same guest."""

    @situation(
        "Another guest, a backup or an NBD server reads the file that would be written",
        happens="refused",
        code=4,
        then="Pull instead, or end the other reader first.",
        pain=4,
        kind=2,
    )
    def test_another_process_reads_the_base(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            with read_by_another_process(rig.folder / BASE, "qcow2"):
                refused_then_done(rig, "shared-base", "qemu-nbd (pid ")

    def test_another_process_reads_a_layer_that_rests_on_the_base(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            with read_by_another_process(rig.folder / f"{BASE}.s1", "qcow2"):
                refused(rig, "shared-base", f"{BASE}.s1 is also read by")

    def test_a_loop_device_reads_the_base(self, make_rig: MakeRig) -> None:
        """The kernel does, and no process."""
        with make_rig("qcow2") as rig, device_or_skip(rig.folder / BASE) as device:
            rig.grow(3)
            refused_then_done(rig, "shared-base", f"{BASE} is also read by {device}")

    def test_a_loop_device_reads_what_is_to_be_removed(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            with device_or_skip(rig.folder / f"{BASE}.s2") as device:
                allow = ("--allow", "shared-base")
                said = rig.cli("delete", DISK, "s2", "--method", "commit", "--remove-file", *allow)
                assert said.code == 0, said
                assert f"{BASE}.s2 is read by {device}" in said.err
                assert (rig.folder / f"{BASE}.s2").exists()

    def test_a_lower_layer_is_exported(self, make_rig: MakeRig) -> None:
        """The backend of an export has no name; it reads the file all the same."""
        with make_rig("qcow2") as rig:
            rig.grow(3)
            node, files = rig.disk().layers[2].node, rig.files()
            address = {"type": "unix", "data": {"path": str(rig.folder / "export")}}
            rig.guest.qmp("nbd-server-start", {"addr": address})
            rig.guest.qmp("block-export-add", {"type": "nbd", "id": "export", "node-name": node})
            said = rig.delete(f"{BASE}.s1", BASE)
            assert said.code == 4, said
            assert f"{BASE} is also read by another overlay, disk or export" in said.err
            assert rig.files() == files
            rig.guest.qmp("nbd-server-stop")
            assert rig.delete(f"{BASE}.s1", BASE).code == 0

    def test_somebody_reads_the_file_that_was_active(self, make_rig: MakeRig) -> None:
        """It is not taken for the guest's own QEMU, whose process is known."""
        with make_rig("qcow2") as rig:
            rig.grow(3)
            active = rig.folder / f"{BASE}.s2"
            with read_by_another_process(active, "raw"):
                said = rig.cli("delete", DISK, "s2", "--remove-file")
                assert said.code == 4, said
                assert f"{BASE}.s2 is also read by qemu-nbd (pid " in said.err
                said = rig.cli("delete", DISK, "s2", "--remove-file", "--allow", "shared-base")
                assert said.code == 0, said
                assert "is read by qemu-nbd (pid " in said.err
                assert active.exists()
            assert rig.files() == [f"{BASE}.s1", BASE]

    def test_pull_writes_nothing_that_others_read(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            with read_by_another_process(rig.folder / BASE, "raw"):
                assert rig.delete(BASE, None).code == 0

    @situation(
        "A layer that would leave the chain has dirty bitmaps",
        happens="refused",
        code=4,
        then="Make the incremental backup first, then remove the bitmaps.",
        pain=8,
    )
    def test_bitmap_that_would_be_lost(self, make_rig: MakeRig) -> None:
        """QEMU would let a persistent bitmap of the overlay go in an active commit."""
        with make_rig("raw") as rig:
            rig.grow(2)
            node = rig.disk().layers[0].node
            rig.guest.qmp(
                "block-dirty-bitmap-add", {"node": node, "name": "daily", "persistent": True}
            )
            refused_then_done(rig, "bitmaps", "(daily)")

    @situation(
        "A layer that would leave the chain holds internal snapshots",
        happens="refused",
        code=4,
        then="Copy their contents elsewhere first.",
        pain=4,
    )
    @remedy("WouldHarm/internal-snapshots")
    def test_internal_snapshot_that_would_be_lost(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            content, node = rig.guest.read_sha256(DISK), rig.disk().layers[0].node
            rig.guest.qmp("blockdev-snapshot-internal-sync", {"device": node, "name": "before"})
            rig.guest.write(DISK, 0, 65536, 99)
            said = rig.delete(f"{BASE}.s1", BASE)
            (command,) = re.findall(r"`(qemu-img convert [^`]+)`", said.err)
            copy = rig.folder / "copy"
            words = {"SNAPSHOT": "before", "COPY": str(copy)}
            subprocess.run([words.get(one, one) for one in command.split()], check=True)
            refused_then_done(rig, "internal-snapshots", "(before)")
            assert images.sha256_of(copy, "qcow2") == content

    @situation(
        "The disk was grown after the snapshot",
        happens="a commit, which would grow the base, is refused",
        code=4,
        then="Pull instead, or `--allow grow-base`.",
    )
    def test_base_that_is_smaller(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            resize(rig, 2 * rig.guest.virtual_size(DISK))
            refused_then_done(rig, "grow-base", "would grow it")

    @situation(
        "The file system has less room than a merge may need",
        happens="refused",
        code=4,
        then="Make room first.",
    )
    @remedy("WouldHarm/space")
    def test_file_system_without_room(
        self, road: Road, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        share = tmp_path / "share"
        share.mkdir()
        with small_file_system(share, 64):
            make_chain(share)
            files = [(share / ACTIVE, "qcow2"), (share / TOP, "qcow2"), (share / BASE, "raw")]
            with chain_rig(road, request, files) as rig:
                content = rig.guest.read_sha256(DISK)
                filler = fill(share, 4 * MIB)
                said = rig.delete(TOP, BASE)
                assert said.code == 4, said
                assert "--allow space" in said.err
                filler.unlink()
                assert rig.delete(TOP, BASE).code == 0
                assert rig.guest.read_sha256(DISK) == content
