"""Every layout on the QEMU in PATH: what the tool says is the truth, and what it said before."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.graph.debug_graph import debug_graph_from
from qmpsnap.graph.partial import partial_graph
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import Reader
from qmpsnap.guests.record import record_socket
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.schema import Features, features_from
from qmpsnap.monitor.socket import SocketMonitor
from tests.layouts.catalogue import LAYOUTS
from tests.layouts.layout import LOOP, Layout
from tests.layouts.running import Kept, running
from tests.layouts.truth import flagged, told
from tests.rig import fixtures
from tests.rig.beside import NotHere, Refusal


@dataclass(frozen=True)
class Qemu:
    """The QEMU in PATH."""

    version: str
    features: Features
    drivers: frozenset[str]

    def lacks(self, layout: Layout) -> str | None:
        """What the layout needs and this QEMU has not."""
        for driver in layout.drivers:
            if driver not in self.drivers:
                return f"QEMU {self.version} has no driver {driver}"
        for command in layout.commands:
            name, _, argument = command.partition(".")
            if not self.features.has(name, argument or None):
                return f"QEMU {self.version} has no {command}"
        return None


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    bare = next(layout for layout in LAYOUTS if layout.name == "no-disks")
    with running(bare) as guest:
        version: Any = guest.do("query-version")
        schema: Any = guest.do("query-qmp-schema")
    number = version["qemu"]
    return Qemu(
        version=f"{number['major']}.{number['minor']}.{number['micro']}",
        features=features_from(schema),
        drivers=_drivers(schema),
    )


def _drivers(schema: list[dict[str, Any]]) -> frozenset[str]:
    """All that `blockdev-add` takes, whether or not its module is installed."""
    types = {one["name"]: one for one in schema}
    options = types[types["blockdev-add"]["arg-type"]]
    member = next(one for one in options["members"] if one["name"] == "driver")
    return frozenset(types[member["type"]]["values"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


_KINDS = ("driver", "file format")
"""Of which QEMU and qemu-img say that it is unknown."""


def _case(layout: Layout) -> object:
    marks = [pytest.mark.xfail(strict=True, reason=layout.wrong)] if layout.wrong else []
    return pytest.param(layout, id=layout.name, marks=marks)


@pytest.mark.parametrize("layout", [_case(layout) for layout in LAYOUTS])
def test_the_report_is_the_truth(
    layout: Layout, qemu: Qemu, kept: Kept, pytestconfig: pytest.Config
) -> None:
    if (reason := qemu.lacks(layout)) is not None:
        pytest.skip(reason)
    said = io.StringIO()
    try:
        with running(layout, kept) as guest:
            # One layout has 200 layers, and its guest may stand still.
            report = QmpGuest(guest.monitor, max_stall_s=None).read()
            _check_partial(guest.monitor)
            if pytestconfig.getoption("--record"):
                record_socket(guest.monitor, said)
    except NotHere as error:
        pytest.skip(str(error))
    except Refusal as error:
        # The schema tells every driver that there is, built in or not.
        if any(
            f"Unknown {kind} '{one}'" in str(error) for kind in _KINDS for one in layout.drivers
        ):
            pytest.skip(f"QEMU {qemu.version} is built without, or a module is missing: {error}")
        raise
    folder = fixtures.place("qemu", qemu.version)
    transcript = folder / f"{layout.name}.jsonl"
    document = fixtures.document(report, guest.places)
    if layout.is_recorded:
        if said.getvalue():
            folder.mkdir(parents=True, exist_ok=True)
            transcript.write_text(fixtures.recording(said.getvalue(), guest.places))
        if pytestconfig.getoption("--regenerate"):
            fixtures.write(transcript, document)
    loop = guest.places.get(LOOP, LOOP)
    assert told(report, loop) == layout.truth
    assert flagged(report, loop) == layout.flags
    if layout.is_recorded and folder.exists():
        assert document == _read(fixtures.expected(transcript))


def _check_partial(monitor: SocketMonitor) -> None:
    """What is told of a guest whose nodes cannot be listed is never another format."""
    try:
        whole = Reader(monitor, max_stall_s=None).read()
    except CommandFailed:
        return
    part = partial_graph(
        monitor.execute("query-block"),
        debug_graph_from(monitor.execute("x-debug-query-block-graph")),
        monitor.execute("query-blockstats"),
        jobs=(),
        why="as if",
    )
    assert part.nodes.keys() == whole.nodes.keys()
    for name, node in part.nodes.items():
        assert node.driver in ("", whole.nodes[name].driver)


def _read(path: Path) -> object:
    assert path.exists(), "not recorded yet: run tox -e record"
    return json.loads(path.read_text())


def test_names_are_unique() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert sorted(set(names)) == sorted(names)
