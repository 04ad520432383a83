"""One rig a pairing and session, and what a test makes in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.openstack.rig import pairings
from tests.openstack.rig.pairings import Pairing
from tests.openstack.rig.rig import Rig, running
from tests.openstack.rig.told import told

MakeRig = Callable[[Pairing], Rig]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print beside a failure what its rigs know of it."""
    report = yield
    if report.failed:
        found: dict[str, Any] = getattr(item, "funcargs", {})
        rigs = {one.folder: one for one in found.values() if isinstance(one, Rig)}
        for folder, rig in rigs.items():
            if not folder.exists():  # the failure is in its end
                continue
            report.sections.append((f"the rig in {folder}", told(rig)))
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Let eventlet, which some of Nova's modules import, not warn of each process that is started."""
    config.addinivalue_line("filterwarnings", r"ignore:Using fork\(\) is a bad idea")


@pytest.fixture(autouse=True)
def _calls_of_this_test() -> None:
    """A rig serves many tests, and not each asks how all its calls have ended."""
    Rig.since = time.time()


@pytest.fixture(scope="session")
def rig_of() -> Iterator[MakeRig]:
    """Start a rig when a pairing is first wanted; all end with the session."""
    rigs: dict[Pairing, Rig] = {}
    with ExitStack() as ends:

        def make(pairing: Pairing) -> Rig:
            if pairing not in rigs:
                rigs[pairing] = ends.enter_context(running(pairing))
            return rigs[pairing]

        yield make


@pytest.fixture(scope="session")
def stock(rig_of: MakeRig) -> Rig:
    """Unmodified Nova and unmodified Cinder."""
    return rig_of(pairings.STOCK)


@pytest.fixture(scope="session")
def our_nova(rig_of: MakeRig) -> Rig:
    """Our compute side, and an unmodified Cinder."""
    return rig_of(pairings.OUR_NOVA)


@pytest.fixture(scope="session", params=[pairings.OUR_NOVA, pairings.BY_XML], ids=["qmp", "xml"])
def each_nova(rig_of: MakeRig, request: pytest.FixtureRequest) -> Rig:
    """The same, and once without passthrough."""
    return rig_of(request.param)


@pytest.fixture(scope="session")
def our_cinder(rig_of: MakeRig) -> Rig:
    """Unmodified Nova, and our volume side."""
    return rig_of(pairings.OUR_CINDER)


@pytest.fixture(scope="session")
def ours(rig_of: MakeRig) -> Rig:
    """Both sides are ours."""
    return rig_of(pairings.OURS)


@pytest.fixture(scope="session")
def as_nova(rig_of: MakeRig) -> Rig:
    """Our compute side as the user nova, with its helper."""
    return rig_of(pairings.AS_NOVA)


@pytest.fixture(
    scope="session", params=[pairings.AS_NOVA, pairings.AS_NOVA_BY_XML], ids=["qmp", "xml"]
)
def each_as_nova(rig_of: MakeRig, request: pytest.FixtureRequest) -> Rig:
    """The same, and once without passthrough."""
    return rig_of(request.param)


@pytest.fixture(scope="session")
def as_nova_alone(rig_of: MakeRig) -> Rig:
    """The same, without: sudo does not let nova start it."""
    return rig_of(pairings.AS_NOVA_ALONE)
