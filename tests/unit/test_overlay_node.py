"""How an overlay is opened, from what QMP, QEMU's command line and our own names tell."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.graph.nodes import Cache, Device, Graph
from qmpsnap.graph.opening import Opening
from qmpsnap.guests.qmp.names import named
from qmpsnap.guests.qmp.overlay_node import open_step, overlay_opening, zeroes_of
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
from tests.unit import samples

NODE = "volume-1-node"
LINE = ["-blockdev", f"driver=raw,node-name={NODE},discard=unmap,file.driver=file,file.aio=native"]


def plan(**node: Any) -> CreatePlan:
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
    made = plan_create(samples.guest(), request)
    assert made.active.node_details is not None
    details = replace(made.active.node_details, **node)
    return replace(made, active=replace(made.active, node_details=details))


def opened(plan: CreatePlan, arguments: list[str], graph: Graph | None = None) -> Opening:
    opening, note = overlay_opening(plan, graph, arguments)
    assert note is None
    return opening


def test_by_the_command_line() -> None:
    assert opened(plan(), LINE) == Opening(discard=True, passed_on=True, aio="native")


def test_by_the_drive_of_its_device() -> None:
    device = Device(device="d0", qdev="vda", root=NODE)
    graph = Graph(devices=(device,), nodes={}, edges=())
    line = ["-drive", "file=/x,id=d0,discard=on"]
    assert opened(plan(), line, graph) == Opening(discard=True)


def test_by_its_own_name() -> None:
    as_it_was = Opening(discard=True, passed_on=False, aio="io_uring")
    made = plan()
    node = f"{named('/share/volume-1', 'x', as_it_was)}-format"
    assert opened(replace(made, active=replace(made.active, node=node)), LINE) == as_it_was


def test_zeroes_that_are_unmapped_tell_that_discards_are() -> None:
    zeroes = plan(detect_zeroes=True, unmaps_zeroes=True)
    assert opened(zeroes, []) == Opening(discard=True)
    line = [LINE[0], LINE[1].replace("discard=unmap,", "") + ",file.discard=ignore"]
    assert opened(zeroes, line) == Opening(discard=True, passed_on=False, aio="native")


def test_not_known_and_said() -> None:
    opening, note = overlay_opening(plan(detect_zeroes=True), None, ["-blockdev", "node-name=x"])
    assert opening == Opening()
    assert note is not None
    assert "volume-1 passes on" in note
    assert "volume-1.new does not" in note


@pytest.mark.parametrize(
    ("zeroes", "said"),
    [
        ({}, "off"),
        ({"detect_zeroes": True}, "on"),
        ({"detect_zeroes": True, "unmaps_zeroes": True}, "unmap"),
    ],
)
@pytest.mark.parametrize("discard", [False, True])
def test_as_blockdev_add_takes_it(zeroes: dict[str, bool], said: str, discard: bool) -> None:
    made = plan(cache=Cache(direct=True), **zeroes)
    step = open_step(made, "name", Opening(discard=discard, passed_on=not discard, aio="native"))
    words = ["unmap", "ignore"] if discard else ["ignore", "unmap"]
    cache = {"direct": True, "no-flush": False}
    assert step.arguments == {
        "driver": "qcow2",
        "node-name": "name-format",
        "cache": cache,
        "discard": words[0],
        "detect-zeroes": said,
        "backing": None,
        "file": {
            "driver": "file",
            "node-name": "name-file",
            "filename": "/share/volume-1.new",
            "cache": cache,
            "discard": words[1],
            "aio": "native",
        },
    }


def test_opened_again() -> None:
    made = plan(detect_zeroes=True, unmaps_zeroes=True).active.node_details
    assert made is not None
    assert zeroes_of(made) == {"detect-zeroes": "unmap", "discard": "unmap"}
    assert zeroes_of(replace(made, unmaps_zeroes=False)) == {"detect-zeroes": "on"}
