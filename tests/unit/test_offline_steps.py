"""A guest that is off: what holds its chain, and what its definition becomes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qmpsnap.graph import xml
from qmpsnap.guests.offline.definition import Point, PointsElsewhere, Redefine, pointed_to
from qmpsnap.guests.offline.steps import MemorySaved, OfflineComposer, with_nodes
from qmpsnap.operations.guest import HeaderSteps, MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError, PauseUnsupported
from qmpsnap.operations.plan_header import rewrite
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Step
from tests.unit import samples

OFF = State(run="off")
DEFINITION = """<domain type="kvm"><name>web1</name><devices>
<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none"/>
<source file="/share/volume-1.s2" index="3"/><backingStore type="file"><format type="qcow2"/>
<source file="/share/volume-1.s1"/></backingStore><target dev="vda" bus="virtio"/></disk>
<disk type="file" device="disk"><source file="/share/b"/><target dev="vdb"/></disk>
<disk type="file" device="cdrom"><target dev="sda"/></disk></devices></domain>"""
COMPOSER = OfflineComposer("web1", lambda: DEFINITION)
DISK = with_nodes(samples.disk(3))
CHAIN = [
    {"path": "/share/volume-1.s2", "format": "qcow2"},
    {"path": "/share/volume-1.s1", "format": "qcow2"},
    {"path": "/share/volume-1", "format": "raw"},
]


def plan(merge: str | None, target: str | None) -> MergePlan:
    request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
    return plan_delete(samples.guest(DISK), request)


def point(path: str, format: str) -> Point:
    return Point(old="/share/old", path=path, format=format)


COMMIT, PULL = plan("volume-1.s1", "volume-1"), plan(None, None)
ACTIVE = plan("volume-1.s2", "volume-1")


def merged(plan: MergePlan) -> MergeSteps:
    return COMPOSER.merge(plan, DEFAULT_OPTIONS, OFF)


def snapshot(state: State = OFF) -> SnapshotSteps:
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
    guest = samples.guest(DISK)
    plans = plan_creates(guest, [request])
    return COMPOSER.snapshot(guest, plans, [Overlay(is_there=False)], state)


def header() -> HeaderSteps:
    upper, lower, _ = DISK.layers
    return COMPOSER.header(rewrite(DISK, upper, lower, lower.file))


def words(*steps: Step | None) -> list[str]:
    return [step.what for step in steps if step is not None]


def test_layers_have_the_nodes_that_they_will_be_opened_by() -> None:
    assert [(one.node, one.protocol_node, one.top_node, one.nodes) for one in DISK.layers] == [
        (f"layer-{n}", f"layer-{n}-file", f"layer-{n}", (f"layer-{n}", f"layer-{n}-file"))
        for n in range(3)
    ]
    assert DISK.root == "layer-0"
    empty = samples.disk(layers=(), root=None)
    assert with_nodes(empty) is empty


class TestHold:
    """QEMU's locks on the whole chain, each layer in the format that is certain."""

    @pytest.mark.parametrize(
        "steps",
        [
            lambda: (snapshot().hold[0], snapshot().release),
            lambda: (merged(COMMIT).hold, merged(COMMIT).release),
            lambda: (header().hold, header().release),
        ],
    )
    def test_by_every_operation(self, steps: Callable[[], tuple[Step, Step]]) -> None:
        hold, release = steps()
        assert (hold.what, hold.arguments) == ("open-chain", {"disk": "vda", "chain": CHAIN})
        assert release.what == "close-chain"

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL])
    def test_nodes_go_with_the_qemu_that_has_them(self, merge: MergePlan) -> None:
        settle = words(*merged(merge).settle)
        assert settle == ["job-dismiss", *(["human-monitor-command"] if merge is PULL else [])]

    def test_all_in_order(self) -> None:
        flushed = ["human-monitor-command", "job-finalize", "job-dismiss"]
        assert words(*merged(COMMIT).all) == [
            *("open-chain", "block-commit", *flushed, "close-chain")
        ]
        pivoted = ["job-complete", "job-dismiss", "virDomainDefineXML"]
        assert words(*merged(ACTIVE).all) == [
            *("open-chain", "block-commit", *pivoted, "close-chain")
        ]
        assert words(*header().all) == ["open-chain", "block-stream", "fsync", "close-chain"]


