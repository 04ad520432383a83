"""A libvirt for the layouts: that of `--libvirt-uri`, or the driver inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.monitor.virt import open_connection
from tests.support.embedded import embed_root


@pytest.fixture(scope="session")
def connection(pytestconfig: pytest.Config) -> Iterator[Any]:
    """One connection for all: a new embedded driver probes QEMU for 4 s."""
    uri = pytestconfig.getoption("--libvirt-uri")
    if uri is not None:
        with closing(open_connection(uri)) as connection:
            yield connection
        return
    with embedded_connection(embed_root()) as connection:
        yield connection
