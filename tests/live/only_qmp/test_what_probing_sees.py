"""Headers as the real qemu-img writes them are recognised inside a raw file."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.findings.image_headers import READ_SIZE, looks_like
from qmpsnap.guests.files import qemu_img


@pytest.mark.parametrize(
    "format_", ["qcow", "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels"]
)
def test_what_qemu_img_makes(tmp_path: Path, format_: str) -> None:
    file = str(tmp_path / "image")
    qemu_img.run("create", file, "-f", format_, file, "4M")
    assert looks_like(Path(file).read_bytes()[:READ_SIZE]) == format_


def test_a_split_vmdk(tmp_path: Path) -> None:
    file = str(tmp_path / "image.vmdk")
    qemu_img.run("create", file, "-f", "vmdk", "-o", "subformat=monolithicFlat", file, "4M")
    assert looks_like(Path(file).read_bytes()[:READ_SIZE]) == "vmdk"
