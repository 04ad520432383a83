"""What a merge would harm, on both roads: refused, nothing changed, and done when asked by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.graph.wire import VersionInfo, parse
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.beside import device_or_skip
from tests.rig.guards import (
    beside_a_link,
    read_by_another_process,
    refused,
    refused_then_done,
    resize,
)
from tests.rig.jobs import ACTIVE, TOP, fill, make_chain, small_file_system
from tests.rig.refusing import by_name, refused_alike
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, assert_sound
from tests.rig.roads import MakeRig, Road, chain_rig
from tests.rig.share import write_qcow2
from tests.rig.situations import situation

Commands = list[tuple[str, dict[str, Any]]]


def _major(reply: object) -> int:
    return parse("query-version", reply, VersionInfo).qemu.major


def _node(**options: Any) -> Commands:
    return [("blockdev-add", {"node-name": "other", "read-only": True, **options})]


READERS: Final[dict[str, Callable[[str, str], Commands]]] = {
    "a node of its own": lambda _node_, _protocol: _node(
        driver="qcow2", file={"driver": "file", "filename": "BASE"}
    ),
    "a part of the file": lambda _node_, protocol: _node(
        driver="raw", offset=0, size=65536, file=protocol
    ),
    "a part of what it holds": lambda node, _protocol: _node(
        driver="raw", offset=0, size=65536, file=node
    ),
    "a quorum": lambda node, _protocol: _node(
        driver="quorum", children=[node, node], **{"vote-threshold": 1}
    ),
}
"""What opens a node `other` that reads the base, by its node and that of its file."""


def failing_at(does: Does, take: Callable[[Any, Step], object]) -> Callable[[Any, Step], object]:
    """QEMU, or libvirt, refuses one act."""

    def taken(guest: Any, step: Step) -> object:
        if step.does is does:
            raise CommandFailed(step.what, "GenericError", "no")
        return take(guest, step)

    return taken


def fails_to_create(rig: Rig, monkeypatch: pytest.MonkeyPatch, snapshot: str) -> None:
    """Ask for a snapshot whose switch is refused."""
    with monkeypatch.context() as patch:
        for kind in (QmpGuest, LibvirtGuest):
            patch.setattr(kind, "take", failing_at(Does.SWITCH, kind.take))
        said = rig.cli("create", DISK, snapshot)
    assert said.code == 1, said


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

    @situation(
        "An image beside the chain rests on the file that would be written, by its header alone: "
        "the clone of a guest that is off and known to nobody here, or what somebody else's "
        "`revert` has kept",
        happens="refused, if that image was made or last written at the time of the file's last "
        "change or later, or if that time is still to come; what the journal knows to be left over "
        "does not count",
        code=4,
        then="Pull instead, or remove the image if nobody needs it.",
        pain=4,
        kind=2,
    )
    def test_an_image_beside_it_rests_on_the_base(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            clone = rig.folder / "clone.qcow2"
            images.create_qcow2(clone, SIZE, BASE, "raw")
            rig.create("s1")
            rig.guest.write(DISK, 0, 65536, 7)
            content = images.sha256_of(clone, "qcow2")
            refused(rig, "shared-base", f"{clone}, by its header")
            assert images.sha256_of(clone, "qcow2") == content
            said = rig.cli("delete", DISK, "s1", "--method", "pull", "--remove-file")
            assert said.code == 0, said
            assert (rig.folder / BASE).exists()
            assert images.sha256_of(clone, "qcow2") == content

    def test_a_state_of_the_running_guest_that_is_kept(self, make_rig: MakeRig) -> None:
        """Its overlay was made before the switch, at which QEMU writes the tables of the base."""
        with make_rig("qcow2") as rig:
            rig.guest.write(DISK, 0, 65536, 7)
            kept = rig.folder / "monday"
            images.create_qcow2(kept, SIZE, BASE, "qcow2")
            rig.create("s1")
            assert kept.stat().st_mtime_ns < (rig.folder / BASE).stat().st_mtime_ns
            images.write(kept, "qcow2", 65536, 65536, 9)
            rig.guest.write(DISK, 0, 65536, 8)
            content = images.sha256_of(kept, "qcow2")
            refused(rig, "shared-base", f"{kept}, by its header")
            assert images.sha256_of(kept, "qcow2") == content

    @situation(
        "An image beside the chain rests on the file that would be written, by its header alone, "
        "and was last written before that file: left over by a merge, or a clone of which only "
        "the file's time says so (`touch`, a bitmap that was added, `qemu-img amend`)",
        happens="the merge is done; unless the journal knows the image to be left over, a note "
        "names it and says so, in the result and, before anything is done, with `--plan`",
        code=0,
        then="Give `--plan` first. Look at the image; where somebody needs it, pull instead, or "
        "copy it away first.",
        kind=2,
    )
    @pytest.mark.parametrize("is_known", [False, True])
    def test_taken_for_left_over_by_its_time(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, is_known: bool
    ) -> None:
        with make_rig("raw") as rig:
            made = rig.folder / f"{BASE}.made"
            images.create_qcow2(made, SIZE, BASE, "raw")
            if is_known:
                fails_to_create(rig, monkeypatch, "made")
            rig.create("s1")
            os.utime(rig.folder / BASE)
            words = f"only because {BASE} was written later: {made}; if somebody needs one"
            planned = rig.cli("delete", DISK, "s1", "--plan")
            assert (planned.code, words in planned.out) == (0, not is_known), planned
            said = rig.cli("delete", DISK, "s1")
            assert (said.code, words in said.err) == (0, not is_known), said

    def test_an_image_beside_the_file_that_a_link_leads_to(
        self, road: Road, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        images.create_qcow2(tmp_path / BASE, SIZE)
        clone = beside_a_link(tmp_path / BASE)
        with chain_rig(road, request, [(tmp_path / BASE, "qcow2")]) as rig:
            rig.create("s1")
            rig.guest.write(DISK, 0, 65536, 7)
            content = images.sha256_of(clone, "qcow2")
            refused(rig, "shared-base", f"{clone}, by its header")
            assert images.sha256_of(clone, "qcow2") == content

    def test_an_image_beside_it_rests_on_what_is_to_become_the_overlay(
        self, make_rig: MakeRig
    ) -> None:
        with make_rig("raw") as rig:
            overlay, leaf = rig.folder / f"{BASE}.mid", rig.folder / "leaf"
            images.create_qcow2(overlay, SIZE, BASE, "raw")
            images.create_qcow2(leaf, SIZE, overlay.name, "qcow2")
            refused_alike(rig, by_name("create", "mid"), f"it is used by {leaf}, by its header")
            leaf.unlink()
            assert rig.cli("create", DISK, "mid").code == 0

    @pytest.mark.parametrize("with_journal", [True, False])
    def test_what_a_merge_has_left_does_not_count(
        self,
        make_rig: MakeRig,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
        with_journal: bool,
    ) -> None:
        other = tmp_path_factory.mktemp("state")
        other.chmod(0o700)
        with make_rig("raw") as rig:
            rig.create("s1")
            with monkeypatch.context() as patch:
                if not with_journal:
                    patch.setenv("QMPSNAP_STATE", str(other))
                assert rig.delete(f"{BASE}.s1", BASE).code == 0
            left = rig.folder / f"{BASE}.s1"
            assert left.exists()
            if not with_journal:  # then it has to be older, by what the guest has written since
                rig.guest.write(DISK, 0, 65536, 7)
            rig.create("s2")
            said = rig.delete(f"{BASE}.s2", BASE)
            assert said.code == 0, said
            assert (f"written later: {left}; if" in said.err) is not with_journal

    @situation(
        "An image beside the chain rests on a layer that an earlier merge has left there, and "
        "through it on the file that would be written",
        happens="refused, whatever its times are",
        code=4,
        then="Pull instead, or remove the image if nobody needs it.",
        pain=4,
        kind=2,
    )
    def test_a_clone_of_what_a_merge_has_left(self, make_rig: MakeRig) -> None:
        """It reads the base through that file; the merge changed nothing for it, the next would."""
        with make_rig("raw") as rig:
            rig.create("s1")
            rig.create("s2")
            clone = rig.folder / "clone"
            images.create_qcow2(clone, SIZE, f"{BASE}.s1", "qcow2")
            assert rig.delete(f"{BASE}.s1", BASE).code == 0
            rig.guest.write(DISK, 0, 65536, 7)
            rig.create("s3")
            said = rig.delete(f"{BASE}.s2", BASE)
            assert said.code == 4, said
            assert "clone" in said.err

    @pytest.mark.parametrize("is_known", [True, False])
    def test_what_a_failed_create_has_left(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, is_known: bool
    ) -> None:
        """The volume service had made it, and removes it itself; the guest may write nothing."""
        with make_rig("raw") as rig:
            made = rig.folder / f"{BASE}.made"
            images.create_qcow2(made, SIZE, BASE, "raw")

            if is_known:
                fails_to_create(rig, monkeypatch, "made")
                assert made.exists()
            rig.create("s1")
            said = rig.delete(f"{BASE}.s1", BASE)
            assert said.code == (0 if is_known else 4), said

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

    @situation(
        "The guest's own QEMU reads the file that would be written by a node of another disk: one "
        "more disk on the same template, a part of the file, a quorum",
        happens="refused",
        code=4,
        then="Pull instead, or take the other node away first.",
        pain=4,
        kind=2,
    )
    @pytest.mark.parametrize("how", READERS)
    def test_another_node_reads_the_base(self, make_rig: MakeRig, how: str) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            base, files = rig.disk().layers[2], rig.files()
            for command, arguments in READERS[how](str(base.node), str(base.protocol_node)):
                text = json.dumps(arguments).replace("BASE", str(rig.folder / BASE))
                rig.guest.qmp(command, json.loads(text))
            said = rig.delete(f"{BASE}.s1", BASE)
            assert said.code == 4, said
            assert f"{BASE} is also read by another overlay, disk or export" in said.err
            assert rig.files() == files
            rig.guest.qmp("blockdev-del", {"node-name": "other"})
            assert rig.delete(f"{BASE}.s1", BASE).code == 0

    def test_a_filter_that_nobody_reads_reads_nothing(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            node = rig.disk().layers[2].node
            idle = {"driver": "blkdebug", "node-name": "idle", "read-only": True, "image": node}
            rig.guest.qmp("blockdev-add", idle)
            assert "shared-base" not in rig.disk().layers[2].flags

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

    @situation(
        "An image beside the chain rests on a file that is to be removed, and no guest that could "
        "be asked names it: a clone that is off, or what `revert` has kept when the journal is lost",
        happens="the merge is done, and the file is kept; a note names the image",
        code=0,
        then="Remove the file when nobody needs the image any more.",
        kind=2,
    )
    @remedy("StillNamed")
    @pytest.mark.parametrize("name", ["{0}", "./{0}", "{1}", "file:{1}"])
    @pytest.mark.parametrize("kind", ["commit", "pull"])
    def test_an_image_beside_it_rests_on_what_is_to_be_removed(
        self, make_rig: MakeRig, kind: str, name: str
    ) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(2 if kind == "pull" else 3)
            left = rig.folder / (BASE if kind == "pull" else f"{BASE}.s1")
            clone = rig.folder / "clone"
            write_qcow2(clone, name.format(left.name, left), "qcow2")
            said = rig.cli("delete", DISK, "s1", "--method", kind, "--remove-file")
            assert said.code == 0, said
            assert f"{left} is the backing file of {clone}, by its header" in said.err
            assert left.exists()
            assert str(left) not in rig.disk().paths
            content = rig.guest.read_sha256(DISK)
            clone.unlink()
            left.unlink()
            assert rig.guest.read_sha256(DISK) == content

    @situation(
        "What is to be removed is named by a symbolic link",
        happens="the merge is done, and link and file are kept; a note says where it leads",
        code=0,
        then="Remove both when nobody needs the file any more.",
        kind=2,
    )
    @remedy("NamedByLink")
    def test_the_name_is_a_link(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            name, file = rig.folder / f"{BASE}.s1", rig.folder / "elsewhere"
            name.rename(file)
            name.symlink_to(file)
            said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
            assert said.code == 0, said
            assert f"{name} was not removed: {name} is a symbolic link to {file}" in said.err
            assert (name.is_symlink(), file.exists()) == (True, True)
            content = rig.guest.read_sha256(DISK)
            name.unlink()
            file.unlink()
            assert rig.guest.read_sha256(DISK) == content

    @pytest.mark.parametrize("is_written", [False, True])
    def test_what_a_merge_has_left_keeps_nothing(self, make_rig: MakeRig, is_written: bool) -> None:
        """By the journal; unless somebody has written to it since."""
        with make_rig("qcow2") as rig:
            rig.grow(4)
            left, below = rig.folder / f"{BASE}.s2", rig.folder / f"{BASE}.s1"
            assert rig.cli("delete", DISK, "s2").code == 0
            if is_written:
                later = time.time() + 60
                os.utime(left, (later, later))
            said = rig.cli("delete", DISK, "s1", "--remove-file")
            assert said.code == 0, said
            assert below.exists() is is_written
            assert (f"{below} is the backing file of {left}" in said.err) is is_written

    def test_what_only_mentions_a_file_keeps_none(self, make_rig: MakeRig) -> None:
        """A list of the folder, or a raw disk in which a guest has written a name."""
        with make_rig("qcow2") as rig:
            rig.grow(3)
            (rig.folder / "list").write_text(f"{BASE}\n{BASE}.s1\n")
            said = rig.cli("delete", DISK, "s1", "--remove-file")
            assert said.code == 0, said
            assert not (rig.folder / f"{BASE}.s1").exists()

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
        "The overlay has subclusters (extended_l2), and QEMU is older than 9.0",
        happens="a pull, which may crash QEMU, is refused",
        code=4,
        then="Merge downward: `--method commit`.",
    )
    @remedy("WouldHarm/subclusters")
    def test_pull_into_subclusters(self, make_rig: MakeRig) -> None:
        """QEMU 7.2 ends here: "Assertion `skip_bytes < pnum' failed"."""
        with make_rig("raw") as rig:
            rig.guest.write(DISK, 0, 4 * MIB, 98)
            overlay = rig.folder / f"{BASE}.s1"
            images.create_qcow2(
                overlay, rig.guest.virtual_size(DISK), BASE, "raw", subclusters=True
            )
            rig.create("s1")
            rig.guest.write(DISK, 0, 512, 99)
            content = rig.guest.read_sha256(DISK)
            survives = _major(rig.guest.qmp("query-version")) >= 9
            said = rig.cli("delete", DISK, "s1", "--method", "pull", "-o", "json")
            assert said.code == (0 if survives else 4), said
            if not survives:
                assert "--allow subclusters" in said.err
                assert rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
            assert rig.guest.read_sha256(DISK) == content
            assert_sound(rig.disk())
            if survives:
                pytest.skip("this QEMU can, and has")

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
