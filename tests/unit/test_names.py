"""Snapshots by name, and files that belong to another volume."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.operations.names import (
    BadSnapshotName,
    SnapshotAmbiguous,
    SnapshotNotFound,
    backing_name,
    check_belongs,
    find_snapshot,
    name_of_base,
    overlay_name,
    snapshots,
    spellings,
    tidy,
)
from qmpsnap.operations.requests import BadFileName
from tests.unit import samples


class TestSnapshots:
    @pytest.mark.parametrize("depth", range(1, 9))
    def test_one_for_each_layer_with_another_below(self, depth: int) -> None:
        found = snapshots(samples.disk(depth))
        assert [one.name for one in found] == [f"s{number}" for number in range(depth - 1, 0, -1)]

    def test_data_of_a_snapshot_is_the_layer_below_its_overlay(self) -> None:
        newest, oldest = snapshots(samples.disk(3))
        assert (newest.overlay.file, newest.data.file) == ("volume-1.s2", "volume-1.s1")
        assert (oldest.overlay.file, oldest.data.file) == ("volume-1.s1", "volume-1")

    def test_find(self) -> None:
        assert find_snapshot(samples.disk(3), "s1").overlay.file == "volume-1.s1"

    def test_find_by_file(self) -> None:
        assert find_snapshot(samples.disk(3), "volume-1.s1").name == "s1"

    @pytest.mark.parametrize("name", ["s3", "volume-1", "1.s1", "", "S1"])
    def test_find_none(self, name: str) -> None:
        with pytest.raises(SnapshotNotFound, match="it has: s2, s1") as caught:
            find_snapshot(samples.disk(3), name)
        assert isinstance(caught.value, Refused)

    def test_disk_without_snapshots(self) -> None:
        with pytest.raises(SnapshotNotFound, match="it has: none"):
            find_snapshot(samples.disk(1), "s1")

    def test_two_layers_of_the_same_suffix(self) -> None:
        layers = ("other.s1", "volume-1.s1", "volume-1")
        disk = samples.disk(layers=tuple(samples.layer(name) for name in layers))
        with pytest.raises(SnapshotAmbiguous, match=r"other\.s1, volume-1\.s1"):
            find_snapshot(disk, "s1")
        assert [one.name for one in snapshots(disk)] == ["other.s1", "volume-1.s1"]
        assert find_snapshot(disk, "other.s1").overlay.file == "other.s1"

    @pytest.mark.parametrize(
        ("chain", "expected"),
        [
            (["snap2.qcow2", "snap1.qcow2", "base.qcow2"], ["snap2", "snap1"]),
            (["vm.monday.qcow2", "vm.snap1", "vm.qcow2"], ["monday", "snap1"]),
            (["vm.qcow2.b", "vm.qcow2.a.IMG", "vm.qcow2"], ["b", "a"]),
            (["volume-1.qcow2", "volume-1"], ["qcow2"]),
            (["volume-1.s1.s2", "volume-1.s1", "volume-1"], ["s2", "s1"]),
            (["disk.s1", "disk.v2.s1", "disk"], ["disk.s1", "disk.v2.s1"]),
            (["overlay", ".qcow2", "base"], ["overlay", "qcow2"]),
            (["dot.", "volume-1.", "volume-1"], ["dot.", "volume-1."]),
        ],
    )
    def test_files_of_other_tools(self, chain: list[str], expected: list[str]) -> None:
        """virsh's `--diskspec`, virt-manager, Proxmox: an ending is no name of a snapshot."""
        disk = samples.disk(layers=tuple(samples.layer(name) for name in chain))
        assert [one.name for one in snapshots(disk)] == expected
        for name, file in zip(expected, chain[:-1], strict=True):
            assert find_snapshot(disk, name).overlay.file == file
            assert find_snapshot(disk, file).overlay.file == file

    @pytest.mark.parametrize(
        "ending",
        ["img", "qcow", "qcow2", "qed", "raw", "vdi", "vhd", "vhdx", "vmdk", "vpc", "QCOW2", "Raw"],
    )
    def test_every_ending(self, ending: str) -> None:
        layers = samples.layer(f"snap1.{ending}"), samples.layer("base")
        assert [one.name for one in snapshots(samples.disk(layers=layers))] == ["snap1"]


class TestOverlayName:
    @pytest.mark.parametrize("name", ["a", "0", "before-upgrade_2", "x" * 100, "A" * 36])
    def test_good(self, name: str) -> None:
        assert overlay_name(samples.disk(3), name) == f"volume-1.{name}"

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "-a", "_a", "a.b", "a/b", "a b", "ä", "a\n", "x" * 101, "a:b", "\0"]
    )
    def test_bad(self, name: str) -> None:
        with pytest.raises(BadSnapshotName) as caught:
            overlay_name(samples.disk(3), name)
        assert isinstance(caught.value, Refused)


