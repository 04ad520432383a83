"""
Which tiers can run here. A missing one is skipped with what to install, and fails in CI.

And libvirt's driver: one for all tests, as a process can have one only.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any

# Hypothesis' plugin imports it at the end of the session otherwise, when other threads are at
# work; CPython 3.11 then fails now and then in ast.parse() ("recursion depth mismatch").
import hypothesis  # noqa: F401
import pytest

from qmpsnap.cli.main import run
from qmpsnap.demo.embed import embedded_connection
from qmpsnap.monitor import virt
from tests.openstack.rig.rig import can_run
from tests.power.recording import can_record
from tests.rig import linux, mariadb, postgresql, sampling
from tests.rig.daemon import which
from tests.rig.embedded import embed_root
from tests.rig.lending import lent
from tests.rig.tiers import required


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
    "delivery": (
        lambda: find_spec("keystoneauth1") and find_spec("tenacity"),
        "keystoneauth1 and tenacity (the extra openstack)",
    ),
    "ledger": (
        lambda: (
            find_spec("sqlalchemy")
            and find_spec("pymysql")
            and postgresql.programs()
            and mariadb.program()
        ),
        "SQLAlchemy (the extra openstack), PyMySQL, Debian's postgresql and mariadb-server-core",
    ),
    "chaos": (
        lambda: find_spec("libvirt") and shutil.which("qemu-system-x86_64"),
        "what the tiers qemu and libvirt need",
    ),
    "power": (
        lambda: _qemu() and can_record(),
        "what the tier qemu needs, /dev/fuse (in a container: hand it in), Debian's fuse3, mfusepy",
    ),
    "openstack": (
        lambda: (
            _libvirtd()
            and find_spec("nova")
            and find_spec("cinder")
            and shutil.which("sudo")
            and postgresql.programs()
            and mariadb.program()
            and can_run()
        ),
        "what the tier security needs, sudo, Debian's postgresql and mariadb-server-core, run `make openstack`, and be root (in a container: privileged)",
    ),
}


_TIER_OF_FOLDER = {
    "guest": "guest",
    "security": "security",
    "chaos": "chaos",
    "power": "power",
    "openstack": "openstack",
    "delivery": "delivery",
    "ledger": "ledger",
    "layouts": "qemu",
    "layouts_libvirt": "libvirt",
    "live/only_qmp": "qemu",
    "live/only_libvirt": "libvirt",
    "matrix": "libvirt",
    "pains": "libvirt",
}
"""By the folder in `tests`. Elsewhere in `live`, a test is marked by its road."""


def pytest_configure() -> None:
    """
    Take no signal as ignored: what the tests start would ignore it as well, and never end.

    A shell ignores SIGINT and SIGQUIT for its background jobs, nohup SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            is_int = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)


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


@pytest.fixture(autouse=True)
def _no_libvirt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide libvirt-python, which every tier's `.venv` has, from the tiers that do without it."""
    tier = request.path.relative_to(request.config.rootpath / "tests").parts[0]
    if tier in {"unit", "replay", "fuzz"}:
        monkeypatch.setitem(sys.modules, "libvirt", None)
        monkeypatch.setitem(sys.modules, "libvirt_qemu", None)


@pytest.fixture(scope="session", name="postgresql")
def _postgresql() -> Iterator[postgresql.Server]:
    """One private server a session."""
    with postgresql.Server() as server:
        yield server


@pytest.fixture(autouse=True, scope="session")
def _run_time_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of a QEMU, and the journal, are this session's only."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        patch.setenv("QMPSNAP_STATE", str(state))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Hold a test that is marked as a situation to the exit code that it states."""
    marker = pyfuncitem.get_closest_marker("situation")
    if marker is None:
        return (yield)
    codes: list[int] = []

    def noting(arguments: list[str]) -> int:
        codes.append(run(arguments))
        return codes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.rig.rig.run", noting)
        returned = yield
    assert marker.kwargs["code"] in codes, f"no command ended with {marker.kwargs['code']}: {codes}"
    return returned


def pytest_report_header() -> str:
    """What a failure depends on that comes and goes with the day."""
    return sampling.header()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark by folder."""
    path = item.path.relative_to(item.config.rootpath / "tests").as_posix()
    for folder, tier in _TIER_OF_FOLDER.items():
        if path.startswith(f"{folder}/"):
            item.add_marker(tier)


@pytest.hookimpl(trylast=True)  # after `-m`: what is not asked for need not be there
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what has no QEMU or libvirt, or fail where it is required."""
    for item in items:
        for tier, (works, install) in _NEEDS.items():
            if item.get_closest_marker(tier) is None or works():
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
    with embedded_connection(embed_root()) as connection:
        yield connection


@pytest.fixture
def borrowed(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let the command line use the session's connection.

    libvirt 9.0 registers its drivers anew each time `qemu:///embed` is opened, and a dozen times
    is too many for one process.
    """

    def open_connection(uri: str, **wishes: bool) -> Any:
        if uri == connection.getURI():
            return lent(connection)
        return virt.open_connection(uri, **wishes)

    for module in ("cli.connection", "guests.connect"):
        monkeypatch.setattr(f"qmpsnap.{module}.open_connection", open_connection)
