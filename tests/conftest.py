"""Which tiers can run here. A missing one is skipped with what to install, and fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec

# Hypothesis' plugin imports it at the end of the session otherwise, when other threads are at
# work; CPython 3.11 then fails now and then in ast.parse() ("recursion depth mismatch").
import hypothesis  # noqa: F401
import pytest

from tests.support.daemon import which
from tests.support.embed import connection

__all__ = ["connection"]  # of two tiers: a process can open one embedded driver only


def _qemu() -> object:
    return shutil.which("qemu-system-x86_64") and shutil.which("qemu-img")


def _libvirt() -> object:
    return find_spec("libvirt") and shutil.which("qemu-system-x86_64")


def _libvirtd() -> object:
    return _qemu() and _libvirt() and which("libvirtd")


_NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "qemu": (_qemu, "Debian's qemu-system-x86 and qemu-utils"),
    "libvirt": (_libvirt, "libvirt-python and Debian's libvirt-daemon-driver-qemu"),
    "security": (
        _libvirtd,
        "what the tiers qemu and libvirt need, and Debian's libvirt-daemon",
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
