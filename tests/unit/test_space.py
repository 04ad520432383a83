"""How much a merge moves, how much its target can grow by, and which merge is chosen for it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.operations.guards import Guard, Surroundings, WouldHarm, check_merge
from qmpsnap.operations.plan_merge import WORTH_A_PULL, MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.space import Growth, bytes_text, growth
from tests.unit import samples

MIB = samples.MIB


def sized(file: str, format_: str = "qcow2", virtual: int = 100) -> Any:
    return samples.layer(file, format_, virtual_size=virtual * MIB)


def needs(target: str, virtual: int, present: int, *moved: int) -> tuple[int, int] | None:
    sources = tuple(sized(f"s{number}", virtual=virtual) for number in range(len(moved)))
    base = sized("base", target, virtual)
    allocated = {layer.path: size * MIB for layer, size in zip(sources, moved, strict=True)}
    found = growth(sources, base, {**allocated, base.path: present * MIB})
    return (found.moved // MIB, found.needed // MIB) if found else None


@pytest.mark.parametrize(
    ("target", "virtual", "present", "moved", "expected"),
    [
        ("raw", 100, 0, (10,), (10, 10)),
        ("raw", 100, 0, (10, 20), (30, 30)),
        ("raw", 100, 95, (10,), (10, 5)),
        ("raw", 100, 100, (10,), (10, 0)),
        ("raw", 100, 105, (10,), (10, 0)),
        ("raw", 100, 0, (70, 70), (100, 100)),
        ("qcow2", 100, 0, (10,), (10, 11)),
        ("qcow2", 4096, 0, (10,), (10, 13)),
        ("qcow2", 100, 99, (10,), (10, 2)),
    ],
)
def test_bounds(
    target: str, virtual: int, present: int, moved: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert needs(target, virtual, present, *moved) == expected


def test_file_that_takes_more_than_it_can_hold() -> None:
    """As one with internal snapshots: what is merged may still fit, to the byte."""
    top, base = sized("top"), sized("base", "raw")
    found = growth((top,), base, {top.path: 10 * MIB, base.path: 105 * MIB})
    assert found == Growth(moved=10 * MIB, needed=0)


def test_layers_of_different_size() -> None:
    """The larger one is what the target may become."""
    top, base = sized("top", virtual=200), sized("base", "raw", virtual=100)
    found = growth((top,), base, {top.path: 150 * MIB, base.path: 0})
    assert found == Growth(moved=150 * MIB, needed=150 * MIB)
    assert growth((base,), top, {top.path: 150 * MIB, base.path: 100 * MIB}) == Growth(
        moved=100 * MIB, needed=50 * MIB + (200 * MIB >> 11) + MIB
    )


@pytest.mark.parametrize(("sizes", "moved"), [((None, None), 150), ((100, None), 100)])
def test_sizes_that_are_not_known(sizes: tuple[int | None, ...], moved: int) -> None:
    """What is moved has to go somewhere."""
    top, base = (
        replace(sized(name, "raw"), virtual_size=size and size * MIB)
        for name, size in zip(("top", "base"), sizes, strict=True)
    )
    found = growth((top,), base, {top.path: 150 * MIB, base.path: 0})
    assert found == Growth(moved=moved * MIB, needed=moved * MIB)


@pytest.mark.parametrize("known", ["base", "s0"])
def test_allocation_that_is_not_known(known: str) -> None:
    layers = {"s0": sized("s0"), "base": sized("base")}
    assert growth((layers["s0"],), layers["base"], {layers[known].path: 1}) is None


def merge(top: str | None, base: str | None) -> MergePlan:
    request = DeleteRequest(disk="1", file_to_merge=top, merge_target_file=base)
    return plan_delete(samples.guest(samples.disk(3)), request)


@pytest.mark.parametrize(
    ("plan", "written"),
    [
        (merge("volume-1.s1", "volume-1"), "volume-1"),
        (merge("volume-1.s2", "volume-1"), "volume-1"),
        (merge(None, None), "volume-1.s2"),
    ],
)
def test_guard(plan: MergePlan, written: str) -> None:
    allocated = {f"/share/{name}": 4096 for name in samples.names(3)}
    for file in samples.names(3):
        around = Surroundings(allocated=allocated, free={f"/share/{file}": 4095})
        if file == written:
            with pytest.raises(WouldHarm, match="4095 left"):
                check_merge(plan, around, ())
            grows = growth(plan.dropped, plan.written, allocated)
            assert grows is not None
            check_merge(plan, replace(around, free={f"/share/{file}": grows.needed}), ())
            with pytest.raises(WouldHarm):
                check_merge(plan, replace(around, free={f"/share/{file}": grows.needed - 1}), ())
        check_merge(plan, around, (Guard.SPACE,) if file == written else ())


class TestChoice:
    def disk(self, active: int | None, base: int | None, depth: int = 2) -> Disk:
        made = samples.disk(depth)
        for position, size in ((0, active), (depth - 1, base)):
            node = made.layers[position].node_details
            assert node is not None
            details = replace(node, actual_size=size)
            made = samples.changed_layer(made, position, node_details=details)
        return made

    def chosen(self, disk: Disk, method: Any = "auto") -> MergePlan:
        name = disk.layers[0].file.rpartition(".")[2]
        request = NamedDeleteRequest(disk="1", snapshot=name, method=method)
        return plan_delete(samples.guest(disk), request)

    def test_commit_where_it_moves_less(self) -> None:
        plan = self.chosen(self.disk(5, 10))
        assert (plan.kind, plan.why) == ("active-commit", "it moves 5 bytes at most, a pull 10")

    def test_pull_where_it_moves_much_less(self) -> None:
        plan = self.chosen(self.disk(WORTH_A_PULL + 6, 5))
        assert (plan.kind, "moves 5 bytes" in plan.why) == ("pull", True)

    def test_commit_where_a_pull_saves_little(self) -> None:
        plan = self.chosen(self.disk(WORTH_A_PULL + 5, 5))
        assert (plan.kind, "too little less" in plan.why) == ("active-commit", True)

    @pytest.mark.parametrize(("active", "base"), [(None, 5), (5, None)])
    def test_commit_where_it_is_not_known(self, active: int | None, base: int | None) -> None:
        plan = self.chosen(self.disk(active, base))
        assert (plan.kind, "not known" in plan.why) == ("active-commit", True)

    @pytest.mark.parametrize("position", [0, 1])
    def test_commit_where_nothing_is_known_of_a_node(self, position: int) -> None:
        disk = samples.changed_layer(self.disk(5, 10), position, node_details=None)
        assert "not known" in self.chosen(disk).why

    def test_what_a_pull_must_save(self) -> None:
        assert WORTH_A_PULL == 64 << 20

    def test_pull_over_a_base_that_others_read(self) -> None:
        disk = samples.changed_layer(self.disk(5, 10), 1, flags=("shared-base",))
        assert self.chosen(disk).kind == "pull"

    def test_older_snapshots_keep_their_names(self) -> None:
        assert self.chosen(self.disk(WORTH_A_PULL * 2, 5, depth=3)).kind == "active-commit"

    def test_method_that_was_asked_for(self) -> None:
        assert self.chosen(self.disk(WORTH_A_PULL * 2, 5), "commit").kind == "active-commit"
        assert self.chosen(self.disk(5, 10), "pull").kind == "pull"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (1 << 30, "1 GiB"),
        (1 << 40, "1 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_bytes_in_words(value: int, text: str) -> None:
    assert bytes_text(value) == text
