"""
What a libvirt has found out of each QEMU, for the next libvirt that a test starts.

To ask a QEMU takes two seconds, most of them waiting. libvirt asks again by itself where the program,
the kernel or libvirt is another one than was written down.

Source: libvirt's src/qemu/qemu_capabilities.c (virQEMUCapsIsValid).
"""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


@cache
def _kept() -> Path:
    folder = Path(mkdtemp(prefix="qmpsnap-caps-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "capabilities"


def give(folder: Path) -> None:
    """Copy what is known into the folder `capabilities` of a libvirt that has not been started."""
    if _kept().exists():
        shutil.copytree(_kept(), folder)


def keep(folder: Path) -> None:
    """Take over what a libvirt has found out."""
    if not _kept().exists() and any(folder.glob("*.xml")):
        shutil.copytree(folder, _kept())
