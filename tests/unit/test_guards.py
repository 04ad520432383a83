"""What is refused because it would harm something, and that its name lets it through."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk
from qmpsnap.monitor.base import LostWhileReading
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.guards import (
    DiskBusy,
    Guard,
    Surroundings,
    WouldHarm,
    check_create,
    check_idle,
    check_merge,
)
from qmpsnap.operations.job.states import ENDING, JobReport, JobStatus, JobView
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest, report

ACTIVE, COMMIT = ("volume-1.s2", "volume-1.s1"), ("volume-1.s1", "volume-1")
PULL = (None, None)
RUNNING = JobView(status=JobStatus.RUNNING)


def plan(disk: Disk, merge: tuple[str | None, str | None]) -> MergePlan:
    request = DeleteRequest(disk="1", file_to_merge=merge[0], merge_target_file=merge[1])
    return plan_delete(samples.guest(disk), request)


def guards(
    made: MergePlan, around: Surroundings | None = None, migration: str | None = None
) -> list[Guard]:
    """All guards that hold, found by allowing one after the other."""
    found: list[Guard] = []
    while True:
        try:
            check_merge(made, around or Surroundings(), found, migration=migration)
        except WouldHarm as error:
            found.append(error.guard)
        else:
            return found


def details(disk: Disk, position: int, **changes: Any) -> Disk:
    node = disk.layers[position].node_details
    assert node is not None
    return samples.changed_layer(disk, position, node_details=replace(node, **changes))


@pytest.mark.parametrize("merge", [ACTIVE, COMMIT, PULL])
def test_ordinary_merge_harms_nothing(merge: Any) -> None:
    assert guards(plan(samples.disk(3), merge)) == []


def test_base_of_a_pull_is_not_written() -> None:
    """Who else reads it, or how large it is, does not matter to a pull."""
    around = Surroundings(readers={"/share/volume-1": ("somebody",)})
    small = samples.changed_layer(samples.disk(3), 2, virtual_size=1)
    for disk in (samples.disk(3), small):
        assert guards(plan(disk, ("volume-1", None)), around) == []


@pytest.mark.parametrize(
    ("layer", "merge", "expected"),
    [
        (0, ACTIVE, [Guard.LIBVIRT_SNAPSHOTS]),
        (1, ACTIVE, []),
        (1, COMMIT, [Guard.LIBVIRT_SNAPSHOTS]),
        (0, COMMIT, []),
        (0, PULL, [Guard.LIBVIRT_SNAPSHOTS]),
        (1, PULL, [Guard.LIBVIRT_SNAPSHOTS]),
    ],
)
def test_overlay_of_a_snapshot_that_libvirt_records(
    layer: int, merge: Any, expected: list[Guard]
) -> None:
    disk = samples.disk(3)
    path = disk.layers[layer].path
    assert path is not None
    around = Surroundings(recorded={path: ("snapshot theirs",)})
    assert guards(plan(disk, merge), around) == expected


class TestSharedBase:
    @pytest.mark.parametrize(
        ("layer", "merge", "expected"),
        [
            (2, COMMIT, [Guard.SHARED_BASE]),
            (1, COMMIT, [Guard.SHARED_BASE]),
            (0, COMMIT, []),
            (2, ACTIVE, []),
            (1, ACTIVE, [Guard.SHARED_BASE]),
            (2, PULL, []),
        ],
    )
    def test_by_the_graph(self, layer: int, merge: Any, expected: list[Guard]) -> None:
        disk = samples.changed_layer(samples.disk(3), layer, flags=("shared-base",))
        assert guards(plan(disk, merge)) == expected

    @pytest.mark.parametrize(
        ("path", "merge", "expected"),
        [
            ("/share/volume-1", COMMIT, [Guard.SHARED_BASE]),
            ("/share/volume-1.s1", COMMIT, [Guard.SHARED_BASE]),
            ("/share/volume-1", ACTIVE, []),
            ("/share/volume-1", PULL, []),
        ],
    )
    def test_by_another_process(self, path: str, merge: Any, expected: list[Guard]) -> None:
        around = Surroundings(readers={path: ("qemu-nbd (pid 7)",)})
        assert guards(plan(samples.disk(3), merge), around) == expected

    def test_names_who_reads(self) -> None:
        around = Surroundings(readers={"/share/volume-1": ("qemu-nbd (pid 7)",)})
        with pytest.raises(WouldHarm, match=r"read by qemu-nbd \(pid 7\)") as caught:
            check_merge(plan(samples.disk(3), COMMIT), around, ())
        assert "--allow shared-base" in caught.value.way_out
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")


class TestLost:
    @pytest.mark.parametrize(("merge", "lost"), [(COMMIT, {1}), (ACTIVE, {0}), (PULL, {1, 2})])
    def test_bitmaps_of_layers_that_leave(self, merge: Any, lost: set[int]) -> None:
        for position in range(3):
            disk = samples.changed_layer(samples.disk(3), position, flags=("bitmaps",))
            assert guards(plan(disk, merge)) == ([Guard.BITMAPS] if position in lost else [])

    @pytest.mark.parametrize(("merge", "lost"), [(COMMIT, {1}), (ACTIVE, {0}), (PULL, {1, 2})])
    def test_internal_snapshots_of_layers_that_leave(self, merge: Any, lost: set[int]) -> None:
        for position in range(3):
            disk = details(samples.disk(3), position, snapshots=("before",))
            disk = samples.changed_layer(disk, position, internal_snapshots=1)
            expected = [Guard.INTERNAL_SNAPSHOTS] if position in lost else []
            assert guards(plan(disk, merge)) == expected

    def test_internal_snapshots_that_only_the_header_tells_of(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, internal_snapshots=2, node_details=None)
        words = r"volume-1\.s1 leaves .*\(2 by its header; `qemu-img info -U -f qcow2 /share/volume"
        with pytest.raises(WouldHarm, match=words):
            check_merge(plan(disk, COMMIT), Surroundings(), ())

    def test_bitmaps_that_only_the_header_tells_of(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, flags=("bitmaps",), node_details=None)
        with pytest.raises(WouldHarm, match=r"volume-1\.s1 leaves .* \(by its header\)"):
            check_merge(plan(disk, COMMIT), Surroundings(), ())

    @pytest.mark.parametrize(
        ("described", "checkpoints", "how"),
        [
            (True, (), "remove the bitmaps (QMP `block-dirty-bitmap-remove`)"),
            (True, ("other",), "remove the bitmaps (QMP `block-dirty-bitmap-remove`)"),
            (
                False,
                (),
                "remove the bitmaps (`qemu-img bitmap --remove -f qcow2 /share/volume-1.s1",
            ),
            (False, ("b", "a"), "takes the bitmaps of its checkpoints (a, b) along"),
            (True, ("daily",), "delete the checkpoints (`virsh checkpoint-delete`)"),
        ],
    )
    def test_way_out(self, described: bool, checkpoints: tuple[str, ...], how: str) -> None:
        """Into a raw base libvirt takes no bitmap along; of a guest that is off no node tells any."""
        disk = details(samples.disk(3), 1, bitmaps=("daily",))
        changes = {} if described else {"node_details": None}
        disk = samples.changed_layer(disk, 1, flags=("bitmaps",), **changes)
        around = Surroundings(checkpoints=frozenset(checkpoints))
        with pytest.raises(WouldHarm) as caught:
            check_merge(plan(disk, COMMIT), around, ())
        assert how in caught.value.way_out
        assert caught.value.way_out.startswith("The next incremental backup")

    def test_names_what_would_be_lost(self) -> None:
        disk = details(samples.disk(3), 1, bitmaps=("daily",))
        disk = samples.changed_layer(disk, 1, flags=("bitmaps",))
        with pytest.raises(WouldHarm, match=r"volume-1\.s1 leaves .* \(daily\)"):
            check_merge(plan(disk, COMMIT), Surroundings(), ())

    @pytest.mark.parametrize(
        ("bitmaps", "expected"), [((), []), (("daily",), [Guard.BITMAPS])], ids=["alone", "not"]
    )
    def test_the_bitmap_that_libvirt_forgets_in_a_raw_base(
        self, bitmaps: tuple[str, ...], expected: list[Guard]
    ) -> None:
        disk = details(samples.disk(3), 2, bitmaps=("libvirt-tmp-activewrite", *bitmaps))
        disk = samples.changed_layer(disk, 2, flags=("bitmaps",))
        assert guards(plan(disk, PULL)) == expected


@pytest.mark.parametrize(("merge", "expected"), [(COMMIT, [Guard.GROW_BASE]), (PULL, [])])
def test_base_that_is_smaller(merge: Any, expected: list[Guard]) -> None:
    disk = samples.changed_layer(samples.disk(3), 2, virtual_size=samples.MIB - 512)
    assert guards(plan(disk, merge)) == expected


@pytest.mark.parametrize("position", [1, 2])
def test_size_that_is_not_known_is_no_smaller_one(position: int) -> None:
    """Whether anything would be read differently has been looked at before."""
    made = plan(samples.disk(3), COMMIT)
    top, base = made.top, made.base
    assert base is not None
    if position == 1:
        top = replace(top, virtual_size=None)
    else:
        base = replace(base, virtual_size=None)
    assert guards(replace(made, top=top, base=base)) == []


@pytest.mark.parametrize(
    ("merge", "position", "copies", "expected"),
    [
        (PULL, 0, False, [Guard.SUBCLUSTERS]),
        (PULL, 0, True, []),
        (PULL, 1, False, []),
        (ACTIVE, 1, False, []),
        (COMMIT, 2, False, []),
    ],
)
def test_a_pull_into_subclusters(
    merge: Any, position: int, copies: bool, expected: list[Guard]
) -> None:
    disk = samples.changed_layer(samples.disk(3), position, has_subclusters=True)
    around = Surroundings(copies_into_subclusters=copies)
    assert guards(plan(disk, merge), around) == expected


class TestMigration:
    def test_of_a_merge(self) -> None:
        assert guards(plan(samples.disk(3), PULL), migration="active") == [Guard.MIGRATION]

    def test_of_a_create(self) -> None:
        with pytest.raises(WouldHarm, match="migrated"):
            check_create("active", ())
        check_create("active", (Guard.MIGRATION,))
        check_create(None, ())


class TestInTheLoop:
    """Nothing is sent before the guards have been asked."""

    def guest(self) -> FakeGuest:
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.migration = "active"
        return fake

    def test_delete(self) -> None:
        fake = self.guest()
        request = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
        with pytest.raises(WouldHarm):
            merge.delete(fake, request, poll_s=0)
        assert not {"start", "close"} & {*fake.calls}
        merge.delete(fake, request, allow={Guard.MIGRATION}, poll_s=0)

    def test_delete_that_takes_up_a_running_job(self) -> None:
        fake = self.guest()
        fake.left_running = True
        request = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
        merge.delete(fake, request, poll_s=0)

    def test_create(self) -> None:
        fake = self.guest()
        request = CreateRequest(disk="1", new_file="volume-1.new", snapshot="new")
        with pytest.raises(WouldHarm):
            snapshot.create(fake, request)
        assert not {"make", "switch"} & {*fake.calls}
        snapshot.create(fake, request, allow={Guard.MIGRATION})

    def test_job_of_somebody_else(self) -> None:
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.reports = [(replace(report(type_="mirror", view=RUNNING), id="theirs", ours=False),)]
        request = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
        with pytest.raises(DiskBusy):
            merge.delete(fake, request, poll_s=0)
        with pytest.raises(DiskBusy):
            snapshot.create(fake, CreateRequest(disk="1", new_file="volume-1.new", snapshot="n"))
        assert {*fake.calls} == {"read"}


class TestFilesThatLeft:
    def deleted(self, around: Surroundings | QmpsnapError) -> Result:
        class Crowded(FakeGuest):
            def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
                if "close" not in self.calls:
                    return Surroundings()
                if isinstance(around, QmpsnapError):
                    raise around
                return around

        request = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
        return merge.delete(Crowded(samples.guest(samples.disk(3))), request, poll_s=0)

    def test_read_by_somebody_else(self) -> None:
        done = self.deleted(Surroundings(readers={"/share/volume-1": ("qemu (pid 7)",)}))
        assert done.dropped == ("/share/volume-1.s1",)
        assert done.held == ("/share/volume-1",)
        assert "qemu (pid 7)" in done.notes[-1]

    def test_not_known(self) -> None:
        done = self.deleted(LostWhileReading("gone"))
        assert done.dropped == ()
        assert len(done.held) == 2


class TestBusy:
    def job(self, disk: str | None, status: JobStatus) -> JobReport:
        view = JobView(status=status)
        return JobReport(id="theirs", type="mirror", disk=disk, view=view, bandwidth=0, ours=False)

    @pytest.mark.parametrize("status", sorted(set(JobStatus) - ENDING))
    def test_disk_with_a_job(self, status: JobStatus) -> None:
        with pytest.raises(DiskBusy, match=f"vda has a job .*mirror 'theirs', {status}") as caught:
            check_idle([samples.disk(2)], [self.job("vda", status)])
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")

    @pytest.mark.parametrize("disk", ["vdb", None])
    def test_job_of_another_disk(self, disk: str | None) -> None:
        check_idle([samples.disk(2)], [self.job(disk, JobStatus.RUNNING)])

    @pytest.mark.parametrize("status", sorted(ENDING))
    def test_job_that_has_ended(self, status: JobStatus) -> None:
        check_idle([samples.disk(2)], [self.job("vda", status)])
