"""A guest that is off: what holds its chain, and what its definition becomes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from qmpsnap.formats.verdict import Witness
from qmpsnap.graph import xml
from qmpsnap.guests.offline.definition import (
    Edit,
    Place,
    PointsElsewhere,
    Redefine,
    edited,
    names_below,
)
from qmpsnap.guests.offline.steps import BaseElsewhere, MemorySaved, OfflineComposer, with_nodes
from qmpsnap.guests.offline.volumes import with_files
from qmpsnap.operations.guest import HeaderSteps, MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError, PauseUnsupported
from qmpsnap.operations.plan_header import rewrite
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import DiskUnsuitable
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


def over(path: str, old: tuple[str, ...] = ("/share/volume-1.s2",)) -> Edit:
    """A new overlay on the active file."""
    below = Place(path=old[0], format="qcow2", was=0)
    return Edit(old=old, new=(Place(path=path, format="qcow2", was=None), below))


def same(one: str, other: str) -> bool:
    return one == other


BASE = '<format type="raw"/><source file="/share/volume-1"/>'
ONE_FILE = re.sub("<backingStore.*</backingStore>", "", DEFINITION, flags=re.DOTALL)
TO_BASE = plan("volume-1", None)
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
    empty = with_nodes(samples.disk(layers=(), root=None))
    assert (empty.layers, empty.off, DISK.off) == ((), True, True)


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
        assert hold.by == "file"
        assert (release.by, release.what, release.arguments) == ("file", "close-chain", {})
        assert release.what == "close-chain"

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL])
    def test_nodes_go_with_the_qemu_that_has_them(self, merge: MergePlan) -> None:
        settle = words(*merged(merge).settle)
        assert settle == ["job-dismiss", *(["human-monitor-command"] if merge is PULL else [])]

    def test_all_in_order(self) -> None:
        flushed = ["human-monitor-command", "job-finalize", "job-dismiss"]
        assert words(*merged(COMMIT).all) == [
            *("open-chain", "virDomainDefineXML", "block-commit", *flushed),
            *("virDomainDefineXML", "close-chain"),
        ]
        pivoted = ["job-complete", "job-dismiss", "virDomainDefineXML"]
        assert words(*merged(ACTIVE).all) == [
            *("open-chain", "block-commit", *pivoted, "close-chain")
        ]
        assert words(*header().all) == ["open-chain", "block-stream", "fsync", "close-chain"]


class TestDefinition:
    def disks(self, step: Step | None) -> dict[str, list[tuple[str | None, str | None]]]:
        assert step is not None
        assert step.what == "virDomainDefineXML"
        found = xml.parse(str(step.arguments["xml"])).disks
        return {
            one.target: [(layer.path, layer.format) for layer in one.layers]
            for one in found
            if one.layers
        }

    def test_nests_what_it_named_below_the_overlay_of_a_snapshot(self) -> None:
        assert self.disks(snapshot().switch) == {
            "vda": [
                ("/share/volume-1.new", "qcow2"),
                ("/share/volume-1.s2", "qcow2"),
                ("/share/volume-1.s1", "qcow2"),
            ],
            "vdb": [("/share/b", None)],
        }

    def test_names_the_base_of_an_active_commit(self) -> None:
        assert merged(ACTIVE).forget is None
        assert self.disks(merged(ACTIVE).redefine)["vda"] == [("/share/volume-1", "raw")]

    def test_ends_above_what_a_commit_takes_out_and_is_completed_again(self) -> None:
        assert self.disks(merged(COMMIT).forget)["vda"] == [("/share/volume-1.s2", "qcow2")]
        # The base was never named: the header says it, as before.
        assert self.disks(merged(COMMIT).redefine)["vda"] == [("/share/volume-1.s2", "qcow2")]

    @pytest.mark.parametrize("merge", [COMMIT, PULL])
    def test_that_names_no_chain_stays_where_the_active_file_does(self, merge: MergePlan) -> None:
        steps = OfflineComposer("web1", lambda: ONE_FILE).merge(merge, DEFAULT_OPTIONS, OFF)
        assert (steps.forget, steps.redefine) == (None, None)

    @pytest.mark.parametrize(
        ("below", "is_ended"),
        [
            ("<backingStore/>", True),
            (f"<backingStore>{BASE}<backingStore/></backingStore>", True),
            (f"<backingStore>{BASE}</backingStore>", False),
        ],
    )
    def test_names_again_what_a_pull_took_out(self, below: str, is_ended: bool) -> None:
        merge = TO_BASE if BASE in below else PULL
        text = re.sub("<backingStore.*</backingStore>", below, DEFINITION, flags=re.DOTALL)
        step = OfflineComposer("web1", lambda: text).below_again(merge)
        assert self.disks(step)["vda"] == [(one["path"], one["format"]) for one in CHAIN]
        assert step is not None
        (disk, *_) = xml.parse(str(step.arguments["xml"])).disks
        assert disk.ended == is_ended

    def test_names_nothing_again_where_headers_alone_tell(self) -> None:
        assert OfflineComposer("web1", lambda: ONE_FILE).below_again(PULL) is None

    def test_keeps_everything_else(self) -> None:
        changed = edited(DEFINITION, {"vda": over("/share/<&")})
        for kept in ('type="kvm"', 'cache="none"', 'bus="virtio"', 'device="cdrom"'):
            assert kept in changed
        assert "/share/&lt;&amp;" in changed

    def test_driver_that_was_not_named(self) -> None:
        changed = edited(DEFINITION, {"vdb": over("/share/c", old=("/share/b",))})
        assert '<driver name="qemu" type="qcow2"/>' in changed

    @pytest.mark.parametrize("name", ["vdz", "sda"])
    def test_disk_that_has_no_file(self, name: str) -> None:
        assert edited(DEFINITION, {name: over("/x")}) == edited(DEFINITION, {})

    def test_changed_in_between(self) -> None:
        """What somebody else has edited since the plan stays as it is."""
        step = merged(ACTIVE).redefine
        assert isinstance(step, Redefine)
        named = DEFINITION.replace("<name>web1</name>", "<name>web1</name><memory>7</memory>")
        again = step.again_from(named, same)
        assert "<memory>7</memory>" in str(again.arguments["xml"])
        assert self.disks(again)["vda"] == [("/share/volume-1", "raw")]
        spelled = named.replace("/share/volume-1.s2", "/share//./volume-1.s2")
        assert self.disks(step.again_from(spelled, same))["vda"] == [("/share/volume-1", "raw")]
        for wanted, elsewhere in (
            (r"vda is defined with /elsewhere", "/share/volume-1.s2"),
            (r"/share/volume-1.s2 over /elsewhere", "/share/volume-1.s1"),
        ):
            with pytest.raises(PointsElsewhere, match=wanted):
                step.again_from(named.replace(elsewhere, "/elsewhere"), same)
        with pytest.raises(PointsElsewhere, match="None"):
            step.again_from("<domain/>", same)

    def test_made_already(self) -> None:
        """A signal, or a crash, can come between libvirt's answer and ours."""
        for step in (merged(ACTIVE).redefine, snapshot().switch, merged(COMMIT).forget):
            assert isinstance(step, Redefine)
            done = str(step.arguments["xml"])
            assert self.disks(step.again_from(done, same)) == self.disks(step)

    def test_volume_of_a_pool(self) -> None:
        """It is known by its file, and keeps its own name below the new overlay."""
        source = '<source file="/share/volume-1.s2" index="3"/>'
        volume = '<source pool="p" volume="volume-1.s2"/>'
        text = DEFINITION.replace(source, volume)
        old = ("/share/volume-1.s2", "/share/volume-1.s1")
        step = Redefine.of(Does.SWITCH, text, {"vda": over("/share/new", old)})
        known, _ = with_files(text, lambda _pool, name: f"/share/{name}")
        again = str(step.again_from(text, same, known).arguments["xml"])
        assert (
            f'<source file="/share/new"/><backingStore type="file"><format type="qcow2"/>{volume}'
            in again
        )
        with pytest.raises(PointsElsewhere, match="None"):
            step.again_from(text, same)
        with pytest.raises(PointsElsewhere, match="with /else/volume-1"):
            step.again_from(text, same, with_files(text, lambda *_: "/else/volume-1.s2")[0])

    def test_other_name_of_the_same_file(self) -> None:
        step = merged(ACTIVE).redefine
        assert isinstance(step, Redefine)
        again = step.again_from(DEFINITION.replace("/share/", "/link/"), lambda *_: True)
        assert self.disks(again)["vda"] == [("/share/volume-1", "raw")]


