"""How long QEMU would need, from edges alone, against what was measured."""

from __future__ import annotations

import pytest

from qmpsnap.graph.nodes import Edge
from qmpsnap.graph.stall import stall_of


def edges(layers: int, disk: str = "a") -> list[Edge]:
    """A chain as libvirt opens it: two nodes a layer."""
    found = []
    for number in range(layers):
        found.append(Edge(parent=f"{disk}{number}", child=f"{disk}{number}-file", role="file"))
        if number:
            found.append(
                Edge(parent=f"{disk}{number}", child=f"{disk}{number - 1}", role="backing")
            )
    return found


@pytest.mark.parametrize(
    ("layers", "plain_ms", "nested_ms"),
    # Main thread of QEMU 7.2.22, docs/reference/benchmarks.md.
    [(32, 3, 22), (64, 12, 150), (100, 26, 590), (150, 52, 1880), (200, 99, 4420)],
)
def test_estimate_against_measured(layers: int, plain_ms: float, nested_ms: float) -> None:
    stall = stall_of(edges(layers))
    assert stall.depth == layers
    assert stall.plain_s * 1000 == pytest.approx(plain_ms, rel=0.2)
    assert stall.nested_s * 1000 == pytest.approx(nested_ms, rel=0.2)


def test_disks_add_up() -> None:
    one, two = stall_of(edges(50)), stall_of([*edges(50), *edges(50, "b")])
    assert two.depth == one.depth == 50
    assert two.nested_s == pytest.approx(2 * one.nested_s)


def test_shared_base_counts_for_each_that_reads_it() -> None:
    shared = [
        *edges(50),
        Edge(parent="x", child="a49", role="backing"),
        Edge(parent="y", child="a49", role="backing"),
    ]
    assert stall_of(shared).depth == 51
    assert stall_of(shared).plain_s > stall_of(shared[:-1]).plain_s


def test_filter_adds_no_layer() -> None:
    over = Edge(parent="throttle", child="a9", role="file")
    assert stall_of([*edges(10), over]).depth == 10


def test_no_edges() -> None:
    assert stall_of([]).depth == 1
    assert stall_of([]).nested_s == 0


def test_circle_ends() -> None:
    circle = [Edge(parent=a, child=b, role="backing") for a, b in ("ab", "bc", "ca")]
    assert stall_of(circle).nested_s < 1


def test_stacked_filters_that_double_each_time() -> None:
    """2 to the power of 2000 visits are more than a float can hold."""
    stacked = [
        Edge(parent=f"n{number}", child=f"n{number + 1}", role=role)
        for number in range(2000)
        for role in ("children.0", "children.1")
    ]
    assert stall_of(stacked).nested_s > 1e6