class TestBelongs:
    OTHER = samples.disk(
        disk="vdb", serial="2", layers=(samples.layer("other.s1"), samples.layer("other"))
    )

    @pytest.mark.parametrize(
        "name",
        [
            "volume-1",
            "volume-1.s9",
            "volume-1.any.thing",
            "snapshot",
            "disk.s1",
            "volume",
            "volume-",
            "xvolume-2.s1",
            "otherwise.s1",
        ],
    )
    def test_own_and_nobodys_names(self, name: str) -> None:
        check_belongs(name, samples.disk(2), (self.OTHER,))

    THIRD = samples.disk(disk="vdc", serial="3", layers=(samples.layer("third.qcow2"),))

    @pytest.mark.parametrize(
        "name",
        [
            "volume-2",
            "volume-2.s1",
            "volume-10.s1",
            "other",
            "other.s1",
            "other.new",
            "third",
            "third.new",
        ],
    )
    def test_names_of_another_volume(self, name: str) -> None:
        with pytest.raises(BadFileName, match="another volume") as caught:
            check_belongs(name, samples.disk(2), (self.OTHER, self.THIRD))
        assert (caught.value.field, caught.value.name) == ("new_file", name)
        assert caught.value.example == "volume-1.<snapshot id>"

    def test_files_that_carry_another_id_than_the_volume_after_a_migration(self) -> None:
        disk = samples.disk(serial="9", layers=(samples.layer("volume-2"),))
        check_belongs("volume-2.s1", disk, ())
        check_belongs("volume-9.s1", disk, ())
        with pytest.raises(BadFileName):
            check_belongs("volume-1.s1", disk, ())

    def test_base_that_both_disks_share(self) -> None:
        check_belongs("volume-1.s1", samples.disk(), (samples.disk(disk="vdb"),))


@pytest.mark.parametrize("present", [None, "/elsewhere/x", "json:{}"])
def test_name_of_a_base_that_has_no_path(present: str | None) -> None:
    """By its whole path, where it has one and the present name is none that is relative."""
    above = samples.layer("volume-1.s1", backing_name=present)
    assert name_of_base(above, samples.layer("b")) == "/share/b"
    assert name_of_base(above, samples.layer("b", path=None)) == "b"


def test_an_overlay_is_not_called_after_a_file_elsewhere() -> None:
    disk = samples.changed_layer(samples.disk(2), 1, path="/templates/volume-1")
    assert overlay_name(disk, "new") == "volume-1.s1.new"


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (["vm1.qcow2", "t.qcow2"], "vm1.qcow2.new"),
        (["vm1.qcow2.a", "vm1.qcow2", "t.qcow2"], "vm1.qcow2.new"),
        (["vm1.qcow2.b", "vm1.qcow2.a", "t.qcow2"], "vm1.qcow2.b.new"),
        (["volume-1.s2", "volume-1.s1", "fedora"], "volume-1.s2.new"),
        (["t1", "t"], "t1.new"),
    ],
)
def test_an_overlay_is_not_called_after_a_template(chain: list[str], expected: str) -> None:
    """Clones of one template in one folder would share it."""
    disk = samples.disk(layers=tuple(samples.layer(name) for name in chain))
    assert overlay_name(disk, "new") == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/share/x", "/share/x"),
        ("//share/.//x/", "/share/x"),
        ("/share/link/../x", "/share/link/../x"),
        ("./x", "x"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_tidy(path: str, expected: str) -> None:
    assert tidy(path) == expected


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ("x", "x"),
        ("nbd:x", "./nbd:x"),
        ("json:{}", "./json:{}"),
        ("a:b/x", "./a:b/x"),
        ("../a:b", "../a:b"),
        ("./a:b", "./a:b"),
    ],
)
def test_what_a_header_may_say(relative: str, expected: str) -> None:
    assert backing_name(relative) == expected


@pytest.mark.parametrize(
    ("path", "folder", "names"),
    [
        ("/share/a", None, {"/share/a"}),
        ("/share//./a", None, {"/share/a"}),
        ("/link/a", "/share/deep", {"/link/a", "/share/deep/a"}),
        (None, "/share", {"", "/share/volume-1"}),
    ],
)
def test_spellings(path: str | None, folder: str | None, names: set[str]) -> None:
    layer = samples.disk(1).layers[0]
    file = layer.file if path is None else path.rpartition("/")[2]
    assert spellings(replace(layer, path=path, folder=folder, file=file)) == names


@pytest.mark.parametrize(
    ("present", "base", "folders", "name"),
    [
        ("volume-1", "/share/b", ("/share", "/share"), "b"),
        ("./volume-1", "/share/a:b", ("/share", "/share"), "./a:b"),
        ("../x/volume-1", "/share/b", ("/other", "/share"), "../share/b"),
        ("/share/volume-1", "/share/b", ("/share", "/share"), "/share/b"),
        ("json:{}", "/share/b", ("/share", "/share"), "/share/b"),
        (None, "/share/b", ("/share", "/share"), "/share/b"),
    ],
)
def test_name_of_a_base(
    present: str | None, base: str, folders: tuple[str, str], name: str
) -> None:
    """As the present one is: relative stays relative, which keeps a volume that is mounted elsewhere."""
    upper, lower = samples.disk(2).layers
    above = replace(upper, backing_name=present, folder=folders[0])
    below = replace(lower, path=base, file=base.rpartition("/")[2], folder=folders[1])
    assert name_of_base(above, below) == name
    assert name_of_base(replace(above, path=None), below) == base
    assert name_of_base(replace(above, path=None), replace(below, path=None)) == below.file
