"""Which layers have subclusters, by QEMU and by headers; and which QEMU can pull into them."""

from __future__ import annotations

from typing import Any

import pytest

from qmpsnap.formats import from_xml
from qmpsnap.formats.qcow2 import parse
from qmpsnap.graph.qmp import node_from_image
from qmpsnap.graph.wire import ImageInfo
from qmpsnap.graph.wire import parse as parsed
from qmpsnap.graph.xml import XmlDisk, XmlLayer
from qmpsnap.guests.qmp.subclusters import copies_into_subclusters
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.abilities import Ability
from tests.unit import samples
from tests.unit.qcow2_header import header
from tests.unit.scripted import ScriptedMonitor

WITH = samples.changed_layer(samples.disk(2), 0, has_subclusters=True)


@pytest.mark.parametrize(
    ("specific", "expected"),
    [
        ({"type": "qcow2", "data": {"compat": "1.1", "extended-l2": True}}, True),
        ({"type": "qcow2", "data": {"compat": "1.1", "extended-l2": False}}, False),
        ({"type": "qcow2", "data": {"compat": "0.10"}}, False),
        (None, False),
    ],
)
def test_by_the_description_of_an_image(specific: Any, expected: bool) -> None:
    reply = {"filename": "x", "format": "qcow2", "virtual-size": 1, "format-specific": specific}
    image = parsed("query-block", {k: v for k, v in reply.items() if v is not None}, ImageInfo)
    assert node_from_image("node", image).has_subclusters is expected


@pytest.mark.parametrize("bit", range(5))
def test_by_the_header(bit: int) -> None:
    found = parse(header(incompatible=1 << bit), "image")
    assert found.has_subclusters is (bit == 4)
    layer = XmlLayer(path="/image", name="/image", format="qcow2", index=1)
    disk = XmlDisk(
        target="vda", serial=None, alias=None, device="disk", read_only=False, layers=(layer,)
    )
    (read,) = from_xml.disk_from_xml(disk, {"/image": found}).layers
    assert read.has_subclusters is (bit == 4)


@pytest.mark.parametrize("can", [False, True])
def test_a_qemu_is_asked_where_it_matters(can: bool) -> None:
    monitor = ScriptedMonitor({}, can={Ability.MASKED_STREAM} if can else ())
    assert copies_into_subclusters(samples.disk(2), Reader(monitor))
    assert copies_into_subclusters(samples.disk(2), None)
    assert monitor.probes == []
    assert copies_into_subclusters(WITH, Reader(monitor)) is can
    assert monitor.probes == [Ability.MASKED_STREAM]
    assert not copies_into_subclusters(WITH, None)
