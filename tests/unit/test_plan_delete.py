"""What a delete will do, for every pair of layers in chains of up to eight, and what it refuses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, DiskNotFound, Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.operations.lengths import ShorterLayer
from qmpsnap.operations.names import SnapshotNotFound
from qmpsnap.operations.plan_merge import (
    FilterBetween,
    ForeignLayer,
    MergePlan,
    NothingToPull,
    NotInChain,
    WrongOrder,
    plan_delete,
)
from qmpsnap.operations.requests import DeleteRequest, Method, NamedDeleteRequest
from qmpsnap.operations.volume import DiskUnsuitable, FormatUncertain
from tests.unit import samples


def planned(disk: Disk, merge: str | None, target: str | None) -> MergePlan:
    request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
    return plan_delete(samples.guest(disk), request)


def named(disk: Disk, snapshot: str, method: Method = "auto") -> MergePlan:
    request = NamedDeleteRequest(disk="vda", snapshot=snapshot, method=method)
    return plan_delete(samples.guest(disk), request)


def files(layers: tuple[Layer, ...]) -> list[str]:
    return [layer.file for layer in layers]


PAIRS = [
    (depth, top, base)
    for depth in range(2, 9)
    for top in range(depth)
    for base in range(top + 1, depth)
]


class TestCommit:
    @pytest.mark.parametrize(("depth", "top", "base"), PAIRS)
    def test_every_pair_of_layers(self, depth: int, top: int, base: int) -> None:
        disk, names = samples.disk(depth), samples.names(depth)
        plan = planned(disk, names[top], names[base])
        assert plan.kind == ("commit" if top else "active-commit")
        layers = plan.disk.layers
        assert files(layers) == names
        assert (plan.top, plan.base) == (layers[top], layers[base])
        assert plan.above == (layers[top - 1] if top else None)
        assert plan.backing_name == (names[base] if top else None)
        assert files(plan.dropped) == names[top:base]
        assert files(plan.remaining) == names[:top] + names[base:]
        assert plan.written is plan.base
        assert files(plan.reported) == [names[base]]

    @pytest.mark.parametrize("depth", range(2, 9))
    def test_snapshot_by_name(self, depth: int) -> None:
        disk, names = samples.disk(depth), samples.names(depth)
        for position in range(depth - 1):
            snapshot = names[position].rpartition(".")[2]
            for method in ("auto", "commit"):
                expected = planned(disk, names[position], names[position + 1])
                assert replace(named(disk, snapshot, method), why="") == expected


SHORT, LONG, LONGER = samples.MIB, 2 * samples.MIB, 3 * samples.MIB
LENGTHS = [
    # of the active layer down to the base; what is merged; whether what is read stays the same
    ((SHORT, SHORT), (0, 1), True),
    ((LONG, SHORT), (0, 1), True),  # the base grows: a guard, not a plan
    ((SHORT, LONG), (0, 1), False),
    ((SHORT, None), (0, 1), None),
    ((None, LONG), (0, 1), None),
    ((LONG, SHORT, LONG), (1, 2), False),
    ((SHORT, SHORT, LONG), (1, 2), True),  # the layer above ends there too
    ((LONGER, SHORT, LONG), (1, 2), False),
    ((LONG, SHORT, SHORT), (1, 2), True),
    ((LONG, LONG, SHORT), (1, 2), True),
    ((LONG, SHORT, None), (1, 2), None),
    ((LONG, LONG, None), (1, 2), True),
    ((LONG, LONG, SHORT, LONG), (1, 3), True),  # QEMU minds the ends between
    ((LONG, LONG, SHORT, LONG), (2, 3), False),
    ((LONG, LONG, SHORT, LONG), (1, 2), True),
    ((LONG, SHORT, LONG), (None, 2), False),
    ((LONG, SHORT, SHORT), (None, 2), True),
    ((SHORT, SHORT, LONG), (None, 2), True),
    ((LONG, LONG, SHORT, LONG), (None, 3), True),
    ((LONG, SHORT, LONG, LONG), (None, 3), False),
    ((LONG, SHORT, LONG), (None, None), True),
    ((SHORT, LONG), (None, None), True),
    ((LONG, None, None), (None, None), True),
]


class TestLengths:
    @pytest.mark.parametrize(("sizes", "merge", "keeps"), LENGTHS)
    def test_what_a_shorter_layer_hides_stays_hidden(
        self,
        sizes: tuple[int | None, ...],
        merge: tuple[int | None, int | None],
        keeps: bool | None,
    ) -> None:
        disk, names = self._disk(sizes), samples.names(len(sizes))
        top, base = merge
        pull = names[base] if base is not None else None
        request = (pull, None) if top is None else (names[top], pull)
        if keeps:
            assert planned(disk, *request)
            return
        with pytest.raises(DiskUnsuitable if keeps is None else ShorterLayer) as caught:
            planned(disk, *request)
        assert ("is not known" in str(caught.value)) is (keeps is None)

    def test_way_out(self) -> None:
        with pytest.raises(
            ShorterLayer, match=r"volume-1\.s2 would read what volume-1 hold"
        ) as caught:
            planned(self._disk((LONG, SHORT, LONG)), "volume-1.s1", "volume-1")
        assert f"qemu-img resize -f qcow2 /share/volume-1.s1 {LONG}" in caught.value.way_out
        assert "--method pull" not in caught.value.way_out
        with pytest.raises(ShorterLayer, match="whose disk would grow") as caught:
            planned(self._disk((SHORT, LONG)), "volume-1.s1", "volume-1")
        assert "--method pull" in caught.value.way_out
        assert f"`block_resize` to {LONG}" in caught.value.way_out

    def test_auto_chooses_a_pull_where_a_commit_would_make_the_disk_grow(self) -> None:
        disk = self._disk((SHORT, LONG))
        plan = named(disk, "s1")
        assert (plan.kind, plan.base) == ("pull", None)
        assert f"grow to the {LONG} bytes of volume-1" in plan.why
        with pytest.raises(ShorterLayer):
            named(disk, "s1", "commit")
        with pytest.raises(ShorterLayer):
            named(self._disk((LONG, SHORT, LONG)), "s1")

    def _disk(self, sizes: tuple[int | None, ...]) -> Disk:
        disk = samples.disk(len(sizes))
        for position, size in enumerate(sizes):
            disk = samples.changed_layer(disk, position, virtual_size=size)
        return disk


class TestPull:
    @pytest.mark.parametrize("depth", range(2, 9))
    def test_whole_chain(self, depth: int) -> None:
        disk, names = samples.disk(depth), samples.names(depth)
        plan = planned(disk, None, None)
        assert (plan.kind, plan.top, plan.base) == ("pull", plan.disk.layers[0], None)
        assert (plan.above, plan.backing_name) == (plan.top, None)
        assert files(plan.dropped) == names[1:]
        assert files(plan.remaining) == names[:1]
        assert plan.written is plan.top
        assert files(plan.reported) == names[:1]

    @pytest.mark.parametrize(
        ("depth", "base"), [(depth, base) for depth in range(3, 9) for base in range(2, depth)]
    )
    def test_down_to_a_base(self, depth: int, base: int) -> None:
        disk, names = samples.disk(depth), samples.names(depth)
        plan = planned(disk, names[base], None)
        layers = plan.disk.layers
        assert (plan.kind, plan.top, plan.base) == ("pull", layers[0], layers[base])
        assert (plan.above, plan.backing_name) == (layers[0], names[base])
        assert files(plan.dropped) == names[1:base]
        assert files(plan.remaining) == [names[0], *names[base:]]
        assert plan.written is plan.top
        assert files(plan.reported) == [names[0], names[base]]

    def test_last_snapshot_by_name(self) -> None:
        assert named(samples.disk(2), "s1", "pull") == planned(samples.disk(2), None, None)

    @pytest.mark.parametrize("snapshot", ["s1", "s2"])
    def test_one_of_several_by_name(self, snapshot: str) -> None:
        """An older snapshot would afterwards go by the name of the deleted one."""
        with pytest.raises(DiskUnsuitable, match="only the last snapshot"):
            named(samples.disk(3), snapshot, "pull")

    def test_active_file_that_has_no_backing_entry_of_its_own(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 0, format="vmdk")
        with pytest.raises(DiskUnsuitable, match="not qcow2"):
            planned(disk, None, None)


class TestBackingName:
    """Relative names stay relative: the share may be mounted elsewhere at the next start."""

    @pytest.mark.parametrize(
        ("present", "expected"),
        [
            ("volume-1.s1", "volume-1"),
            ("./volume-1.s1", "volume-1"),
            ("/share/volume-1.s1", "/share/volume-1"),
            ('json:{"driver": "qcow2"}', "/share/volume-1"),
            (None, "/share/volume-1"),
        ],
    )
    @pytest.mark.parametrize(
        ("merge", "target", "above"),
        [("volume-1.s1", "volume-1", 0), ("volume-1", None, 0), ("volume-1.s2", "volume-1", 0)],
    )
    def test_as_the_present_one(
        self, merge: str, target: str | None, above: int, present: str | None, expected: str
    ) -> None:
        depth = 4 if merge == "volume-1.s2" else 3
        disk = samples.changed_layer(samples.disk(depth), above, backing_name=present)
        plan = planned(disk, merge, target)
        assert plan.backing_name == expected

    def test_relative_to_the_folder_of_the_layer_above(self) -> None:
        disk = samples.disk(4)
        disk = samples.changed_layer(disk, 1, path="/fast/a/volume-1.s2", backing_name="../b/x")
        assert named(disk, "s1").backing_name == "../../share/volume-1"

    def test_what_qemu_would_take_for_an_address(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 2, path="/share/nbd:x", file="nbd:x")
        assert named(disk, "s1").backing_name == "./nbd:x"


class TestFilters:
    """A filter right above what is to be merged: its upper neighbour keeps the old name."""

    @pytest.mark.parametrize(("snapshot", "refused"), [("s1", True), ("s2", False)])
    def test_between_two_layers(self, snapshot: str, refused: bool) -> None:
        """Above the active layer there is no header."""
        disk = samples.disk(3)
        for position in (0, 1):
            disk = samples.changed_layer(disk, position, flags=("filter",), top_node="f")
        if refused:
            with pytest.raises(FilterBetween) as caught:
                named(disk, snapshot, "commit")
            assert caught.value.exit_code == 4
            assert "a filter (f) lies between volume-1.s2 and volume-1.s1" in str(caught.value)
        else:
            assert named(disk, snapshot, "commit").kind == "active-commit"

    def test_other_flags(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, flags=("detect-zeroes",))
        assert named(disk, "s1", "commit").kind == "commit"


class TestRefuses:
    @pytest.mark.parametrize("folder", ["/template", "/share/link/..", "/share/sub"])
    @pytest.mark.parametrize(("merge", "target"), [("volume-1.s1", "volume-1"), ("volume-1", None)])
    def test_file_of_that_name_in_another_folder(
        self, folder: str, merge: str, target: str | None
    ) -> None:
        disk = samples.changed_layer(samples.disk(3), 2, path=f"{folder}/volume-1")
        with pytest.raises(ForeignLayer, match=f"would be {folder}/volume-1, which is not in /sh"):
            planned(disk, merge, target)

    def test_two_files_of_another_folder(self) -> None:
        """An active file over two templates: neither is the volume's."""
        disk = samples.disk(3)
        for position in (1, 2):
            name = disk.layers[position].file
            disk = samples.changed_layer(disk, position, path=f"/template/{name}")
        with pytest.raises(ForeignLayer, match=r"would be /template/volume-1\.s1, which"):
            planned(disk, "volume-1.s1", "volume-1")
        with pytest.raises(ForeignLayer, match=r"to merge would be /template/volume-1\.s1, which"):
            named(disk, "s1")

    @pytest.mark.parametrize("snapshot", ["s1", "s2"])
    def test_commit_into_another_folder(self, snapshot: str) -> None:
        layer = {"s1": 2, "s2": 1}[snapshot]
        disk = samples.changed_layer(samples.disk(3), layer, path="/etc/passwd")
        with pytest.raises(ForeignLayer, match="committed into would be /etc/passwd, which"):
            named(disk, snapshot)

    def test_pull_from_another_folder(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 1, path="/template/volume-1")
        assert named(disk, "s1", "pull").written.file == "volume-1.s1"

    def test_the_same_folder_in_other_words(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 2, path="/share//./volume-1")
        assert planned(disk, "volume-1.s1", "volume-1").written.path == "/share//./volume-1"

    def test_unknown_disk(self) -> None:
        with pytest.raises(DiskNotFound):
            plan_delete(
                samples.guest(), DeleteRequest(disk="x", file_to_merge=None, merge_target_file=None)
            )

    def test_disk_that_cannot_be_used(self) -> None:
        with pytest.raises(DiskUnsuitable, match="read-only"):
            planned(samples.disk(2, read_only=True), None, None)

    def test_uncertain_format_anywhere_in_the_chain(self) -> None:
        disk = samples.changed_layer(samples.disk(4), 3, format=None, verdict=Verdict.UNKNOWN)
        with pytest.raises(FormatUncertain):
            planned(disk, "volume-1.s2", "volume-1.s1")

    @pytest.mark.parametrize(
        ("merge", "target", "field"),
        [
            ("gone", "volume-1", "file_to_merge"),
            ("volume-1.s1", "gone", "merge_target_file"),
            ("gone", None, "file_to_merge"),
            ("/share/volume-1.s1", "volume-1", "file_to_merge"),
        ],
    )
    def test_file_that_is_not_in_the_chain(
        self, merge: str, target: str | None, field: str
    ) -> None:
        with pytest.raises(NotInChain, match=r"volume-1 <- volume-1\.s1 <- volume-1\.s2") as caught:
            planned(samples.disk(3), merge, target)
        assert caught.value.field == field
        assert isinstance(caught.value, Refused)

    @pytest.mark.parametrize(
        ("depth", "top", "base"), [(depth, base, top) for depth, top, base in PAIRS]
    )
    def test_merge_upwards(self, depth: int, top: int, base: int) -> None:
        names = samples.names(depth)
        with pytest.raises(WrongOrder):
            planned(samples.disk(depth), names[top], names[base])

    @pytest.mark.parametrize("name", samples.names(3))
    def test_merge_into_itself(self, name: str) -> None:
        with pytest.raises(WrongOrder):
            planned(samples.disk(3), name, name)

    def test_pull_down_to_the_active_file(self) -> None:
        with pytest.raises(WrongOrder):
            planned(samples.disk(3), "volume-1.s2", None)

    def test_nothing_to_pull(self) -> None:
        with pytest.raises(NothingToPull, match="from itself"):
            planned(samples.disk(1), None, None)
        with pytest.raises(NothingToPull, match=r"straight from volume-1\.s1"):
            planned(samples.disk(3), "volume-1.s1", None)

    def test_unknown_snapshot(self) -> None:
        with pytest.raises(SnapshotNotFound):
            named(samples.disk(3), "s9")
