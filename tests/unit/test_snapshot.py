"""A snapshot of a guest in memory: what each outcome and each interruption becomes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.monitor.base import (
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    LostInMidCommand,
)
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Overlay, Thawed
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    NamesAnother,
    OpenedAnother,
    OutcomeUnknown,
    XmlBehind,
)
from qmpsnap.operations.plan_snapshot import DiskTwice
from qmpsnap.operations.quiesce import (
    CannotFreeze,
    NotConsistent,
    NotThawed,
    Policy,
    Quiesce,
)
from qmpsnap.operations.requests import BadFileName, CreateRequest
from qmpsnap.operations.snapshot import SizeChanged, create, create_all
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.unchanged import GraphChanged
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest, with_layers
from tests.unit.test_merge import GONE, guest, lagging

CREATE = CreateRequest(disk="1", new_file="volume-1.new", snapshot="new")
CORRECTED = "corrected the header of volume-1.new: backing format"
NEVER = Quiesce()
REQUIRE = Quiesce(policy=Policy.REQUIRE)
TRY = Quiesce(policy=Policy.TRY)
INTERRUPTIONS = [
    CommandFailed("transaction", "GenericError", "no"),
    LostInMidCommand("transaction", "gone"),
    CommandTimedOut("transaction", 30),
    KeyboardInterrupt(),
]

INTERRUPTED = r"^the snapshot of volume-1\.new could not be followed to its end: it was interrupted"


class TestLocks:
    """One operation a disk at a time."""

    def test_what_is_locked(self) -> None:
        fake = guest(depth=2, identity=("file", 1, 2))
        fake.identities = dict.fromkeys(("/share/volume-1.s1", "/share/volume-1"), ("file", 1, 2))
        create(fake, CREATE)
        assert fake.claimed.taken == ["/share/volume-1.s1", "/share/volume-1.new"]

    def test_refused_while_another_one_is_at_work(self) -> None:
        fake = guest(depth=2, identity=("file", 1, 2))
        fake.claimed_by_others = {"/share/volume-1.s1"}
        with pytest.raises(DiskLocked):
            create(fake, CREATE)
        assert fake.calls == ["read"]

    def test_overlay_that_another_one_has(self) -> None:
        fake = guest(depth=2)
        fake.claimed_by_others = {"/share/volume-1.new"}
        with pytest.raises(DiskLocked):
            create(fake, CREATE)
        assert "make" not in fake.calls

    def test_lock_that_is_not_as_it_should_be_is_said(self) -> None:
        fake = guest(depth=2)
        fake.lock_notes = ("elsewhere",)
        assert "elsewhere" in create(fake, CREATE).notes


class TestNames:
    """What the names of the chain lead to."""

    def test_one_that_leads_to_another_file_afterwards(self) -> None:
        fake = guest(depth=2)
        layers = samples.linked([samples.layer("volume-1.new"), *fake.guest.disks[0].layers])
        another = replace(
            layers[2], flags=("replaced",), sight="its name leads to another file now"
        )
        fake.readings = [with_layers(fake.guest, [*layers[:2], another])]
        with pytest.raises(NamesAnother, match="the snapshot is done, but /share/volume-1 is not"):
            create(fake, CREATE)

    def test_what_cannot_be_seen_is_said(self) -> None:
        fake = guest(depth=2, flags=("not-seen",), sight="a proxy")
        assert any("could not be seen (a proxy)" in note for note in create(fake, CREATE).notes)


class TestCreate:
    @pytest.mark.parametrize("base", ["raw", "qcow2"])
    @pytest.mark.parametrize("depth", range(1, 9))
    def test_done(self, depth: int, base: str) -> None:
        fake = guest(depth=depth, base=base)
        result = create(fake, CREATE)
        assert samples.files(result.disk) == ["volume-1.new", *samples.names(depth)]
        assert result.file_format == {"volume-1.new": "qcow2"}
        assert (result.dropped, result.notes) == ((), ())
        assert fake.calls == ["read", "overlay", "make", "open", "read", "switch", "read"]
        assert fake.existing == {"/share/volume-1.new"}

    @pytest.mark.parametrize(
        ("recorded", "notes"),
        [
            ("qcow2", ()),
            ("raw", (f"{CORRECTED} raw -> qcow2",)),
            (None, (f"{CORRECTED} nothing -> qcow2",)),
        ],
    )
    def test_corrections_are_told(self, recorded: str | None, notes: tuple[str, ...]) -> None:
        fake = guest()
        fake.found = Overlay(is_there=True, recorded=("volume-1.s2", recorded))
        assert create(fake, CREATE).notes == notes

    def test_disk_that_was_resized_meanwhile(self) -> None:
        """The overlay has the size of the plan; nothing is lost, and somebody has to know."""
        as_ever, fake = guest(), guest()
        overlay, active, *below = create(as_ever, CREATE).disk.layers
        disk = replace(
            as_ever.guest.disks[0], layers=(overlay, replace(active, virtual_size=99), *below)
        )
        fake.readings = [samples.guest(disk)]
        with pytest.raises(SizeChanged, match="resized to 99 bytes") as caught:
            create(fake, CREATE)
        assert (caught.value.wanted, caught.value.changed) == (99, "yes")
        assert fake.existing == {"/share/volume-1.new"}

    def test_refused_plan_touches_nothing(self) -> None:
        fake = guest()
        with pytest.raises(BadFileName):
            create(fake, replace(CREATE, new_file="volume-1.s1"))
        assert fake.calls == ["read"]

    def test_overlay_that_cannot_be_made(self) -> None:
        fake = guest()
        fake.fails["make"] = CommandFailed("a", "b", "c")
        with pytest.raises(CommandFailed):
            create(fake, CREATE)
        assert fake.calls == ["read", "overlay", "make"]

    def test_overlay_that_is_there_and_does_not_suit(self) -> None:
        fake = guest()
        fake.fails["overlay"] = BadFileName("a", "b", "c")
        with pytest.raises(BadFileName):
            create(fake, CREATE)
        assert fake.calls == ["read", "overlay"]

    @pytest.mark.parametrize("error", INTERRUPTIONS)
    def test_overlay_that_we_made_is_discarded_when_the_guest_did_not_take_it(
        self, error: BaseException
    ) -> None:
        fake = guest()
        fake.fails["switch"] = error
        with pytest.raises(type(error)) as caught:
            create(fake, CREATE)
        assert caught.value is error
        assert fake.calls[2:] == ["make", "open", "read", "switch", "close", "read", "discard"]
        assert (fake.existing, fake.nodes) == (set(), set())

    def test_overlay_that_cannot_be_removed_does_not_hide_why(self) -> None:
        fake = guest()
        fake.fails = {
            "switch": CommandFailed("transaction", "GenericError", "no"),
            "discard": CommandFailed("unlink", "", "read-only"),
        }
        with pytest.raises(CommandFailed, match="transaction"):
            create(fake, CREATE)

    def test_overlay_that_was_there_before_is_kept(self) -> None:
        fake = guest()
        fake.found = Overlay(is_there=True)
        fake.fails["switch"] = CommandFailed("transaction", "GenericError", "no")
        with pytest.raises(CommandFailed):
            create(fake, CREATE)
        assert "discard" not in fake.calls
        assert fake.existing == {"/share/volume-1.new"}

    def test_what_was_not_looked_at_beside_an_overlay_that_was_there(self) -> None:
        fake = guest()
        fake.around = Surroundings(
            older={"/share/volume-1.new": ("/share/leaf",)}, notes=("more than 1000 files",)
        )
        assert create(fake, CREATE).notes == ()
        fake.found, fake.guest = Overlay(is_there=True), guest().guest
        seen, older = create(fake, CREATE).notes
        assert seen == "more than 1000 files"
        assert older.startswith("images that rest on volume-1.new by their headers count as left")

    @pytest.mark.parametrize("error", INTERRUPTIONS[1:])
    def test_reply_that_was_lost_and_would_have_been_a_yes(self, error: BaseException) -> None:
        fake = guest()
        fake.fails_after["switch"] = error
        assert create(fake, CREATE).file_format == {"volume-1.new": "qcow2"}
        assert fake.existing == {"/share/volume-1.new"}

    @pytest.mark.parametrize("gone", GONE)
    def test_guest_that_is_gone_afterwards(self, gone: QmpsnapError) -> None:
        class Dies(FakeGuest):
            def _switch(self) -> None:
                self.fails["read"] = gone
                raise LostInMidCommand("transaction", "gone")

        fake = Dies(samples.guest(samples.disk(3)))
        with pytest.raises(OutcomeUnknown, match=r"snapshot of volume-1\.new") as caught:
            create(fake, CREATE)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")
        assert fake.existing == {"/share/volume-1.new"}

    def test_ctrl_c_after_the_switch_is_no_create_that_did_not_happen(self) -> None:
        class Interrupted(FakeGuest):
            def _switch(self) -> None:
                super()._switch()
                self.fails["read"] = KeyboardInterrupt()

        fake = Interrupted(samples.guest(samples.disk(3)))
        with pytest.raises(OutcomeUnknown, match=INTERRUPTED) as caught:
            create(fake, CREATE)
        assert "start it from volume-1.new where that is there" in caught.value.way_out
        assert fake.existing == {"/share/volume-1.new"}

    def test_ctrl_c_while_its_header_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_arguments: object) -> None:
            raise KeyboardInterrupt

        fake = FakeGuest(samples.guest(samples.disk(3)))
        monkeypatch.setattr("qmpsnap.operations.snapshot.ensured", interrupted)
        with pytest.raises(OutcomeUnknown, match=INTERRUPTED) as caught:
            create(fake, CREATE)
        assert "start it from volume-1.new where that is there" in caught.value.way_out
        assert fake.existing == {"/share/volume-1.new"}

    def test_guest_that_is_gone_before_changes_nothing(self) -> None:
        fake = guest()
        fake.fails["read"] = ConnectionLost("query-jobs", "gone")
        with pytest.raises(ConnectionLost) as caught:
            create(fake, CREATE)
        assert caught.value.exit_code == 7

    @pytest.mark.parametrize("depth", [1, 2])
    def test_chain_that_is_neither_the_old_nor_the_new_one(self, depth: int) -> None:
        fake = guest()
        fake.readings = [samples.guest(samples.disk(depth))]
        with pytest.raises(ChainUnexpected) as caught:
            create(fake, CREATE)
        assert isinstance(caught.value, Failed)
        assert caught.value.kind == "snapshot"
        assert "discard" not in fake.calls

    def test_switch_that_did_nothing_without_an_error(self) -> None:
        fake = guest()
        fake.readings = [fake.guest]
        with pytest.raises(ChainUnexpected, match=r"volume-1\.new on top"):
            create(fake, CREATE)
        assert fake.existing == set()

    @pytest.mark.parametrize("written", [None, "raw"])
    def test_header_that_is_wrong_is_mended(self, written: str | None) -> None:
        fake = guest()
        fake.readings = [after_create(written)]
        done = create(fake, CREATE)
        (repaired,) = done.repaired
        assert repaired.startswith("the header of volume-1.new: it records")
        assert done.disk.layers[0].backing_format == "qcow2"
        assert fake.calls[-6:] == ["follow", "start", "wait", "view", "settled", "read"]
        assert "discard" not in fake.calls

    def test_header_of_a_guest_that_is_off_is_mended_while_its_chain_is_held(self) -> None:
        fake = guest()
        fake.is_off = True
        fake.readings = [after_create(None)]
        assert create(fake, CREATE).repaired
        last = len(fake.calls) - 1 - fake.calls[::-1].index("start")
        assert fake.calls[last - 2 : last] == ["hold", "follow"]
        assert "release" in fake.calls[last:]

    @pytest.mark.parametrize(
        ("made", "now", "another"),
        [
            (("file", 1, 2), ("file", 1, 2), False),
            (("file", 1, 2), ("file", 1, 3), True),
            (None, ("file", 1, 3), False),
            (("file", 1, 2), None, False),
        ],
    )
    def test_what_is_on_the_disk_is_what_was_made(
        self, made: Identity | None, now: Identity | None, another: bool
    ) -> None:
        fake = guest()
        fake.made_as, fake.switched_as = made, now
        fake.identities = {"/share/volume-1.new": made} if made else {}
        if another:
            with pytest.raises(OpenedAnother, match=r"during the snapshot QEMU opened"):
                create(fake, CREATE)
        else:
            assert create(fake, CREATE).file_format == {"volume-1.new": "qcow2"}

    def test_what_is_said_of_each_overlay(self) -> None:
        layers = samples.linked([samples.layer("volume-2.s1"), samples.layer("volume-2", "raw")])
        second = samples.disk(disk="vdb", serial="2", layers=layers, root="volume-2.s1-node")
        fake = FakeGuest(samples.guest(samples.disk(2), second))
        fake.notes = ("of the first", "")
        done = create_all(fake, [CREATE, replace(CREATE, disk="vdb", new_file="volume-2.new")])
        assert [one.notes for one in done] == [("of the first",), ()]

    def test_header_that_stays_wrong(self) -> None:
        fake = guest()
        fake.readings = [after_create(None), after_create(None)]
        with pytest.raises(HeaderWrong, match=r"header of volume-1\.new .*no backing") as caught:
            create(fake, CREATE)
        assert "discard" not in fake.calls
        command = "qemu-img rebase -u -f qcow2 -b volume-1.s2 -F qcow2 /share/volume-1.new"
        assert command in caught.value.way_out

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (CommandFailed("block-stream", "", "no"), "QEMU refused block-stream: no"),
            (KeyboardInterrupt(), "it was interrupted"),
        ],
    )
    def test_header_that_cannot_be_mended_now(self, error: BaseException, why: str) -> None:
        fake = guest()
        fake.readings = [after_create(None)]
        fake.fails["start"] = error
        with pytest.raises(HeaderWrong, match=f"Mending it failed: {why}") as caught:
            create(fake, CREATE)
        assert (caught.value.exit_code, caught.value.changed) == (1, "yes")

    def test_active_header_is_mended_while_it_is_the_active_one(self) -> None:
        fake = FakeGuest(samples.guest(without_format(samples.disk(3))))
        done = create(fake, CREATE)
        assert fake.calls.index("start") < fake.calls.index("switch")
        (repaired,) = done.repaired
        assert "the header of volume-1.s2: it records no backing format" in repaired
        assert done.disk.layers[1].backing_format == "qcow2"

    def test_active_header_that_cannot_be_mended_is_a_note(self) -> None:
        fake = FakeGuest(samples.guest(without_format(samples.disk(3))))
        fake.fails["start"] = CommandFailed("block-stream", "", "busy")
        done = create(fake, CREATE)
        (note,) = done.notes
        assert "qemu-img rebase -u -f qcow2 -b volume-1.s1 -F qcow2 /share/volume-1.s2" in note
        assert done.repaired == ()

    def test_active_header_is_mended_in_the_planned_graph_only(self) -> None:
        wrong = samples.changed_layer(samples.disk(3), 0, backing_format=None)
        fake = FakeGuest(samples.guest(wrong))
        fake.meanwhile["overlay"] = samples.guest(samples.disk(4))
        with pytest.raises(GraphChanged):
            create(fake, CREATE)
        assert fake.calls == ["read", "overlay", "read"]

    def test_active_header_of_one_of_two_disks_is_mended_in_the_planned_graph_only(self) -> None:
        both = two_disks()
        first, second = both.guest.disks
        wrong = samples.changed_layer(first, 0, backing_format=None)
        fake = FakeGuest(samples.guest(wrong, second))
        fake.meanwhile["overlay"] = samples.guest(samples.disk(4), second)
        with pytest.raises(GraphChanged):
            create_all(fake, BOTH)
        assert "start" not in fake.calls

    def test_another_name_in_the_active_header_is_left_alone(self) -> None:
        moved = samples.changed_layer(samples.disk(3), 0, backing_name="/new/place/volume-1.s1")
        fake = FakeGuest(samples.guest(moved))
        done = create(fake, CREATE)
        assert "start" not in fake.calls
        assert done.repaired == ()

    def test_xml_that_follows_a_moment_later(self) -> None:
        fake = guest()
        fake.readings = [lagging(after_create())]
        assert create(fake, CREATE).disk.xml_differs is None
        assert fake.calls.count("read") == 4

    def test_xml_that_never_follows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qmpsnap.operations.fresh.XML_LAG_S", 0.0)
        fake = guest()
        fake.readings = [lagging(after_create())] * 100
        with pytest.raises(XmlBehind, match="libvirt sees less") as caught:
            create(fake, CREATE)
        assert isinstance(caught.value, Failed)
        assert "discard" not in fake.calls


class TestOff:
    """A guest that is off: its chain is held, and looked at again once it is."""

    def test_done(self) -> None:
        fake = guest()
        fake.is_off = True
        create(fake, CREATE)
        held = ["read", "make", "open", "read", "switch", "read"]
        assert fake.calls == ["read", "overlay", "hold", *held, "release"]

    def test_chain_that_changed_before_it_was_held(self) -> None:
        fake = guest()
        fake.is_off, fake.meanwhile = True, {"hold": samples.guest(samples.disk(4))}
        with pytest.raises(GraphChanged):
            create(fake, CREATE)
        assert "make" not in fake.calls
        assert fake.calls[-1] == "release"


class TestSomebodyElse:
    """Every step checks that the graph is still the one that the plan was made from."""

    @pytest.mark.parametrize(
        ("step", "quiesce"),
        [
            ("overlay", NEVER),
            ("open", NEVER),
            ("make", REQUIRE),
            ("open", REQUIRE),
            ("freeze", REQUIRE),
        ],
    )
    def test_took_a_snapshot_meanwhile(self, step: str, quiesce: Quiesce) -> None:
        fake = guest()
        fake.meanwhile[step] = samples.guest(samples.disk(4))
        with pytest.raises(
            GraphChanged, match=r"is volume-1 .*s3, and was volume-1 .*s2"
        ) as caught:
            create(fake, CREATE, quiesce)
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")
        assert "switch" not in fake.calls
        assert (fake.existing, fake.nodes, fake.frozen) == (set(), set(), 0)

    def test_took_the_disk_away(self) -> None:
        fake = guest()
        fake.meanwhile["open"] = Disks(guest=None, disks=())
        with pytest.raises(GraphChanged, match="disk vda is gone"):
            create(fake, CREATE)
        assert (fake.existing, fake.nodes) == (set(), set())

    def test_overlay_that_somebody_else_has_open_is_left_alone(self) -> None:
        fake = guest()
        theirs = after_create()
        fake.meanwhile["open"] = replace(theirs, open_files=frozenset({"/share/volume-1.new"}))
        with pytest.raises(GraphChanged):
            create(fake, CREATE)
        assert "discard" not in fake.calls

    def test_guest_that_is_gone_then_leaves_an_empty_overlay(self) -> None:
        fake = guest()
        fake.meanwhile["open"] = samples.guest(samples.disk(4))
        fake.fails["close"] = ConnectionLost("blockdev-del", "gone")
        with pytest.raises(GraphChanged):
            create(fake, CREATE)

    def test_frozen_for_ever_is_said(self) -> None:
        fake = guest()
        fake.meanwhile["freeze"] = samples.guest(samples.disk(4))
        fake.fails["thaw"] = NotThawed("no reply")
        with pytest.raises(NotThawed):
            create(fake, CREATE, REQUIRE)


def after_create(written: str | None = "qcow2") -> Disks:
    """The guest after `CREATE`, with this backing format in the header of the overlay."""
    layers = samples.linked([samples.layer("volume-1.new"), *samples.disk(3).layers])
    return with_layers(
        samples.guest(samples.disk(3)), (replace(layers[0], backing_format=written), *layers[1:])
    )


def without_format(disk: Disk) -> Disk:
    """The disk with no backing format in the header of its active layer."""
    return samples.changed_layer(disk, 0, backing_format=None)


BOTH = (
    CREATE,
    CreateRequest(disk="vdb", new_file=None, snapshot="new"),
)


def two_disks() -> FakeGuest:
    layers = samples.linked([samples.layer("volume-2.s1"), samples.layer("volume-2", "raw")])
    second = samples.disk(disk="vdb", serial="2", layers=layers, root="volume-2.s1-node")
    return FakeGuest(samples.guest(samples.disk(3), second))


class TestSeveralDisks:
    """`qmpbackup#5`, `OpenNebula#5523`: several disks are one unit, or are not."""

    def test_one_switch_for_all_and_one_result_for_each(self) -> None:
        fake = two_disks()
        first, second = create_all(fake, BOTH)
        made = ["overlay", "overlay", "make", "make", "open", "open"]
        assert fake.calls == ["read", *made, "read", "switch", "read"]
        assert first.file_format == {"volume-1.new": "qcow2"}
        assert second.file_format == {"volume-2.new": "qcow2"}
        assert samples.files(second.disk) == ["volume-2.new", "volume-2.s1", "volume-2"]

    def test_second_overlay_that_cannot_be_made_takes_the_first_with_it(self) -> None:
        class Full(FakeGuest):
            def take(self, step: Step) -> object:
                if step.does is Does.MAKE and self.existing:
                    raise CommandFailed("a", "b", "no space")
                return super().take(step)

        fake = Full(two_disks().guest)
        with pytest.raises(CommandFailed, match="no space"):
            create_all(fake, BOTH)
        assert fake.existing == set()
        assert "switch" not in fake.calls

    @pytest.mark.parametrize("error", INTERRUPTIONS)
    @pytest.mark.parametrize("step", ["open", "switch"])
    def test_failure_half_way_leaves_no_file_and_no_node(
        self, step: str, error: BaseException
    ) -> None:
        fake = two_disks()
        fake.fails[step] = error
        with pytest.raises(type(error)):
            create_all(fake, BOTH)
        assert (fake.existing, fake.nodes) == (set(), set())
        assert fake.guest == two_disks().guest

    def test_one_of_two_is_no_success(self) -> None:
        fake = two_disks()
        layers = samples.linked([samples.layer("volume-1.new"), *samples.disk(3).layers])
        fake.readings = [with_layers(fake.guest, layers)]
        with pytest.raises(ChainUnexpected, match=r"volume-2\.new over volume-2"):
            create_all(fake, BOTH)

    def test_disk_that_is_named_twice(self) -> None:
        fake = two_disks()
        with pytest.raises(DiskTwice, match="as '1' and as 'vda'"):
            create_all(fake, (CREATE, replace(CREATE, disk="vda", new_file="volume-1.other")))
        assert fake.calls == ["read"]

    def test_two_disks_that_would_get_one_file(self) -> None:
        fake = two_disks()
        with pytest.raises(BadFileName, match="the new file of vda as well"):
            create_all(fake, [replace(one, new_file="fresh") for one in BOTH])
        assert fake.calls == ["read"]


class TestQuiesce:
    @pytest.mark.parametrize("quiesce", [TRY, REQUIRE])
    def test_frozen_for_the_switch_alone(self, quiesce: Quiesce) -> None:
        fake = guest()
        result = create(fake, CREATE, quiesce)
        assert fake.calls[3:] == ["open", "freeze", "read", "switch", "thaw", "read"]
        assert (fake.was_frozen, fake.frozen) == ([2], 0)
        assert (result.consistency, result.notes) == ("filesystem", ())
        assert result.frozen_s is not None

    def test_not_asked_for(self) -> None:
        fake = guest()
        result = create(fake, CREATE)
        assert not {"freeze", "thaw"} & set(fake.calls)
        assert (result.consistency, result.frozen_s) == ("crash", None)

    @pytest.mark.parametrize("error", INTERRUPTIONS)
    @pytest.mark.parametrize("quiesce", [TRY, REQUIRE])
    def test_thaw_after_every_error_of_the_switch(
        self, quiesce: Quiesce, error: BaseException
    ) -> None:
        """`OpenNebula: no ensure around the thaw`."""
        fake = guest()
        fake.fails["switch"] = error
        with pytest.raises(type(error)):
            create(fake, CREATE, quiesce)
        assert (fake.frozen, fake.existing, fake.nodes) == (0, set(), set())
        assert "thaw" in fake.calls

    def test_thaw_after_a_ctrl_c_that_hides_the_reply_to_the_freeze(self) -> None:
        fake = guest()
        fake.fails_after["freeze"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            create(fake, CREATE, TRY)
        assert (fake.frozen, fake.existing, fake.nodes) == (0, set(), set())
        assert "switch" not in fake.calls

    def test_ctrl_c_during_the_thaw_is_no_proof_that_it_held(self) -> None:
        fake = guest()
        fake.fails_after["thaw"] = KeyboardInterrupt()
        result = create(fake, CREATE, TRY)
        assert result.consistency == "crash"

    def test_reply_that_was_lost_while_frozen(self) -> None:
        fake = guest()
        fake.fails_after["switch"] = LostInMidCommand("transaction", "gone")
        assert create(fake, CREATE, REQUIRE).consistency == "filesystem"

    @pytest.mark.parametrize("asked", [False, True])
    def test_try_without_a_freeze_is_crash_consistent_and_says_so(self, asked: bool) -> None:
        fake = guest()
        fake.fails["freeze"] = CannotFreeze("no agent", asked=asked)
        result = create(fake, CREATE, TRY)
        assert result.consistency == "crash"
        (note,) = result.notes
        assert "no agent; the snapshot is crash-consistent" in note
        # What was asked for may come late: it is thawed before the switch.
        expected = ["freeze", "thaw", "read"] if asked else ["freeze", "read"]
        assert fake.calls[4:-2] == expected

    @pytest.mark.parametrize("run", ["running", "paused"])
    def test_try_where_there_is_nobody_to_ask(self, run: str) -> None:
        fake = guest()
        fake.run, fake.fails["compose-freeze"] = run, CannotFreeze("no agent")
        result = create(fake, CREATE, TRY)
        assert (result.consistency, "freeze" in fake.calls) == ("crash", False)
        assert result.notes[0].endswith("; the snapshot is crash-consistent")
        fake = guest()
        fake.run, fake.fails["compose-freeze"] = run, CannotFreeze("no agent")
        with pytest.raises(CannotFreeze):
            create(fake, CREATE, REQUIRE)
        assert (fake.existing, fake.nodes) == (set(), set())

    @pytest.mark.parametrize("asked", [False, True])
    def test_require_without_a_freeze_is_refused_and_nothing_is_left(self, asked: bool) -> None:
        fake = guest()
        fake.fails["freeze"] = CannotFreeze("no agent", asked=asked)
        with pytest.raises(CannotFreeze) as caught:
            create(fake, CREATE, REQUIRE)
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")
        assert (fake.existing, fake.nodes) == (set(), set())
        assert "switch" not in fake.calls
        assert ("thaw" in fake.calls) == asked

    def test_nothing_that_can_be_frozen_is_no_freeze(self) -> None:
        fake = guest()
        fake.filesystems = 0
        assert create(fake, CREATE, TRY).consistency == "crash"
        with pytest.raises(CannotFreeze, match="it has none"):
            create(fake, replace(CREATE, new_file="volume-1.two"), REQUIRE)

    def test_half_frozen_and_not_thawed_is_not_called_refused(self) -> None:
        fake = guest()
        fake.fails["freeze"] = CannotFreeze("no reply", asked=True)
        fake.fails["thaw"] = NotThawed("no reply")
        with pytest.raises(NotThawed) as caught:
            create(fake, CREATE, REQUIRE)
        assert (caught.value.exit_code, caught.value.changed) == (1, "unknown")
        assert (fake.existing, fake.nodes) == (set(), set())

    @pytest.mark.parametrize(
        ("thaws", "why"),
        [
            (Thawed(count=1), "of 2 frozen filesystems 1 were still frozen"),
            (Thawed(count=0), "of 2 frozen filesystems 0 were still frozen"),
            (Thawed(count=2, problem="limited up to 10 seconds"), "limited up to 10 seconds"),
        ],
    )
    def test_freeze_that_did_not_hold(self, thaws: Thawed, why: str) -> None:
        """`Windows 10 s`: its VSS thaws by itself, and tells it only at the thaw."""
        fake = guest()
        fake.thaws = thaws
        result = create(fake, CREATE, TRY)
        assert result.consistency == "crash"
        assert why in result.notes[0]
        with pytest.raises(NotConsistent, match=r"volume-1\.two") as caught:
            create(fake, replace(CREATE, new_file="volume-1.two"), REQUIRE)
        assert why in str(caught.value)
        assert "/share/volume-1.two" in fake.existing  # it is in the chain

    def test_thaw_that_is_not_confirmed(self) -> None:
        fake = guest()
        fake.fails["thaw"] = NotThawed("no reply")
        result = create(fake, CREATE, TRY)
        assert result.consistency == "crash"
        assert "has not confirmed that its filesystems are thawed: no reply" in result.notes[0]
        with pytest.raises(NotThawed):
            create(fake, replace(CREATE, new_file="volume-1.two"), REQUIRE)

    def test_error_of_the_switch_does_not_hide_a_guest_that_may_be_frozen(self) -> None:
        fake = guest()
        fake.fails["switch"] = CommandFailed("transaction", "GenericError", "no")
        fake.fails["thaw"] = NotThawed("no reply")
        with pytest.raises(NotThawed):
            create(fake, CREATE, TRY)
        assert (fake.existing, fake.nodes) == (set(), set())
