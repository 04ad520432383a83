"""A walk through a graph: each node once, upper ones first."""

from __future__ import annotations

from qmpsnap.graph.nodes import Edge, Graph


def graph(*edges: str) -> Graph:
    """Edges as `parent role child`."""
    made = (text.split() for text in edges)
    return Graph(
        devices=(),
        nodes={},
        edges=tuple(Edge(parent=parent, role=role, child=child) for parent, role, child in made),
    )


CHAIN = graph("top file top-file", "top backing mid", "mid file mid-file", "mid backing base")


def test_all_that_is_read_through_a_node() -> None:
    assert CHAIN.below("top") == ("top", "top-file", "mid", "mid-file", "base")
    assert CHAIN.below("mid") == ("mid", "mid-file", "base")
    assert CHAIN.below("base") == ("base",)
    assert CHAIN.below("nobody") == ("nobody",)


def test_what_is_not_entered() -> None:
    assert CHAIN.below("top", ["mid"]) == ("top", "top-file")


def test_the_edge_by_which_each_one_was_reached_first() -> None:
    shared = graph("a file b", "a log c", "b file c", "c file d")
    edges = {name: edge and (edge.parent, edge.role) for name, edge in shared.walk("a")}
    assert edges == {"a": None, "b": ("a", "file"), "c": ("a", "log"), "d": ("c", "file")}


def test_a_circle_ends() -> None:
    assert graph("a backing b", "b backing a").below("b") == ("b", "a")


def test_no_recursion() -> None:
    deep = graph(*(f"n{number} backing n{number + 1}" for number in range(5000)))
    assert len(deep.below("n0")) == 5001
