"""Going back to a snapshot: when it is refused, how what is written then is named, and what is told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disks
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.revert import GuestRuns, check_off, name_after, remarks_of
from tests.unit import samples

BACK = CreateRequest(disk="vda", new_file=None, snapshot="s1-20261126-120000", over="s1")
NEW = CreateRequest(disk="vda", new_file=None, snapshot="new")


def plans(guest: Disks, request: CreateRequest = BACK) -> tuple[CreatePlan, ...]:
    return plan_creates(guest, [request])


@pytest.fixture
def guest() -> Disks:
    return samples.guest(samples.disk(3))


@pytest.mark.parametrize(
    ("request_", "kind", "kept"),
    [(NEW, "create", 0), (BACK, "revert", 2), (replace(BACK, over="s2"), "revert", 1)],
)
def test_word_for_the_journal(guest: Disks, request_: CreateRequest, kind: str, kept: int) -> None:
    (plan,) = plans(guest, request_)
    assert plan.kind == kind
    assert plan.kept == plan.disk.layers[:kept]
    assert plan.below == plan.disk.layers[kept:]
    assert plan.chain == (plan.overlay, *plan.disk.paths[kept:])
    assert plan.below_text == " <- ".join(reversed([one.file for one in plan.below]))


class TestOff:
    def test_a_guest_that_is_off(self, guest: Disks) -> None:
        check_off(plans(guest), guest, "off", "libvirt")

    def test_a_snapshot_is_taken_of_one_that_runs(self, guest: Disks) -> None:
        check_off(plans(guest, NEW), guest, "running", "libvirt")

    @pytest.mark.parametrize("run", ["running", "paused", None])
    def test_one_that_runs(self, guest: Disks, run: str | None) -> None:
        with pytest.raises(GuestRuns, match=r"^web1 runs") as caught:
            check_off(plans(guest), guest, run, "libvirt")
        assert caught.value.way_out.startswith("Shut it down (`virsh shutdown`)")
        assert caught.value.exit_code == 4

    def test_one_without_libvirt(self, guest: Disks) -> None:
        nameless = replace(guest, guest=None)
        with pytest.raises(GuestRuns, match=r"^the guest runs") as caught:
            check_off(plans(nameless), nameless, "running", "qmp")
        overlay = "/share/volume-1.s1-20261126-120000"
        command = f"qemu-img create -f qcow2 -b /share/volume-1 -F raw {overlay}"
        assert command in caught.value.way_out


class TestName:
    @pytest.mark.parametrize(
        ("snapshot", "name"),
        [
            ("s1", "s1-20261126-120000"),
            ("s1-20250101-000000", "s1-20261126-120000"),
            ("20250101-000000", "-20261126-120000"),
            ("a" * 300, "20261126-120000"),
        ],
    )
    def test_after(self, snapshot: str, name: str) -> None:
        expected = name if not name.startswith("-") else "20261126-120000"
        assert name_after(snapshot, "20261126-120000") == expected


class TestRemarks:
    def test_nothing_of_a_snapshot(self, guest: Disks) -> None:
        assert remarks_of(plans(guest, NEW), [NEW], guest) == ()

    def test_what_is_kept(self, guest: Disks) -> None:
        (said,) = remarks_of(plans(guest), [BACK], guest)
        kept = "what vda held until now is kept in volume-1.s2, volume-1.s1 (qcow2), over volume-1"
        assert said == f"{kept}, as long as volume-1 is not changed or removed"

    @pytest.mark.parametrize("size", [samples.MIB, 2 * samples.MIB, None])
    def test_size(self, size: int | None) -> None:
        guest = samples.guest(samples.changed_layer(samples.disk(3), 0, virtual_size=size))
        said = remarks_of(plans(guest), [BACK], guest)
        assert len(said) == (2 if size == 2 * samples.MIB else 1)
        if len(said) == 2:
            assert said[1] == "vda has 1048576 bytes again, and had 2097152"

    @pytest.mark.parametrize("named", ["vda", "both"])
    def test_other_disks_that_have_the_snapshot(self, guest: Disks, named: str) -> None:
        layers = samples.linked([samples.layer("volume-2.s1"), samples.layer("volume-2", "raw")])
        other = samples.disk(disk="vdb", serial="2", layers=layers, root="volume-2.s1-node")
        guest = replace(guest, disks=(*guest.disks, other))
        requests = [BACK] if named == "vda" else [BACK, replace(BACK, disk="vdb")]
        said = remarks_of(plan_creates(guest, requests), requests, guest)
        told = "vdb has a snapshot s1 as well, and stays as it is"
        assert (told in said) == (named == "vda")

    def test_another_disk_without_it(self, guest: Disks) -> None:
        layers = (samples.layer("volume-2", "raw"),)
        other = samples.disk(disk="vdb", serial="2", layers=layers, root="volume-2-node")
        guest = replace(guest, disks=(*guest.disks, other))
        assert not any("vdb" in one for one in remarks_of(plans(guest), [BACK], guest))
