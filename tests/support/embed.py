"""The session's connection to libvirt's QEMU driver inside this process (`qemu:///embed`)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from qmpsnap.demo import libvirt_guest


@pytest.fixture(scope="session")
def connection() -> Iterator[Any]:
    """One driver for all tests: it probes QEMU for 4 s when its folder is new."""
    root = tempfile.mkdtemp(prefix="qs-", dir="/var/tmp")
    try:
        with libvirt_guest.embedded_connection(root) as connection:
            yield connection
    finally:
        shutil.rmtree(root, ignore_errors=True)
