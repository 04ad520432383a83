"""An image beside a chain, and what the tool itself does to the file that it rests on."""

from __future__ import annotations

from pathlib import Path

from tests.rig import images
from tests.rig.rig import BASE, DISK, SIZE, Rig
from tests.rig.roads import MakeRig
from tests.rig.waiting import until


def is_later_now(image: Path) -> None:
    """Wait until a file that is written now is younger than the image."""

    def tick() -> bool:
        probe = image.with_name("probe")
        probe.write_bytes(b"")
        found = probe.stat().st_mtime_ns > image.stat().st_ctime_ns
        probe.unlink()
        return found

    until(tick)


def cloned(rig: Rig) -> tuple[Path, str]:
    """A chain of four layers, and a clone that rests on the second; with its content."""
    rig.grow(4)
    clone = rig.folder / "clone.qcow2"
    images.create_qcow2(clone, SIZE, f"{BASE}.s2", "qcow2")
    is_later_now(clone)
    return clone, images.sha256_of(clone, "qcow2")


def test_that_the_tool_wrote_to_the_file_does_not_make_a_clone_left_over(
    make_rig: MakeRig,
) -> None:
    """The deletion of a lower snapshot writes a header, and changes nothing that is read."""
    with make_rig("raw") as rig:
        clone, content = cloned(rig)
        said = rig.cli("delete", DISK, "s1", "--method", "commit")
        assert said.code == 0, said
        assert images.sha256_of(clone, "qcow2") == content
        said = rig.cli("delete", DISK, "s3", "--method", "commit")
        assert said.code == 4, said
        assert f"{clone}, by its header" in said.err
        assert images.sha256_of(clone, "qcow2") == content


def test_what_a_clone_of_a_left_over_file_needs_is_not_removed(make_rig: MakeRig) -> None:
    """Only what an earlier merge has left names the file; but the clone rests on that."""
    with make_rig("raw") as rig:
        clone, content = cloned(rig)
        said = rig.cli("delete", DISK, "s2", "--method", "commit", "--remove-file")
        assert said.code == 0, said
        assert f"{BASE}.s2 was not removed" in said.out + said.err
        said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 0, said
        assert f"{BASE}.s1 was not removed" in said.out + said.err
        assert images.sha256_of(clone, "qcow2") == content
