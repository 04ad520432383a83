"""What a merge would harm, on both roads: refused, nothing changed, and done when asked by name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.operations import MakeRig
from tests.support.rig import BASE, DISK, Rig, assert_sound
from tests.support.situations import situation


def refused(rig: Rig, guard: str, *words: str) -> None:
    """Refuse the merge of s1 into the base for one reason, with nothing changed."""
    content, files = rig.guest.read_sha256(DISK), rig.files()
    said = rig.delete(f"{BASE}.s1", BASE)
    assert (said.code, said.status["status"]) == (4, "error_deleting"), said
    assert f"--allow {guard}" in said.err
    assert all(word in said.err for word in words), said.err
    assert (rig.guest.read_sha256(DISK), rig.files()) == (content, files)


def refused_then_done(rig: Rig, guard: str, *words: str) -> None:
    """Refuse the merge, and do it when that is allowed."""
    content = rig.guest.read_sha256(DISK)
    refused(rig, guard, *words)
    done = rig.delete(f"{BASE}.s1", BASE, "--allow", guard)
    assert done.code == 0, done
    assert rig.guest.read_sha256(DISK) == content
    assert_sound(rig.disk())


@contextmanager
def read_by_another_process(path: Path, format: str) -> Iterator[None]:
    """An NBD server of another guest, or of a backup, reads the file."""
    # Without force-share its lock would keep the guest from writing, and nothing would be shown.
    image = f"driver={format},force-share=on,read-only=on,file.driver=file,file.filename={path}"
    command = ["qemu-nbd", "-r", "-t", "-k", f"{path}.nbd", "--image-opts", image]
    with subprocess.Popen(command) as server:
        try:
            while not Path(f"{path}.nbd").exists():
                assert server.poll() is None
            yield
        finally:
            server.terminate()


class Guards:
    """Each refuses alone; no other guard holds in the same guest."""

    @situation(
        "Another guest, a backup or an NBD server reads the file that would be written",
        happens="refused",
        code=4,
        then="Pull instead, or end the other reader.",
        pain=4,
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

    def test_pull_writes_nothing_that_others_read(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            with read_by_another_process(rig.folder / BASE, "raw"):
                assert rig.delete(BASE, None).code == 0

    @situation(
        "A layer that would leave the chain has dirty bitmaps",
        happens="refused",
        code=4,
        then="Make the backup first, then remove the bitmaps.",
        pain=8,
    )
    def test_bitmap_that_would_be_lost(self, make_rig: MakeRig) -> None:
        """peers.md: a persistent bitmap on the overlay is gone after an active commit."""
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
        then="Copy what they hold elsewhere first.",
        pain=4,
    )
    def test_internal_snapshot_that_would_be_lost(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            node = rig.disk().layers[0].node
            rig.guest.qmp("blockdev-snapshot-internal-sync", {"device": node, "name": "before"})
            refused_then_done(rig, "internal-snapshots", "(before)")

    @situation(
        "The disk was grown after the snapshot",
        happens="a commit, which would grow the base, is refused",
        code=4,
        then="Pull instead, or `--allow grow-base`.",
    )
    def test_base_that_is_smaller(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            self.grow_disk(rig, 2 * rig.guest.virtual_size(DISK))
            refused_then_done(rig, "grow-base", "would grow it")

    def grow_disk(self, rig: Rig, size: int) -> None:
        rig.guest.qmp("block_resize", {"node-name": rig.disk().layers[0].node, "size": size})
