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

_NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "qemu": (
        lambda: shutil.which("qemu-system-x86_64") and shutil.which("qemu-img"),
        "Debian's qemu-system-x86 and qemu-utils",
    ),
    "libvirt": (
        lambda: find_spec("libvirt") and shutil.which("qemu-system-x86_64"),
        "libvirt-python and Debian's libvirt-daemon-driver-qemu",
    ),
}


_TIER_OF_FOLDER = {"layouts_libvirt": "libvirt", "matrix": "libvirt"}
"""Where it is not the folder's own name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for `fixtures/`; `tox -e record` gives both."""
    group = parser.getgroup("qmpsnap", "recordings of real guests, in fixtures/")
    group.addoption(
        "--record", action="store_true", help="record each layout anew, with what is installed"
    )
    group.addoption(
        "--regenerate",
        action="store_true",
        help="write the expected reports anew; with tests/replay, from the recordings",
    )
    group.addoption(
        "--libvirt-uri", help="libvirt for the layouts; without it the driver in this process"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder; skip what has no QEMU or libvirt, or fail where it is required."""
    required = set(os.environ.get("QMPSNAP_REQUIRE", "").split(",")) - {""}
    for item in items:
        tier = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        tier = _TIER_OF_FOLDER.get(tier, tier)
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
