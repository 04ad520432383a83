"""
What runs on a real QEMU, on each road that it can go: its own QMP socket, and libvirt.

A test that asks for `road`, or for `make_rig`, runs once on each. What one road alone has is in
`only_qmp` and `only_libvirt`, where there is no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.roads import MakeRig, Road, direct_rigs, libvirt_rigs
from tests.rig.states import MakeMachine, direct_machines, libvirt_machines
from tests.rig.watchman import on_guard


@pytest.fixture(
    params=[
        pytest.param("qmp", marks=pytest.mark.qemu),
        pytest.param("libvirt", marks=pytest.mark.libvirt),
    ]
)
def road(request: pytest.FixtureRequest) -> Road:
    """How the tool reaches the guest."""
    chosen: Road = request.param
    if chosen == "libvirt":
        request.getfixturevalue("borrowed")
    return chosen


@pytest.fixture
def make_rig(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> MakeRig:
    """`make_rig(base)`: a guest whose disk is one file, open in that way."""
    share = tmp_path / "share"
    if road == "qmp":
        return direct_rigs(share)
    return libvirt_rigs(request.getfixturevalue("connection"), share)


@pytest.fixture
def make_machine(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> MakeMachine:
    """`make_machine(state)`: a new guest that can be brought into it."""
    share = tmp_path / "share"
    if road == "qmp":
        return direct_machines(share)
    return libvirt_machines(request.getfixturevalue("connection"), share)


@pytest.fixture(params=["raw", "qcow2"])
def base(request: pytest.FixtureRequest) -> str:
    """Format of the guest's first file."""
    return str(request.param)


@pytest.fixture(autouse=True)
def guarded(tmp_path: Path) -> Iterator[None]:
    """Nothing below the test's folder is changed but through a door of the tool, or by the test."""
    with on_guard(str(tmp_path)):
        yield