LABEL = '<seclabel model="dac" relabel="no"/>'
A, B, C = "/share/a", "/share/b", "/share/c"


def named(*lower: str, end: str = "", attributes: str = 'type="file"') -> str:
    """A definition that names these qcow2 files (a device: block) below the active file A."""
    inside = end
    for path in reversed(lower):
        kind, attribute = ("block", "dev") if path.startswith("/dev/") else ("file", "file")
        source = f'<source {attribute}="{path}">{LABEL}</source>'
        inside = (
            f'<backingStore type="{kind}"><format type="qcow2"/>{source}{inside}</backingStore>'
        )
    return (
        f"<domain><devices><disk {attributes}><driver type='qcow2' cache='none'/>"
        f"<source file='{A}' startupPolicy='optional'>{LABEL}</source>{inside}"
        "<target dev='vda'/></disk></devices></domain>"
    )


def places(*was: int | None, device: bool = False) -> tuple[Place, ...]:
    old = (A, B, C)
    return tuple(
        Place(
            path="/share/new" if one is None else old[one],
            format="qcow2",
            is_block=device,
            was=one,
        )
        for one in was
    )


class TestEdit:
    """The chain that a definition names, and whether it says where that ends."""

    def chain(self, text: str, *new: int | None, names: int | None = None, least: int = 1) -> str:
        edit = Edit(old=(A, B, C), new=places(*new), names=names, least=least)
        (disk,) = xml.parse(edited(text, {"vda": edit})).disks
        end = ["."] if disk.ended else []
        return " ".join([str(layer.path).rpartition("/")[2] for layer in disk.layers] + end)

    @pytest.mark.parametrize(
        ("new", "silent", "upper", "whole", "ended"),
        [
            ((None, 0, 1, 2), "new", "new a b", "new a b c", "new a b c ."),
            ((0, 2), "a", "a", "a c", "a c ."),
            ((0, 1), "a", "a b", "a b", "a b ."),
            ((0,), "a", "a", "a", "a ."),
            ((1, 2), "b", "b", "b c", "b c ."),
            ((2,), "c", "c", "c", "c ."),
        ],
    )
    def test_new_chain(
        self, new: tuple[int | None, ...], silent: str, upper: str, whole: str, ended: str
    ) -> None:
        assert self.chain(named(), *new) == silent
        assert self.chain(named(B), *new) == upper
        assert self.chain(named(B, C), *new) == whole
        assert self.chain(named(B, C, end="<backingStore/>"), *new) == ended

    @pytest.mark.parametrize("end", ["", "<backingStore/>"])
    def test_shortened(self, end: str) -> None:
        text = named(B, C, end=end)
        assert self.chain(text, 0, 1, 2, names=1) == "a"
        assert self.chain(text, 0, 1, 2, names=2) == "a b"

    def test_two_are_named_where_the_header_of_the_first_leads_elsewhere(self) -> None:
        """The active file only, as before; and not that the chain ends there."""
        assert self.chain(named(), None, 0, 1, 2, least=2) == "new a"
        assert self.chain(named(B), None, 0, 1, 2, least=2) == "new a b"
        assert self.chain(named(end="<backingStore/>"), None, 0, least=2) == "new a ."

    def test_what_was_shortened_is_named_again(self) -> None:
        text = named(B, C, end="<backingStore/>")
        old = (A, B, C)
        before = Redefine.of(
            Does.FORGET, text, {"vda": Edit(old=old, new=places(0, 1, 2), names=1)}
        )
        after = Redefine.of(Does.REDEFINE, text, {"vda": Edit(old=old, new=places(0, 2))})
        short = str(before.again_from(text, same).arguments["xml"])
        (disk,) = xml.parse(str(after.again_from(short, same).arguments["xml"])).disks
        assert ([layer.path for layer in disk.layers], disk.ended) == ([A, C], True)

    def test_labels_and_kinds_go_with_their_files(self) -> None:
        text = named("/dev/vg/lv", C)
        edit = Edit(old=(A, "/dev/vg/lv", C), new=places(1, 2))
        changed = edited(text, {"vda": edit})
        assert '<disk type="block">' in changed
        assert f'<source dev="/dev/vg/lv" startupPolicy="optional">{LABEL}</source>' in changed
        assert A not in changed
        over = edited(text, {"vda": Edit(old=(A, "/dev/vg/lv", C), new=places(None, 0, 1))})
        assert '<disk type="file">' in over
        assert f'<source file="/share/new" startupPolicy="optional">{LABEL}</source>' in over
        assert f'<backingStore type="file"><format type="qcow2"/><source file="{A}">' in over
        assert '<backingStore type="block">' in over

    @pytest.mark.parametrize("place", ["source", "disk"])
    def test_secrets_go_with_their_files(self, place: str) -> None:
        """What is encrypted stays named: no header tells a secret."""
        encryption = '<encryption format="luks"><secret type="passphrase" uuid="5e"/></encryption>'
        after = LABEL + "</source>"
        put = encryption + after if place == "source" else after + encryption
        text = named().replace(after, put)
        new = (Place(path="/share/new", format="qcow2", secret="6f", was=None), *places(0, 1, 2))
        changed = edited(text, {"vda": Edit(old=(A, B, C), new=new, least=2)})
        (disk,) = xml.parse(changed).disks
        assert [(layer.path, layer.secret) for layer in disk.layers] == [
            ("/share/new", "6f"),
            (A, "5e"),
        ]
        assert changed.count("<encryption") == 2

    def test_overlay_over_a_block_device(self) -> None:
        text = named(attributes='type="block"').replace("file='/share/a'", "dev='/dev/a'")
        changed = edited(text, {"vda": Edit(old=("/dev/a",), new=places(None, 0))})
        assert '<disk type="file">' in changed
        assert "/dev/a" not in changed

    def test_base_that_was_not_named_and_is_a_block_device(self) -> None:
        edit = Edit(old=(A, B, C), new=places(1, device=True))
        changed = edited(named(), {"vda": edit})
        assert '<disk type="block">' in changed
        assert f'dev="{B}"' in changed

    def test_format_that_the_definition_has_not_told_is_told(self) -> None:
        text = named(B).replace("<driver type='qcow2' cache='none'/>", "")
        changed = edited(text, {"vda": Edit(old=(A, B, C), new=places(None, 0, 1))})
        assert f'<backingStore type="file"><format type="qcow2"/><source file="{A}">' in changed

    def test_whether_something_is_said_of_what_lies_below(self) -> None:
        assert not names_below(named(), "vda", 0)
        assert names_below(named(end="<backingStore/>"), "vda", 0)
        assert names_below(named(B), "vda", 0)
        assert not names_below(named(B), "vda", 1)
        assert names_below(named(B, end="<backingStore/>"), "vda", 1)
        assert not names_below(named(B), "vda", 2)
        assert not names_below(named(B), "vdz", 0)


