"""What takes seconds to make and is the same in each rig of this process: made once, and copied."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from tests.openstack.rig.databases import is_sqlite, make_tables
from tests.rig import capabilities

_DATABASE: Final = "cinder.sqlite"
_CAPABILITIES: Final = "libvirt/cache/qemu/capabilities"


@cache
def _database() -> Path:
    folder = Path(mkdtemp(prefix="qmpsnap-rigs-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / _DATABASE


def copy(folder: Path) -> None:
    """Put what is there into a rig that is configured and not started."""
    if is_sqlite(folder):
        if not _database().exists():
            make_tables(folder)
            shutil.copy(folder / _DATABASE, _database())
        shutil.copy(_database(), folder)
    capabilities.give(folder / _CAPABILITIES)


def keep(folder: Path) -> None:
    """Keep what the libvirtd of a rig that is up has found out."""
    capabilities.keep(folder / _CAPABILITIES)
