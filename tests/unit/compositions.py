"""
Every act of every operation on every road, as a text: each word of it is sent, or kept in a journal.

`composed/ROAD.txt` is what the composers make of the same operations. To write them anew:
`python -m tests.unit.compositions`; then look at what has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.nodes import Cache
from qmpsnap.guests.files.steps import disk_steps
from qmpsnap.guests.libvirt.steps import LibvirtComposer
from qmpsnap.guests.offline.steps import OfflineComposer, with_nodes
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.operations.guest import (
    Composer,
    HeaderSteps,
    MergeSteps,
    Overlay,
    SnapshotSteps,
    State,
)
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import MergeOptions, OnError
from qmpsnap.operations.plan_header import rewrite
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.removal import removal
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Step
from tests.unit import samples
from tests.unit.fake_libvirt import LIBVIRT

FOLDER: Final = Path(__file__).parent / "composed"
DEFINITION: Final = (
    "<domain><devices>"
    "<disk type='file'><driver type='qcow2'/><source file='/share/volume-1.s2'/>"
    "<backingStore type='file'><format type='qcow2'/><source file='/share/volume-1.s1'/>"
    "</backingStore><target dev='vda'/></disk>"
    "<disk type='file'><driver type='raw'/><source file='/share/b'/><target dev='vdb'/></disk>"
    "</devices></domain>"
)
ROADS: Final[dict[str, Composer]] = {
    "qmp": QmpComposer(lambda _command: True),
    "qmp-7.2": QmpComposer(lambda _command: False),
    "libvirt": LibvirtComposer(LIBVIRT, "web1", passthrough=True),
    "libvirt-alone": LibvirtComposer(LIBVIRT, "web1", passthrough=False),
    "offline": OfflineComposer("web1", lambda: DEFINITION),
}
MERGES: Final = {
    "commit": ("volume-1.s1", "volume-1"),
    "active commit": ("volume-1.s2", "volume-1"),
    "pull": (None, None),
    "pull to a base": ("volume-1", None),
}


def composed(road: str) -> str:
    """All of a road."""
    return "\n".join(_lines(ROADS[road], road)) + "\n"


def _lines(composer: Composer, road: str) -> Iterator[str]:
    state = State(run="off" if road == "offline" else "running")
    for base in ("raw", "qcow2"):
        disk = _disk(road, base)
        guest = samples.guest(disk)
        for name, (merge, target) in MERGES.items():
            request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
            plan = plan_delete(guest, request)
            for options in (
                MergeOptions(),
                MergeOptions(bandwidth=7, on_error=OnError.FAIL, timeout_s=9.0),
            ):
                yield f"# {name} over {base}, {options.bandwidth or 'no'} limit"
                yield from _all(composer.merge(plan, options, state))
            yield from (f"remove: {_text(step)}" for step in removal(plan, force=False))
            yield from (f"on the disk: {_text(step)}" for step in disk_steps(plan))
        request = DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None)
        again = composer.below_again(plan_delete(guest, request))
        yield f"# a pull over {base} is taken back: {again and _text(again)}"
        upper, lower, *_ = disk.layers
        yield f"# header over {base}"
        yield from _all(composer.header(rewrite(disk, upper, lower, lower.file)))
    if road.startswith("qmp"):
        yield "# header of a layer that is open for reading"
        node = _disk(road).layers[1].node_details
        assert node is not None
        node = replace(node, read_only=True, cache=Cache(no_flush=True), detect_zeroes=True)
        disk = samples.changed_layer(_disk(road), 1, node_details=node)
        _, upper, lower = disk.layers
        yield from _all(composer.header(rewrite(disk, upper, lower, lower.file)))
    yield from _snapshots(composer, road, state)
    yield from _rest(composer, road, state)


def _disk(road: str, base: str = "raw", name: str = "vda") -> Disk:
    disk = samples.disk(3, base=base, disk=name, serial=name)
    layers = tuple(
        replace(one, index=number, nodes=(one.node or "", one.protocol_node or ""))
        for number, one in enumerate(disk.layers, start=1)
    )
    disk = replace(disk, layers=layers)
    return with_nodes(disk) if road == "offline" else disk


def _snapshots(composer: Composer, road: str, state: State) -> Iterator[str]:
    disk = _disk(road)
    node = disk.layers[0].node_details
    assert node is not None
    writes_through = replace(node, cache=Cache(direct=True), detect_zeroes=True)
    cached = samples.changed_layer(disk, 0, node_details=writes_through)
    guest = samples.guest(cached)
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
    there = Overlay(is_there=True, recorded=("/elsewhere", None), spare="/share/.spare")
    for name, overlay, into in (
        ("create", Overlay(is_there=False), None),
        ("create in another folder", Overlay(is_there=False), "/elsewhere"),
        ("create with a file that is there", there, None),
    ):
        yield f"# {name}"
        plans = plan_creates(guest, [replace(request, into=into)])
        yield from _all(composer.snapshot(guest, plans, [overlay], state))
    if road != "libvirt-alone":
        yield "# revert"
        plans = plan_creates(guest, [replace(request, over="s1")])
        yield from _all(composer.snapshot(guest, plans, [Overlay(is_there=False)], state))


def _rest(composer: Composer, road: str, state: State) -> Iterator[str]:
    yield "# the rest"
    for verb in Verb:
        if not road.startswith("libvirt") or verb in (Verb.CANCEL, Verb.SET_SPEED):
            yield f"{verb}: {_text(composer.verb(verb, 'job0', 5))}"
            yield f"{verb} by default: {_text(composer.verb(verb, 'job0'))}"
    for status in (JobStatus.RUNNING, JobStatus.CONCLUDED):
        for type_ in ("commit", "stream"):
            for ours in (True, False):
                view = JobView(status=status)
                job = JobReport(id="j", type=type_, disk="vda", view=view, bandwidth=0, ours=ours)
                told = f"{status} {type_} of {'ours' if ours else 'others'}"
                yield f"dismiss {told}: {_text(composer.dismiss(job))}"
                yield f"unsafe {told}: {[_text(one) for one in composer.unsafe([job])]}"
    if road.startswith("libvirt"):
        yield from (f"freeze: {_text(step)}" for step in composer.freeze(3.0))
    for layer in plan_delete(
        samples.guest(_disk(road, "qcow2")),
        DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None),
    ).disk.layers:
        yield f"flush {layer.file}: {_text(composer.flush(layer, 'vda'))}"


def _all(steps: MergeSteps | SnapshotSteps | HeaderSteps) -> Iterator[str]:
    for field in steps.__struct_fields__:
        yield from _told(field, getattr(steps, field))


def _told(field: str, value: object) -> Iterator[str]:
    if isinstance(value, tuple):
        for one in value:
            yield from _told(field, one)
    elif isinstance(value, Step):
        yield f"{field}: {_text(value)}"
    elif value is not None:
        yield f"{field}: {value}"


def _text(step: Step | None) -> str:
    if step is None:
        return "nothing"
    arguments = json.dumps(dict(step.arguments), default=str)
    again = "" if step.again else ", once"
    return f"{step.does} by {step.by}: {step.what} {arguments}{again}"


if __name__ == "__main__":
    for name in ROADS:
        (FOLDER / f"{name}.txt").write_text(composed(name))
