"""
Which tiers can run here. A missing one is skipped with what to install, and fails in CI.

And libvirt's driver: one for all tests, as a process can have one only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any

# Hypothesis' plugin imports it at the end of the session otherwise, when other threads are at
# work; CPython 3.11 then fails now and then in ast.parse() ("recursion depth mismatch").
import hypothesis  # noqa: F401
import pytest

from qmpsnap.cli.main import run
from qmpsnap.demo import libvirt_guest
from qmpsnap.monitor import virt
from tests.support import linux
from tests.support.daemon import which
from tests.support.embedded import embed_root
from tests.support.lending import lent
from tests.support.tiers import required


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
    "guest": (
        lambda: linux.is_there() and shutil.which("qemu-system-x86_64") and find_spec("libvirt"),
        "what the tiers qemu and libvirt need, Debian's e2fsprogs, and run .ci/guest",
    ),
    "chaos": (
        lambda: find_spec("libvirt") and shutil.which("qemu-system-x86_64"),
        "what the tiers qemu and libvirt need",
    ),
}


_TIER_OF_FOLDER = {
    "layouts": "qemu",
    "layouts_libvirt": "libvirt",
    "matrix": "libvirt",
    "pains": "libvirt",
}
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
        "--libvirt-uri", help="libvirt for the tests; without it the driver in this process"
    )


@pytest.fixture(autouse=True, scope="session")
def _run_time_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of a QEMU is remembered for this session only."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield


@pytest.fixture(autouse=True)
def _situation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold a test that is marked as a situation to the exit code that it states."""
    marker = request.node.get_closest_marker("situation")
    if marker is None:
        yield
        return
    codes: list[int] = []

    def noting(arguments: list[str]) -> int:
        codes.append(run(arguments))
        return codes[-1]

    monkeypatch.setattr("tests.support.rig.run", noting)
    yield
    assert marker.kwargs["code"] in codes, f"no command ended with {marker.kwargs['code']}: {codes}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder; skip what has no QEMU or libvirt, or fail where it is required."""
    for item in items:
        tier = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        tier = _TIER_OF_FOLDER.get(tier, tier)
        if tier not in _NEEDS:
            continue
        item.add_marker(tier)
        works, install = _NEEDS[tier]
        if works():
            continue
        if tier in required():
            raise pytest.UsageError(
                f"the tier {tier} is required and cannot run: install {install}"
            )
        item.add_marker(pytest.mark.skip(reason=f"install {install}"))


@pytest.fixture(scope="session")
def connection(pytestconfig: pytest.Config) -> Iterator[Any]:
    """That of `--libvirt-uri`, or one driver for all tests: a new one probes QEMU for 4 s."""
    uri = pytestconfig.getoption("--libvirt-uri")
    if uri is not None:
        with closing(virt.open_connection(uri)) as connection:
            yield connection
        return
    with libvirt_guest.embedded_connection(embed_root()) as connection:
        yield connection


@pytest.fixture
def borrowed(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let the command line use the session's connection.

    libvirt 9.0 registers its drivers anew each time `qemu:///embed` is opened, and a dozen times
    is too many for one process.
    """

    def open_connection(uri: str) -> Any:
        return lent(connection) if uri == connection.getURI() else virt.open_connection(uri)

    monkeypatch.setattr("qmpsnap.cli.road.open_connection", open_connection)
