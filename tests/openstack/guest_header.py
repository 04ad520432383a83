"""The header of a qcow2 image, written by a guest into its raw volume."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.openstack.rig.rig import Rig


def with_header(rig: Rig, folder: Path, *options: str) -> str:
    """
    A raw volume into which its guest has written such a header.

    Args:
        rig: Where.
        folder: For the image that it is taken from.
        options: Of `qemu-img create`; `{volume}` is the volume's id.
    """
    volume = rig.create_volume()
    image = folder / "header.qcow2"
    given = [one.format(volume=volume) for one in options]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *given, image, "1G"], check=True)
    with (rig.share / f"volume-{volume}").open("r+b") as file:
        file.write(image.read_bytes()[:65536])
    return volume