class TestDefinition:
    def disks(self, step: Step | None) -> dict[str, tuple[str | None, str | None, int]]:
        assert step is not None
        assert step.what == "virDomainDefineXML"
        found = xml.parse(str(step.arguments["xml"])).disks
        layers = {one.target: one.layers for one in found}
        return {
            name: (some[0].path, some[0].format, len(some)) for name, some in layers.items() if some
        }

    def test_names_the_overlay_of_a_snapshot(self) -> None:
        assert self.disks(snapshot().switch) == {
            "vda": ("/share/volume-1.new", "qcow2", 1),
            "vdb": ("/share/b", None, 1),
        }

    def test_names_the_base_of_an_active_commit(self) -> None:
        assert self.disks(merged(ACTIVE).redefine)["vda"] == ("/share/volume-1", "raw", 1)

    @pytest.mark.parametrize("merge", [COMMIT, PULL])
    def test_stays_where_the_active_file_does(self, merge: MergePlan) -> None:
        assert merged(merge).redefine is None

    def test_keeps_everything_else(self) -> None:
        changed = pointed_to(DEFINITION, {"vda": point("/share/<&", "raw")})
        for kept in ('type="kvm"', 'cache="none"', 'bus="virtio"', 'device="cdrom"'):
            assert kept in changed
        assert "/share/&lt;&amp;" in changed
        assert "backingStore" not in changed

    def test_driver_that_was_not_named(self) -> None:
        changed = pointed_to(DEFINITION, {"vdb": point("/share/c", "qcow2")})
        assert '<driver name="qemu" type="qcow2"/>' in changed
        assert "backingStore" in changed

    @pytest.mark.parametrize("name", ["vdz", "sda"])
    def test_disk_that_has_no_file(self, name: str) -> None:
        assert pointed_to(DEFINITION, {name: point("/x", "raw")}) == pointed_to(DEFINITION, {})

    def test_changed_in_between(self) -> None:
        """What somebody else has edited since the plan stays as it is."""
        step = merged(ACTIVE).redefine
        assert isinstance(step, Redefine)
        edited = DEFINITION.replace("<name>web1</name>", "<name>web1</name><memory>7</memory>")
        again = str(step.again_from(edited).arguments["xml"])
        assert "<memory>7</memory>" in again
        assert self.disks(step.again_from(edited))["vda"] == ("/share/volume-1", "raw", 1)
        same = edited.replace("/share/volume-1.s2", "/share//./volume-1.s2")
        assert self.disks(step.again_from(same))["vda"] == ("/share/volume-1", "raw", 1)
        with pytest.raises(PointsElsewhere, match=r"vda is defined with /elsewhere"):
            step.again_from(edited.replace("/share/volume-1.s2", "/elsewhere"))
        with pytest.raises(PointsElsewhere, match="None"):
            step.again_from("<domain/>")


class TestRefused:
    def test_with_a_saved_memory(self) -> None:
        """It goes on with the files that it had."""
        saved = State(run="off", saved=True)
        with pytest.raises(MemorySaved, match="web1"):
            snapshot(saved)
        with pytest.raises(MemorySaved):
            COMPOSER.merge(PULL, DEFAULT_OPTIONS, saved)

    def test_a_job_that_nobody_could_resume(self) -> None:
        with pytest.raises(PauseUnsupported):
            COMPOSER.merge(PULL, MergeOptions(on_error=OnError.PAUSE), OFF)

    def test_a_freeze(self) -> None:
        with pytest.raises(CannotFreeze, match="is off"):
            COMPOSER.freeze(1)


def test_nothing_is_left_by_a_call_that_died() -> None:
    """Its QEMU has ended with it."""
    assert COMPOSER.unsafe(()) == COMPOSER.leftovers(samples.guest(), ()) == ()


def test_nothing_is_in_anybodys_memory() -> None:
    assert COMPOSER.flush(PULL.top, "vda") is None