@pytest.mark.parametrize(
    ("into", "least"),
    [(None, 1), ("/share", 1), ("/share/./", 1), ("/elsewhere", 2), ("/share/deeper", 2)],
)
def test_overlay_in_another_folder(into: str | None, least: int) -> None:
    """Its header leads out of its folder, so the definition says what lies below it."""
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new", into=into)
    guest = samples.guest(DISK)
    plans = plan_creates(guest, [request])
    steps = COMPOSER.snapshot(guest, plans, [Overlay(is_there=False)], OFF)
    assert isinstance(steps.switch, Redefine)
    assert steps.switch.edits["vda"].least == least
    ((overlay, active, *_),) = [xml.parse(str(steps.switch.arguments["xml"])).disks[0].layers]
    assert (overlay.path, active.path) == (plans[0].overlay, "/share/volume-1.s2")


def test_base_in_another_folder_is_not_gone_back_to() -> None:
    elsewhere = samples.changed_layer(DISK, 2, path="/elsewhere/volume-1")
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new", over="s1")
    guest = samples.guest(elsewhere)
    plans = plan_creates(guest, [request])
    with pytest.raises(BaseElsewhere, match="/elsewhere/volume-1 does not lie in the folder"):
        COMPOSER.snapshot(guest, plans, [Overlay(is_there=False)], OFF)


