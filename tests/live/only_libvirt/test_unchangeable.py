"""Disks that libvirt would not let be changed: known before, so refused before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from qmpsnap.guests.files import qemu_img
from tests.rig import images
from tests.rig.off import Off, defined_off
from tests.rig.refusing import CREATE, merge, refused_alike
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, SIZE
from tests.rig.roads import libvirt_rig
from tests.rig.situations import situation

pytestmark = pytest.mark.libvirt


@situation(
    "A disk is `<transient/>` or `<shareable/>`",
    happens="every operation on it is refused, by `--plan` as well",
    code=4,
    then="Take that out of the guest's definition, and start it again.",
    kind=13,
)
@pytest.mark.parametrize(("mark", "words"), [("transient", "it is transient"), ("shareable", "it is shareable")])  # fmt: skip
def test_mark_of_a_disk(connection: Any, tmp_path: Path, mark: str, words: str) -> None:
    def marked(root: Any) -> None:
        disk = root.find("./devices/disk")
        disk.append(etree.Element(mark))
        disk.find("driver").set("cache", "none")  # as a shareable one needs

    images.create_raw(tmp_path / BASE, SIZE)
    with libvirt_rig(connection, tmp_path, "raw", alter=marked) as rig:
        said = refused_alike(rig, CREATE, words)
        assert f"take `<{mark}/>` out" in said.replace("Take", "take")
    with libvirt_rig(connection, tmp_path, "raw") as rig:
        assert rig.cli(*CREATE).code == 0  # the way out


@pytest.mark.parametrize(("mark", "words"), [("transient", "it is transient"), ("shareable", "it is shareable")])  # fmt: skip
def test_mark_of_a_disk_that_is_off(connection: Any, tmp_path: Path, mark: str, words: str) -> None:
    with defined_off(connection, tmp_path, "raw") as off:
        text = off.definition().replace("<target dev='vda'", f"<{mark}/><target dev='vda'")
        off.domain.connect().defineXML(text)
        refused_alike(off.rig, CREATE, words)


def absolute(folder: Path) -> None:
    """The lowest file is named by its whole path, the others relatively."""
    images.create_raw(folder / "base", SIZE)
    images.create_qcow2(folder / "m1", SIZE, folder / "base", "raw")
    images.create_qcow2(folder / "m2", SIZE, "m1", "qcow2")
    images.create_qcow2(folder / BASE, SIZE, "m2", "qcow2")


@remedy("RelativeNotKept")
@situation(
    "libvirt cannot keep a relative backing name, because a lower file is named by its whole path",
    happens="refused (`RelativeNotKept`), by `--plan` as well",
    code=4,
    then="Delete the snapshot with the guest off, or make that name relative then.",
    kind=13,
)
@pytest.mark.parametrize("command", [merge("m1", "base"), merge("base", None), merge("m2", "base")])
@pytest.mark.parametrize("way_out", ["off", "rebase"])
def test_absolute_name_below_a_relative_one(
    connection: Any, tmp_path: Path, command: tuple[str, ...], way_out: str
) -> None:
    absolute(tmp_path)
    with libvirt_rig(connection, tmp_path, "qcow2") as rig:
        said = refused_alike(rig, command, "can't keep relative backing relationship")
        assert f"qemu-img rebase -u -f qcow2 -b NAME -F FORMAT {tmp_path / 'm1'}" in said
    if way_out == "rebase":
        words = ["-u", "-f", "qcow2", "-b", "base", "-F", "raw", str(tmp_path / "m1")]
        qemu_img.run("rebase", words[-1], *words)
        with libvirt_rig(connection, tmp_path, "qcow2") as rig:
            assert rig.cli(*command).code == 0
        return
    with off_over(connection, tmp_path) as off:
        assert off.rig.cli(*command).code == 0


@contextmanager
def off_over(connection: Any, folder: Path) -> Iterator[Off]:
    """A guest that is off, over the chain that is there."""
    (folder / BASE).rename(folder / "kept")
    with defined_off(connection, folder, "qcow2") as off:
        (folder / "kept").rename(folder / BASE)
        yield off
