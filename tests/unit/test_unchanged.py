"""What counts as a difference between the graph of a plan and a fresh one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.guest import Outline
from qmpsnap.operations.unchanged import GraphChanged, changes, check_unchanged, differences
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

DISK = samples.disk(3)


def found(now: Disk) -> tuple[str, ...]:
    return differences(DISK, samples.guest(now))


def test_same() -> None:
    assert found(DISK) == ()


@pytest.mark.parametrize(
    "now",
    [
        replace(DISK, root="job-filter"),
        replace(DISK, mirror="copy of volume-1", xml_differs="libvirt lags"),
        replace(DISK, layers=tuple(replace(one, top_node="throttle") for one in DISK.layers)),
        replace(DISK, layers=tuple(replace(one, node=None) for one in DISK.layers)),
        replace(DISK, layers=tuple(replace(one, format=None) for one in DISK.layers)),
    ],
)
def test_filters_of_a_job_and_a_silent_xml_do_not_count(now: Disk) -> None:
    assert found(now) == ()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_other_chain(depth: int) -> None:
    (said,) = found(samples.disk(depth))
    assert said == (
        f"the chain of vda is {samples.disk(depth).chain_text}, "
        "and was volume-1 <- volume-1.s1 <- volume-1.s2"
    )


def test_file_of_the_same_name_elsewhere() -> None:
    assert found(samples.changed_layer(DISK, 1, path="/elsewhere/volume-1.s1"))


def test_other_node_over_the_same_file() -> None:
    (said,) = found(samples.changed_layer(DISK, 0, node="again"))
    assert said == f"volume-1.s2 is open as node again, and was as {DISK.layers[0].node}"


def test_other_format() -> None:
    assert found(samples.changed_layer(DISK, 2, format="qcow2")) == (
        "volume-1 is qcow2, and was raw",
    )


def test_disk_that_is_gone() -> None:
    assert differences(DISK, Disks(guest=None, disks=())) == ("disk vda is gone",)


def test_other_disks_do_not_count() -> None:
    other = replace(samples.disk(2), disk="vdb", serial="2")
    assert differences(DISK, samples.guest(DISK, other)) == ()


def test_all_differences_are_said() -> None:
    now = samples.guest(
        samples.changed_layer(samples.changed_layer(DISK, 2, format="qcow2"), 0, node="n")
    )
    with pytest.raises(GraphChanged, match=r"node n, .*; volume-1 is qcow2") as caught:
        check_unchanged(FakeGuest(now), [DISK])
    assert (caught.value.exit_code, caught.value.changed) == (4, "no")


class Outlined(FakeGuest):
    """A guest that can be looked at cheaply."""

    now: Outline | None = None

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        self.calls.append("outlines")
        return (self.now,) * len(disks)


class TestOutline:
    """Names of nodes are enough: a node never changes its file."""

    ORDER = tuple(layer.node or "" for layer in DISK.layers)
    NODES = frozenset({*ORDER, *(f"{layer.file}-file" for layer in DISK.layers)})
    KNOWN = replace(DISK, nodes=NODES)

    def changes(self, disk: Disk, now: Outline | None) -> tuple[tuple[str, ...], list[str]]:
        guest = Outlined(samples.guest(DISK))
        guest.now = now
        return changes(guest, [disk]), guest.calls

    def test_same(self) -> None:
        now = Outline(nodes=self.NODES, order=self.ORDER)
        assert self.changes(self.KNOWN, now) == ((), ["outlines"])

    @pytest.mark.parametrize(
        ("now", "what"),
        [
            (Outline(nodes=NODES | {"x", "a"}, order=("x", *ORDER)), "a, x came"),
            (
                Outline(nodes=NODES - {ORDER[1]}, order=(ORDER[0], ORDER[2])),
                "volume-1.s1-node went",
            ),
            (Outline(nodes=NODES - {ORDER[1]} | {"x"}, order=()), "x came; volume-1.s1-node went"),
            (Outline(nodes=frozenset(NODES), order=ORDER[::-1]), "have changed places"),
        ],
    )
    def test_another_one(self, now: Outline, what: str) -> None:
        (said,), calls = self.changes(self.KNOWN, now)
        assert said.startswith(f"the chain of vda was {DISK.chain_text}: ")
        assert said.endswith(what)
        assert calls == ["outlines"]

    def test_one_for_all_disks(self) -> None:
        """In a freeze the guest waits for it."""
        guest = Outlined(samples.guest(DISK))
        guest.now = Outline(nodes=self.NODES - {self.ORDER[1]}, order=())
        others = [replace(self.KNOWN, disk=name) for name in ("vdb", "vdc")]
        assert len(changes(guest, [self.KNOWN, *others])) == 3
        assert guest.calls == ["outlines"]

    def test_each_disk_has_its_own(self) -> None:
        guest = Outlined(samples.guest(DISK, replace(DISK, disk="vdb")))
        guest.now = Outline(nodes=self.NODES - {self.ORDER[1]}, order=())
        (said,) = changes(guest, [DISK, replace(self.KNOWN, disk="vdb")])
        assert "the chain of vdb was" in said
        assert guest.calls == ["outlines", "read"]

    def test_layer_without_a_node(self) -> None:
        """Its place is not known, and no difference."""
        known = samples.changed_layer(self.KNOWN, 1, node=None)
        now = Outline(nodes=self.NODES, order=(self.ORDER[0], self.ORDER[2]))
        assert self.changes(known, now) == ((), ["outlines"])

    def test_reading_where_there_is_none(self) -> None:
        assert self.changes(self.KNOWN, None) == ((), ["outlines", "read"])

    def test_reading_where_the_plan_knew_no_nodes(self) -> None:
        now = Outline(nodes=frozenset(), order=())
        assert self.changes(DISK, now) == ((), ["read"])

    def test_one_reading_for_all_disks(self) -> None:
        fake = FakeGuest(samples.guest(DISK))
        assert changes(fake, [DISK, replace(DISK, disk="vdb")]) == ("disk vdb is gone",)
        assert fake.calls == ["read"]


class TestNames:
    """Each layer's is looked up again, as nodes do not show what a name has come to mean."""

    def test_same(self) -> None:
        assert self.changes(("file", 1, 2)) == ()

    def test_another_file(self) -> None:
        assert self.changes(("file", 1, 3)) == ("/share/volume-1 leads to another file now",)

    def test_no_file(self) -> None:
        assert self.changes(None) == ("/share/volume-1 leads to no file now",)

    @pytest.mark.parametrize("unknown", ["path", "identity"])
    def test_what_was_not_known_is_no_difference(self, unknown: str) -> None:
        disk = samples.changed_layer(DISK, 2, **{"identity": ("file", 1, 2), unknown: None})
        fake = FakeGuest(samples.guest(disk))
        fake.identities = {"/share/volume-1": ("file", 1, 3)}
        assert changes(fake, [disk]) == ()

    def changes(self, now: tuple[str, int, int] | None) -> tuple[str, ...]:
        disk = samples.changed_layer(DISK, 2, identity=("file", 1, 2))
        fake = FakeGuest(samples.guest(disk))
        fake.identities = {} if now is None else {"/share/volume-1": now}
        return changes(fake, [disk])
