"""A libvirt for the layouts: that of `--libvirt-uri`, or the driver inside this process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.monitor.virt import open_connection
from tests.support.reaper import adopt_qemus


@pytest.fixture(scope="session")
def connection(pytestconfig: pytest.Config) -> Iterator[Any]:
    """One connection for all: a new embedded driver probes QEMU for 4 s."""
    uri = pytestconfig.getoption("--libvirt-uri")
    if uri is not None:
        with closing(open_connection(uri)) as connection:
            yield connection
        return
    adopt_qemus()
    root = tempfile.mkdtemp(prefix="qs-", dir="/var/tmp")
    try:
        with embedded_connection(root) as connection:
            yield connection
    finally:
        shutil.rmtree(root, ignore_errors=True)
