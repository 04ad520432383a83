"""What a call that died has left: ours for certain, or left alone."""

from __future__ import annotations

import pytest

from qmpsnap.graph.nodes import Device, Edge, Graph, Node
from qmpsnap.guests.qmp.leftovers import is_read, leftovers
from qmpsnap.guests.qmp.names import id_of

FILES = ("s2", "s1", "base")


def graph(root: str | None, *nodes: Node, edges: tuple[tuple[str, str, str], ...] = ()) -> Graph:
    """Three layers, each with a protocol node, one of them on the disk; and more nodes."""
    made = [Node(name=one, driver="qcow2", filename=f"/share/{one}") for one in FILES]
    made += [Node(name=f"{one}-file", driver="file", filename=f"/share/{one}") for one in FILES]
    links = [(one, f"{one}-file", "file") for one in FILES]
    links += [("s2", "s1", "backing"), ("s1", "base", "backing"), *edges]
    return Graph(
        devices=(Device(device="", qdev="vda", root=root),),
        nodes={node.name: node for node in (*made, *nodes)},
        edges=tuple(Edge(parent=parent, child=child, role=role) for parent, child, role in links),
    )


OVERLAY = (
    Node(name="qmpsnap-1-format", driver="qcow2", filename="/share/new"),
    Node(name="qmpsnap-1-file", driver="file", filename="/share/new"),
    Node(name="theirs-format", driver="qcow2", filename="/share/theirs"),
)
OPENED = (("qmpsnap-1-format", "qmpsnap-1-file", "file"),)


class TestOverlay:
    def test_of_ours_that_nothing_reads(self) -> None:
        """Its protocol node goes with it; somebody may be about to use theirs."""
        assert leftovers(graph("s2", *OVERLAY, edges=OPENED), ()) == ("qmpsnap-1-format",)

    @pytest.mark.parametrize("reader", ["disk", "node"])
    def test_in_use(self, reader: str) -> None:
        by_node = () if reader == "disk" else (("theirs-format", "qmpsnap-1-format", "backing"),)
        root = "qmpsnap-1-format" if reader == "disk" else "s2"
        found = graph(root, *OVERLAY, edges=(*OPENED, *by_node))
        assert is_read(found, "qmpsnap-1-format")
        assert leftovers(found, ()) == ()


class TestChainOfADiskThatWasUnplugged:
    """Its top is an overlay of ours; it may be plugged in again."""

    UNPLUGGED = (*OPENED, ("qmpsnap-1-format", "other", "backing"))
    OTHER = Node(name="other", driver="qcow2", filename="/share/other")

    def test_stays(self) -> None:
        found = graph("s2", *OVERLAY, self.OTHER, edges=self.UNPLUGGED)
        assert leftovers(found, ()) == ()

    @pytest.mark.parametrize("reader", ["theirs-format", "disk"])
    def test_what_was_merged_away_goes(self, reader: str) -> None:
        more = () if reader == "disk" else ((reader, "other", "backing"),)
        root = "other" if reader == "disk" else "s2"
        found = graph(root, *OVERLAY, self.OTHER, edges=(*self.UNPLUGGED, *more))
        assert leftovers(found, ()) == ("qmpsnap-1-format",)


def pivot(top: str = "s2", base: str = "base", disk: str = "vda") -> str:
    return id_of("active-commit", disk, f"/share/{top}", f"/share/{base}")


class TestTopOfAMirror:
    """Its name is not ours: the guest was started with it. The job's id proves what it was."""

    def test_that_has_pivoted(self) -> None:
        found = leftovers(graph("base"), [pivot()])
        assert found == ("s2", "s2-file", "s1", "s1-file")

    def test_down_to_a_layer_between(self) -> None:
        assert leftovers(graph("s1"), [pivot(base="s1")]) == ("s2", "s2-file")

    @pytest.mark.parametrize(
        "job",
        [
            pivot(base="s1"),
            pivot(top="s1"),
            pivot(disk="vdb"),
            pivot().replace("active-commit", "commit"),
            pivot().removeprefix("qmpsnap-"),
        ],
    )
    def test_of_another_job(self, job: str) -> None:
        assert leftovers(graph("base"), [job]) == ()

    @pytest.mark.parametrize("root", ["s2", None])
    def test_that_has_not_pivoted(self, root: str | None) -> None:
        assert leftovers(graph(root), [pivot()]) == ()

    def test_that_something_still_reads(self) -> None:
        theirs = OVERLAY[-1]
        found = graph("base", theirs, edges=((theirs.name, "s2", "backing"),))
        assert leftovers(found, [pivot()]) == ()

    def test_below_a_filter_on_the_disk(self) -> None:
        throttle = Node(name="throttle0", driver="throttle", filename="")
        found = graph("throttle0", throttle, edges=(("throttle0", "base", "file"),))
        assert leftovers(found, [pivot()]) != ()
