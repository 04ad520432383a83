"""Where a libvirt URI leads."""

from __future__ import annotations

import pytest

from qmpsnap.cli.connection import Road
from qmpsnap.monitor.virt import host_of


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", ""),
        ("qemu:///embed?root=/tmp/x", ""),
        ("qemu+unix:///system", ""),
        ("qemu+tcp://localhost/system", ""),
        ("qemu+ssh://root@Compute7:2222/system", "compute7"),
        ("qemu+tls://[2001:db8::1]/system", "2001:db8::1"),
    ],
)
def test_host(uri: str, host: str) -> None:
    assert host_of(uri) == host


def test_source() -> None:
    assert Road(qmp="/run/qmp").source == "/run/qmp"
    assert Road(replay="/tmp/t").source == "/tmp/t"
    assert Road(connect="qemu:///system").source == "qemu:///system"
