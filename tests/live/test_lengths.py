"""
Layers of other lengths: what a shorter one hides stays hidden, on both roads.

A disk that is made smaller, and larger again after the next snapshot, reads zeros in between: the
layers below still hold what was there before.
"""

from __future__ import annotations

import pytest

from tests.rig.guards import resize
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation

SHORT = SIZE // 2
S1, S2 = f"{BASE}.s1", f"{BASE}.s2"


def shortened(rig: Rig) -> None:
    """s1 over the base ends in the middle of what the base holds."""
    rig.guest.write(DISK, 0, SIZE, 1)
    rig.create("s1")
    resize(rig, SHORT)
    rig.guest.write(DISK, 4096, 8192, 2)


def hides(rig: Rig) -> str:
    """As long again in s2, the disk reads zeros beyond the end of s1; returns its content."""
    shortened(rig)
    rig.create("s2")
    resize(rig, SIZE)
    rig.guest.write(DISK, SHORT + 65536, 8192, 3)
    assert rig.guest.read_all(DISK)[SHORT : SHORT + 65536] == bytes(65536)
    return rig.guest.read_sha256(DISK)


class TestShorterLayer:
    @situation(
        "A layer is shorter than the one below it: the disk was made smaller, and larger again later",
        happens="a merge is refused if the guest would then read what that layer hides",
        code=4,
        then="Pull the whole chain; or give the layer the full length while the guest is off.",
        kind=5,
    )
    @remedy("ShorterLayer")
    @pytest.mark.parametrize(("merge", "target"), [(S1, BASE), (BASE, None)])
    def test_what_it_hides_stays_hidden(
        self, make_rig: MakeRig, base: str, merge: str, target: str | None
    ) -> None:
        with make_rig(base) as rig:
            content, files = hides(rig), rig.files()
            for options in ([], ["--plan"]):
                said = rig.delete(merge, target, *options)
                assert said.code == 4, said
                assert f"{S2} would read what {BASE} holds there" in said.err
                assert "Pull the whole chain" in said.err
            assert rig.cli("delete", DISK, "s1").code == 4
            assert (rig.guest.read_sha256(DISK), rig.files()) == (content, files)
            assert rig.delete(None, None).code == 0  # the way out
            assert rig.files() == [S2]
            assert rig.guest.read_sha256(DISK) == content

    def test_merge_within_one_length(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            shortened(rig)
            rig.create("s2")
            rig.create("s3")
            rig.guest.write(DISK, 65536, 8192, 4)
            content = rig.guest.read_sha256(DISK)
            assert rig.delete(S2, S1).code == 0
            assert rig.guest.read_sha256(DISK) == content
            assert_sound(rig.disk())

    def test_zeros_of_a_layer_between_are_kept(self, make_rig: MakeRig, base: str) -> None:
        """QEMU itself minds the end of a layer that lies between the ones that are merged."""
        with make_rig(base) as rig:
            hides(rig)
            rig.create("s3")
            rig.guest.write(DISK, 65536, 8192, 4)
            content = rig.guest.read_sha256(DISK)
            assert rig.delete(S2, BASE).code == 0
            assert rig.files() == [f"{BASE}.s3", BASE]
            assert rig.guest.read_sha256(DISK) == content

    @situation(
        "The disk is smaller than the file into which its newest snapshot would be committed",
        happens="the commit is refused, because the disk would grow; `--method auto` pulls instead",
        code=4,
        then="Pull, or grow the disk first.",
        kind=5,
    )
    def test_disk_does_not_grow(self, make_rig: MakeRig, base: str) -> None:
        with make_rig(base) as rig:
            shortened(rig)
            content = rig.guest.read_sha256(DISK)
            for options in ([], ["--plan"]):
                said = rig.cli("delete", DISK, "s1", "--method", "commit", *options)
                assert said.code == 4, said
                assert "whose disk would grow" in said.err
            assert rig.files() == [S1, BASE]
            plan = rig.cli("delete", DISK, "s1", "--plan", "-o", "json")
            assert plan.json["disks"][0]["kind"] == "pull", plan
            assert rig.cli("delete", DISK, "s1").code == 0
            assert rig.files() == [S1]
            assert rig.guest.virtual_size(DISK) == SHORT
            assert rig.guest.read_sha256(DISK) == content

    @remedy("ShorterLayer")
    def test_disk_that_has_grown_first(self, make_rig: MakeRig, base: str) -> None:
        with make_rig(base) as rig:
            shortened(rig)
            said = rig.cli("delete", DISK, "s1", "--method", "commit")
            assert said.code == 4, said
            assert f"QMP `block_resize` to {SIZE}" in said.err
            resize(rig, SIZE)  # the way out
            content = rig.guest.read_sha256(DISK)
            assert rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
            assert rig.files() == [BASE]
            assert rig.guest.read_sha256(DISK) == content
