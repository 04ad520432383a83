"""What a create will do, for chains of one to eight layers, and what it refuses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import DiskNotFound
from qmpsnap.formats.verdict import Verdict
from qmpsnap.operations.names import BadSnapshotName, SnapshotExists
from qmpsnap.operations.plan_snapshot import AlreadyActive, plan_create
from qmpsnap.operations.requests import BadFileName, CreateRequest
from qmpsnap.operations.volume import DiskUnsuitable, FormatUncertain
from tests.unit import samples


def request(
    new_file: str | None = "volume-1.new", snapshot: str = "new", disk: str = "vda"
) -> CreateRequest:
    return CreateRequest(disk=disk, new_file=new_file, snapshot=snapshot)


class TestPlan:
    @pytest.mark.parametrize("base", ["raw", "qcow2"])
    @pytest.mark.parametrize("depth", range(1, 9))
    def test_overlay_lies_beside_the_active_file(self, depth: int, base: str) -> None:
        disk = samples.disk(depth, base=base)
        plan = plan_create(samples.guest(disk), request())
        assert plan.active is plan.disk.layers[0]
        assert (plan.overlay, plan.file) == ("/share/volume-1.new", "volume-1.new")
        assert plan.backing_name == samples.names(depth)[0]
        assert plan.backing_format == ("qcow2" if depth > 1 else base)
        assert plan.virtual_size == samples.MIB

    @pytest.mark.parametrize("disk", ["vda", "1"])
    def test_disk_by_target_or_volume_id(self, disk: str) -> None:
        assert plan_create(samples.guest(), request(disk=disk)).disk.disk == "vda"

    def test_overlay_in_a_folder_that_is_named(self) -> None:
        wanted = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new", into="/fast")
        assert plan_create(samples.guest(), wanted).overlay == "/fast/volume-1.new"

    def test_file_named_by_the_snapshot(self) -> None:
        plan = plan_create(samples.guest(samples.disk(3)), request(None, "before-upgrade"))
        assert plan.overlay == "/share/volume-1.before-upgrade"

    def test_active_file_in_another_folder_than_its_base(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 0, path="/fast/volume-1.s1")
        assert plan_create(samples.guest(disk), request()).overlay == "/fast/volume-1.new"

    @pytest.mark.parametrize(
        "format_", ["raw", "qcow2", "luks", "vmdk", "vdi", "vhdx", "vpc", "qed"]
    )
    def test_formats_that_can_be_backed(self, format_: str) -> None:
        plan = plan_create(samples.guest(samples.disk(base=format_)), request())
        assert plan.backing_format == format_


class TestRefuses:
    def test_active_file_whose_name_qemu_would_take_for_an_address(self) -> None:
        disk = samples.changed_layer(samples.disk(1), 0, path="/share/nbd:x", file="nbd:x")
        plan = plan_create(samples.guest(disk), request(None))
        assert (plan.backing_name, plan.overlay) == ("./nbd:x", "/share/nbd:x.new")

    def test_unknown_disk(self) -> None:
        with pytest.raises(DiskNotFound):
            plan_create(samples.guest(), request(disk="vdz"))

    def test_disk_that_cannot_have_snapshots(self) -> None:
        with pytest.raises(DiskUnsuitable, match="read-only"):
            plan_create(samples.guest(samples.disk(read_only=True)), request())

    def test_uncertain_format_anywhere_in_the_chain(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 2, verdict=Verdict.CONFLICT)
        with pytest.raises(FormatUncertain):
            plan_create(samples.guest(disk), request())

    @pytest.mark.parametrize("format_", ["bochs", "cloop", "dmg", "parallels", "qcow"])
    def test_format_that_no_header_can_name(self, format_: str) -> None:
        with pytest.raises(FormatUncertain, match="cannot be a backing format"):
            plan_create(samples.guest(samples.disk(base=format_)), request())

    def test_size_that_is_not_known(self) -> None:
        disk = samples.changed_layer(samples.disk(), 0, virtual_size=None)
        with pytest.raises(DiskUnsuitable, match="size is not known"):
            plan_create(samples.guest(disk), request())

    @pytest.mark.parametrize("new_file", ["volume-1", "volume-1.s1", "volume-1.s2"])
    def test_file_of_its_own_chain(self, new_file: str) -> None:
        with pytest.raises(BadFileName, match="in use in the chain of vda") as caught:
            plan_create(samples.guest(samples.disk(3)), request(new_file))
        assert isinstance(caught.value, Refused)
        assert isinstance(caught.value, AlreadyActive) == (new_file == "volume-1.s2")

    def test_only_layer_is_no_snapshot_that_is_there(self) -> None:
        with pytest.raises(BadFileName) as caught:
            plan_create(samples.guest(samples.disk(1)), request("volume-1"))
        assert not isinstance(caught.value, AlreadyActive)

    def test_snapshot_that_is_there_already(self) -> None:
        with pytest.raises(SnapshotExists, match=r"'s1'.*in use in the chain of vda") as caught:
            plan_create(samples.guest(samples.disk(3)), request(None, "s1"))
        assert "another name" in caught.value.way_out

    def test_file_of_another_disks_chain(self) -> None:
        other = samples.disk(disk="vdb", serial="2", layers=(samples.layer("volume-1.new"),))
        with pytest.raises(BadFileName, match="in use in the chain of vdb") as caught:
            plan_create(samples.guest(samples.disk(), other), request())
        assert caught.value.field == "new_file"

    def test_file_named_as_another_disk_of_the_guest(self) -> None:
        other = samples.disk(disk="vdb", serial="2", layers=(samples.layer("web2"),), root="b")
        guest = samples.guest(samples.disk(), other)
        wrong = CreateRequest(disk="vda", new_file="web2.s1", snapshot="s1")
        with pytest.raises(BadFileName, match="another volume"):
            plan_create(guest, wrong)

    def test_file_of_another_volume(self) -> None:
        with pytest.raises(BadFileName, match="another volume"):
            plan_create(samples.guest(), request("volume-2.new"))

    @pytest.mark.parametrize(("letter", "number"), [("a", 250), ("ä", 125)])
    def test_name_that_is_too_long_for_a_file(self, letter: str, number: int) -> None:
        """A volume's own name may be long, and the snapshot's is put behind it."""
        (layer,) = samples.disk(1).layers
        long = replace(layer, file=letter * number, path=f"/share/{letter * number}")
        guest = samples.guest(samples.disk(1, layers=(long,)))
        assert plan_create(guest, request(None, "1234")).file.endswith(".1234")
        with pytest.raises(BadFileName, match="longer than 255 bytes"):
            plan_create(guest, request(None, "12345"))

    @pytest.mark.parametrize("snapshot", ["", "a.b", "../a", "a/b"])
    def test_bad_snapshot_name(self, snapshot: str) -> None:
        with pytest.raises(BadSnapshotName):
            plan_create(samples.guest(), request(None, snapshot))
