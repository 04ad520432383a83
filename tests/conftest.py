"""
Which tiers can run here. A missing one is skipped with what to install, and fails in CI.

And libvirt's driver: one for all tests, as a process can have one only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

# Hypothesis' plugin imports it at the end of the session otherwise, when other threads are at
# work; CPython 3.11 then fails now and then in ast.parse() ("recursion depth mismatch").
import hypothesis  # noqa: F401
import pytest

from qmpsnap.demo import libvirt_guest
from qmpsnap.monitor import virt

_NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "qemu": (
        lambda: shutil.which("qemu-system-x86_64") and shutil.which("qemu-img"),
        "Debian's qemu-system-x86 and qemu-utils",
    ),
    "libvirt": (
        lambda: find_spec("libvirt") and shutil.which("qemu-system-x86_64"),
        "libvirt-python and Debian's libvirt-daemon-driver-qemu",
    ),
    "chaos": (
        lambda: find_spec("libvirt") and shutil.which("qemu-system-x86_64"),
        "what the tiers qemu and libvirt need",
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder; skip what has no QEMU or libvirt, or fail where it is required."""
    required = set(os.environ.get("QMPSNAP_REQUIRE", "").split(",")) - {""}
    for item in items:
        tier = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        if tier not in _NEEDS:
            continue
        item.add_marker(tier)
        works, install = _NEEDS[tier]
        if works():
            continue
        if tier in required:
            raise pytest.UsageError(
                f"the tier {tier} is required and cannot run: install {install}"
            )
        item.add_marker(pytest.mark.skip(reason=f"install {install}"))


@pytest.fixture(scope="session")
def connection() -> Iterator[Any]:
    """One driver for all tests: it probes QEMU for 4 s when its folder is new."""
    root = tempfile.mkdtemp(prefix="qs-", dir="/var/tmp")
    try:
        with libvirt_guest.embedded_connection(root) as connection:
            yield connection
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def borrowed(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let the command line use the session's connection.

    libvirt 9.0 registers its drivers anew each time `qemu:///embed` is opened, and a dozen times
    is too many for one process.
    """

    class Borrowed:
        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def close(self) -> None:
            """It is the session's."""

    def open_connection(uri: str) -> Any:
        return Borrowed() if uri == connection.getURI() else virt.open_connection(uri)

    monkeypatch.setattr("qmpsnap.cli.road.open_connection", open_connection)
