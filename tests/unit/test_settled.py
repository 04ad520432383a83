"""A contradiction is believed when it lasts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disks
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests import settled as settled_module
from qmpsnap.guests.settled import WITH_GRAPH, XML_ALONE, settled
from tests.unit import samples

CLEAR = samples.guest(samples.disk(2))
CONFLICT = samples.guest(samples.changed_layer(samples.disk(2), 1, verdict=Verdict.CONFLICT))
REPLACED = samples.guest(samples.changed_layer(samples.disk(2), 1, flags=("replaced",)))
DIFFERS = samples.guest(replace(samples.disk(2), xml_differs="libvirt sees another one"))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled_module, "AGAIN_S", 0)


class Readings:
    """One after the other; the last one again and again."""

    def __init__(self, *reports: Disks, by_graph: bool) -> None:
        graph = Graph(devices=(), nodes={}, edges=()) if by_graph else None
        self._left = [replace(one, graph=graph) for one in reports]
        self.count = 0

    def read(self) -> Disks:
        self.count += 1
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


@pytest.mark.parametrize("by_graph", [True, False])
def test_no_doubt(by_graph: bool) -> None:
    readings = Readings(CLEAR, by_graph=by_graph)
    settled(readings.read)
    assert readings.count == 1


@pytest.mark.parametrize("doubt", [CONFLICT, DIFFERS, REPLACED])
@pytest.mark.parametrize(("by_graph", "further"), [(True, WITH_GRAPH), (False, XML_ALONE)])
def test_doubt_that_passes(doubt: Disks, by_graph: bool, further: int) -> None:
    readings = Readings(*[doubt] * further, CLEAR, by_graph=by_graph)
    assert settled(readings.read).disks == CLEAR.disks
    assert readings.count == further + 1


@pytest.mark.parametrize("doubt", [CONFLICT, DIFFERS, REPLACED])
@pytest.mark.parametrize(("by_graph", "further"), [(True, WITH_GRAPH), (False, XML_ALONE)])
def test_doubt_that_lasts(doubt: Disks, by_graph: bool, further: int) -> None:
    readings = Readings(doubt, by_graph=by_graph)
    assert settled(readings.read).disks == doubt.disks
    assert readings.count == further + 1