class TestRefused:
    def test_with_a_saved_memory(self) -> None:
        """It goes on with the files that it had."""
        saved = State(run="off", saved=True)
        with pytest.raises(MemorySaved, match="web1"):
            snapshot(saved)
        with pytest.raises(MemorySaved):
            COMPOSER.merge(PULL, DEFAULT_OPTIONS, saved)

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL])
    def test_a_format_that_no_header_records(self, merge: MergePlan) -> None:
        """A start after a crash in mid-job would go by the headers alone."""
        base = merge.disk.layers[-1]
        by_xml = tuple(one for one in base.evidence if one.witness is not Witness.HEADER)
        layers = (*merge.disk.layers[:-1], replace(base, evidence=by_xml))
        disk = replace(merge.disk, layers=layers)
        with pytest.raises(DiskUnsuitable, match=r"stands in the definition alone") as caught:
            COMPOSER.merge(replace(merge, disk=disk), DEFAULT_OPTIONS, OFF)
        command = "qemu-img rebase -u -f qcow2 -b volume-1 -F raw /share/volume-1.s1"
        assert command in caught.value.way_out

    @pytest.mark.parametrize(
        ("position", "name", "way_out"),
        [
            (1, "/elsewhere/x", "Start the guest"),
            (2, "../elsewhere/volume-1", "-b /elsewhere/volume-1 -F raw /share/volume-1.s1`"),
            (2, "/elsewhere/volume-1", None),
        ],
    )
    @pytest.mark.parametrize("merge", [("volume-1.s1", "volume-1"), (None, None)])
    def test_a_header_that_leads_to_another_folder(
        self,
        merge: tuple[str | None, str | None],
        position: int,
        name: str,
        way_out: str | None,
    ) -> None:
        """The definition ends above it while the job runs."""
        layers = list(DISK.layers)
        for number in range(position, 3):
            layers[number] = replace(layers[number], path=f"/elsewhere/{layers[number].file}")
        layers[position - 1] = replace(layers[position - 1], backing_name=name)
        request = DeleteRequest(disk="vda", file_to_merge=merge[0], merge_target_file=merge[1])
        guest = samples.guest(replace(DISK, layers=tuple(layers)))
        made = plan_delete(guest, request, foreign=True)
        if way_out is None:
            assert merged(made).forget is not None
            return
        with pytest.raises(DiskUnsuitable, match="whose header alone would name it") as caught:
            merged(made)
        assert way_out in caught.value.way_out
        silent = DEFINITION.replace("<backingStore", "<other").replace("</backingStore", "</other")
        assert OfflineComposer("web1", lambda: silent).merge(made, DEFAULT_OPTIONS, OFF)

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
