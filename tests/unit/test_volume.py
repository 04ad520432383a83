"""Which disk is meant, and which one no operation may touch."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Disk, DiskAmbiguous, DiskNotFound, Disks
from qmpsnap.formats.verdict import Evidence, Verdict, Witness
from qmpsnap.operations.volume import (
    DiskUnsuitable,
    FileNotHere,
    FileReplaced,
    FormatUncertain,
    on_the_same_node,
    unseen,
    usable,
)
from tests.unit import samples

VDB = samples.disk(
    disk="vdb",
    serial="2",
    qdev="/machine/peripheral/disk2/virtio-backend",
    root="filter",
    layers=(samples.layer("b"),),
)


def encrypted(disk: Disk) -> Disk:
    """The same, each layer with LUKS inside, and a secret that libvirt opens it with."""
    layers = (replace(one, flags=("encrypted",), secret="5e") for one in disk.layers)
    return replace(disk, layers=tuple(layers))


class TestFind:
    @pytest.mark.parametrize(
        "wanted",
        ["vdb", "2", "disk2", "/machine/peripheral/disk2/virtio-backend", "b-node", "filter"],
    )
    def test_by_any_of_its_names(self, wanted: str) -> None:
        assert samples.guest(samples.disk(), VDB).disk(wanted) is VDB

    @pytest.mark.parametrize("wanted", ["vdc", "", "vd", "VDB", "/share/b", "b"])
    def test_none(self, wanted: str) -> None:
        with pytest.raises(DiskNotFound) as caught:
            samples.guest(samples.disk(), VDB).disk(wanted)
        assert isinstance(caught.value, Refused)
        assert caught.value.known == ("vda (serial 1)", "vdb (serial 2)")

    def test_guest_without_disks(self) -> None:
        with pytest.raises(DiskNotFound, match="the guest has: none"):
            Disks(guest=None, disks=()).disk("a")

    def test_disk_without_serial(self) -> None:
        with pytest.raises(DiskNotFound, match=r"has: vda$"):
            samples.guest(samples.disk(serial=None)).disk("1")

    def test_two_with_one_serial(self) -> None:
        twin = samples.disk(disk="vdb", qdev="b", root="b", layers=(samples.layer("b"),))
        with pytest.raises(DiskAmbiguous, match="more than one disk: vda, vdb") as caught:
            samples.guest(samples.disk(), twin).disk("1")
        assert isinstance(caught.value, Refused)

    def test_target_wins_over_a_serial_of_the_same_text(self) -> None:
        impostor = samples.disk(disk="vdz", serial="vda", qdev="z", layers=(samples.layer("z"),))
        guest = samples.guest(impostor, samples.disk())
        assert guest.disk("vda").disk == "vda"


class TestUsable:
    @pytest.mark.parametrize("base", ["raw", "qcow2", "luks"])
    @pytest.mark.parametrize("depth", range(1, 9))
    def test_good_chain(self, depth: int, base: str) -> None:
        disk = samples.disk(depth, base=base)
        assert to_builtins(usable(disk)) == to_builtins(disk)

    @pytest.mark.parametrize(
        "flag", ["detect-zeroes", "filter", "implicit-filter", "bitmaps", "json-name"]
    )
    def test_flags_that_do_not_matter(self, flag: str) -> None:
        assert usable(samples.changed_layer(samples.disk(2), 0, flags=(flag,)))

    @pytest.mark.parametrize("kind", ["disk", "lun"])
    def test_kind(self, kind: str) -> None:
        assert usable(samples.disk(kind=kind))

    @pytest.mark.parametrize(
        ("disk", "reason"),
        [
            (samples.disk(kind="cdrom"), "it is a cdrom"),
            (samples.disk(kind="floppy"), "it is a floppy"),
            (samples.disk(kind="pflash"), "it is a pflash"),
            (samples.disk(layers=()), "the drive is empty"),
            (samples.disk(read_only=True), "it is read-only"),
            (samples.disk(xml_differs="libvirt sees x"), r"different chains \(libvirt sees x\)"),
            (samples.disk(xml_differs="x", off=True), r"headers of its files disagree \(x\)"),
            (samples.disk(transient=True), "it is transient"),
            (samples.disk(shareable=True), "it is shareable"),
        ],
    )
    def test_disk_that_cannot_have_snapshots(self, disk: Disk, reason: str) -> None:
        with pytest.raises(DiskUnsuitable, match=reason) as caught:
            usable(disk)
        assert isinstance(caught.value, Refused)
        assert caught.value.way_out

    @pytest.mark.parametrize("position", [0, 1, 2])
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"path": None}, "is not a file on this host"),
            ({"path": "a"}, "by a relative name only"),
            ({"path": ""}, "by a relative name only"),
            ({"flags": ("data-file",)}, r"keeps its data in another file \(data-file\)"),
            ({"flags": ("detect-zeroes", "data-file")}, "data-file"),
            ({"flags": ("encrypted",)}, "is encrypted"),
            ({"flags": ("two-formats",)}, "is opened by two formats, one over the other"),
            ({"flags": ("slice",)}, r"a part of a larger file \(offset, size\)"),
            ({"flags": ("unreadable",)}, "is a node that QEMU cannot describe any more"),
            ({"flags": ("inactive",)}, "is not this QEMU's to write"),
        ],
    )
    def test_layer_that_cannot_be_changed(
        self, position: int, changes: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(DiskUnsuitable, match=reason):
            usable(samples.changed_layer(samples.disk(3), position, **changes))

    def test_chain_that_is_encrypted_throughout(self) -> None:
        disk = encrypted(samples.disk(3, base="qcow2"))
        assert to_builtins(usable(disk)) == to_builtins(disk)

    @pytest.mark.parametrize("position", [0, 1, 2])
    @pytest.mark.parametrize(
        "changes", [{"secret": None}, {"flags": ()}, {"format": "luks"}, {"format": "raw"}]
    )
    def test_chain_that_is_encrypted_in_part(self, position: int, changes: dict[str, Any]) -> None:
        """What is moved into the layer that is not encrypted would be there in plain."""
        disk = encrypted(samples.disk(3, base="qcow2"))
        with pytest.raises(DiskUnsuitable, match="is encrypted"):
            usable(samples.changed_layer(disk, position, **changes))

    def test_encrypted_chain_of_a_guest_that_is_off(self) -> None:
        with pytest.raises(DiskUnsuitable, match="is encrypted"):
            usable(replace(encrypted(samples.disk(2, base="qcow2")), off=True))

    @pytest.mark.parametrize("position", [0, 1, 2])
    @pytest.mark.parametrize(
        ("flags", "error"),
        [
            (("replaced",), FileReplaced),
            (("encrypted", "replaced"), FileReplaced),
            (("not-seen", "not-here"), FileNotHere),
            (("temporary",), DiskUnsuitable),
        ],
    )
    def test_name_that_leads_to_another_file(
        self, position: int, flags: tuple[str, ...], error: type[Refused]
    ) -> None:
        with pytest.raises(error) as caught:
            usable(samples.changed_layer(samples.disk(3), position, flags=flags, sight="it is not"))
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")

    @pytest.mark.parametrize("flag", ["replaced", "not-here"])
    def test_a_file_without_a_path_is_called_by_its_name(self, flag: str) -> None:
        disk = samples.changed_layer(samples.disk(2), 1, path=None, flags=(flag,), sight="")
        with pytest.raises((FileReplaced, FileNotHere), match="volume-1"):
            usable(disk)

    @pytest.mark.parametrize(
        ("name", "away"),
        [
            ("../template", True),
            ("/templates/base", True),
            ("a/b:c/d", True),
            ("nbd:host/x", False),
            ("json:{}", False),
            (None, False),
        ],
    )
    def test_header_that_leads_to_another_folder_while_off(
        self, name: str | None, away: bool
    ) -> None:
        disk = samples.changed_layer(samples.disk(2, off=True), 1, path=None)
        disk = samples.changed_layer(disk, 0, backing_name=name)
        words = "lies in another folder than volume-1.s1" if away else "is not a file on this host"
        with pytest.raises(DiskUnsuitable, match=words):
            usable(disk)

    def test_names_that_agree_will_do_where_nothing_is_seen(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 1, flags=("not-seen",), sight="a proxy")
        assert usable(disk)
        (said,) = unseen(disk)
        assert "(a proxy): no file is removed" in said
        assert unseen(samples.disk(2)) == ()

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_format_that_nobody_states(self, position: int) -> None:
        disk = samples.changed_layer(
            samples.disk(3), position, format=None, verdict=Verdict.UNKNOWN, evidence=()
        )
        with pytest.raises(FormatUncertain, match="nobody states it") as caught:
            usable(disk)
        assert caught.value.file == disk.layers[position].file
        assert isinstance(caught.value, Refused)

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_witnesses_that_contradict(self, position: int) -> None:
        said = (
            Evidence(witness=Witness.QMP, format="qcow2", detail=""),
            Evidence(witness=Witness.LEDGER, format="raw", detail=""),
        )
        disk = samples.changed_layer(
            samples.disk(3), position, verdict=Verdict.CONFLICT, evidence=said
        )
        with pytest.raises(FormatUncertain, match="qmp says qcow2, ledger says raw"):
            usable(disk)

    @pytest.mark.parametrize("verdict", [Verdict.EXACT, Verdict.AGREED, Verdict.STATED])
    def test_verdicts_that_will_do(self, verdict: Verdict) -> None:
        assert usable(samples.changed_layer(samples.disk(2), 1, verdict=verdict))

    def test_two_layers_of_one_name(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 2, file="volume-1.s1", path="/b/volume-1.s1")
        with pytest.raises(DiskUnsuitable, match="same file name"):
            usable(disk)


@pytest.mark.parametrize(("format_", "refused"), [("qcow2", True), ("vmdk", True), ("raw", False)])
def test_format_that_qemu_guessed(format_: str, refused: bool) -> None:
    disk = samples.changed_layer(samples.disk(2, base=format_), 1, flags=("probed",))
    if refused:
        with pytest.raises(FormatUncertain, match=f"guessed {format_}"):
            usable(disk)
    else:
        usable(disk)


def test_two_devices_on_one_node() -> None:
    one, other = samples.disk(2), samples.disk(2, disk="vdb")
    (said,) = on_the_same_node(one, [one, other])
    assert said == "vdb and vda are on one node: this changes all of them"
    assert on_the_same_node(one, [one, replace(other, root="another")]) == ()
    assert on_the_same_node(replace(one, root=None), [one, replace(other, root=None)]) == ()
    assert on_the_same_node(replace(one, off=True), [one, replace(other, off=True)]) == ()
