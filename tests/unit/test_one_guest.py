"""Each rule about one guest: it fires, and does not on the clean neighbour."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.findings.facts import FileFacts, Seen
from qmpsnap.findings.finding import RULES, Finding, Severity
from qmpsnap.findings.one_guest import HEADER_IN_RAW, one_guest, with_flags
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import Evidence, Verdict, Witness
from qmpsnap.graph.files import OpenFile
from qmpsnap.graph.nodes import Job, Node, Recorded
from tests.unit import samples

TOP, BASE = "/share/volume-1.s1", "/share/volume-1"


def chain(
    recorded: str | None = "volume-1", format_: str | None = "raw", *, base: str = "raw"
) -> Disk:
    """Two layers; the header of the upper one says `recorded` and `format_`."""
    disk = samples.disk(2, base=base)
    entry = None
    if recorded is not None:
        entry = Recorded(filename=recorded, format=format_)
    details = disk.layers[0].node_details
    assert details is not None
    return samples.changed_layer(disk, 0, node_details=replace(details, recorded=entry))


def looked(
    disk: Disk, files: dict[str, FileFacts] | None = None, **guest: Any
) -> tuple[Finding, ...]:
    """Findings of a guest with one disk."""
    report = replace(samples.guest(disk), **guest)
    known = files or {}
    return one_guest(Seen(guest="web1", report=with_flags(report, known), files=known))


def ids(found: tuple[Finding, ...]) -> list[str]:
    return [one.id for one in found]


def only(found: tuple[Finding, ...]) -> Finding:
    assert len(found) == 1, ids(found)
    return found[0]


def test_what_could_not_be_read_of_one_disk() -> None:
    disk = replace(samples.disk(), notes=("its size is not known",))
    found = only(looked(disk))
    assert (found.id, found.disk, found.message) == (
        ("guest-partly-read", "vda", "its size is not known")
    )


def test_a_guest_that_is_off_is_no_finding() -> None:
    disk = replace(samples.disk(), off=True)
    assert looked(disk) == ()
    (remark,) = samples.guest(disk).remarks
    assert remark.startswith("the guest is off")


def test_remarks_name_the_disk() -> None:
    disk = replace(samples.disk(), notes=("why",))
    assert replace(samples.guest(disk), notes=("all",)).remarks == ("all", "vda: why")


@pytest.mark.parametrize("depth", range(1, 5))
def test_a_clean_chain(depth: int) -> None:
    disk = samples.disk(depth)
    layers = []
    for layer, below in zip(disk.layers, [*disk.layers[1:], None], strict=True):
        details = layer.node_details
        assert details is not None
        entry = None
        if below is not None:
            entry = Recorded(filename=below.file, format=below.format)
        layers.append(replace(layer, node_details=replace(details, recorded=entry)))
    assert looked(replace(disk, layers=tuple(layers))) == ()


def test_an_empty_drive() -> None:
    assert looked(samples.disk(layers=(), kind="cdrom")) == ()


class TestFormats:
    def test_conflict(self) -> None:
        said = Evidence(witness=Witness.HEADER, format="qcow2", detail="header of volume-1.s1")
        disk = samples.changed_layer(
            chain(), 1, verdict=Verdict.CONFLICT, evidence=(*chain().layers[1].evidence[:1], said)
        )
        found = only(looked(disk))
        assert (found.id, found.severity, found.file) == ("format-conflict", Severity.ERROR, BASE)
        assert "qmp says raw" in found.message
        assert "header says qcow2 (header of volume-1.s1)" in found.message

    def test_unknown(self) -> None:
        disk = samples.changed_layer(chain(), 1, verdict=Verdict.UNKNOWN, format=None, evidence=())
        assert only(looked(disk)).id == "format-unknown"

    def test_a_node_that_cannot_be_described_is_not_also_unknown(self) -> None:
        disk = samples.changed_layer(
            chain(), 1, verdict=Verdict.UNKNOWN, format=None, evidence=(), flags=("unreadable",)
        )
        assert only(looked(disk)).id == "node-unreadable"

    def test_probed(self) -> None:
        found = only(looked(samples.changed_layer(chain(), 1, flags=("probed",))))
        assert (found.id, found.file, found.node) == ("opened-by-probing", BASE, "volume-1-node")

    def test_slice(self) -> None:
        found = only(looked(samples.changed_layer(chain(), 1, flags=("slice",))))
        assert (found.id, found.matters) == ("raw-slice", False)


class TestNames:
    def test_that_leads_to_another_file(self) -> None:
        disk = samples.changed_layer(chain(), 1, flags=("replaced",), sight="to another file")
        found = only(looked(disk))
        assert (found.id, found.severity, found.file) == ("file-replaced", Severity.ERROR, BASE)
        assert found.message == "to another file"

    def test_one_note_for_all_that_cannot_be_seen(self) -> None:
        disk = chain()
        for position in (0, 1):
            disk = samples.changed_layer(disk, position, flags=("not-seen",), sight="a proxy")
        found = only(looked(disk))
        assert (found.id, found.matters, found.file) == ("file-not-seen", False, None)
        assert found.message == "volume-1.s1, volume-1: a proxy"


class TestRecordedFormat:
    def test_missing(self) -> None:
        found = only(looked(chain(format_=None)))
        assert (found.id, found.file) == ("backing-format-missing", TOP)
        assert command(found) == shlex.split(
            "qemu-img rebase -u -f qcow2 -b volume-1 -F raw /share/volume-1.s1"
        )

    @pytest.mark.parametrize("protocol", ["file", "host_device", "nbd"])
    def test_a_protocol(self, protocol: str) -> None:
        found = only(looked(chain(format_=protocol)))
        assert found.id == "backing-format-protocol"
        assert repr(protocol) in found.message
        assert "-F raw" in found.remedy

    def test_raw_over_what_the_xml_calls_encrypted(self) -> None:
        by_xml = Evidence(witness=Witness.XML, format="luks", detail="index 2")
        disk = samples.changed_layer(chain(format_="raw"), 1, format="luks", evidence=(by_xml,))
        found = only(looked(disk))
        assert (found.id, found.file, found.matters) == ("backing-format-without-luks", TOP, False)
        assert command(found) == shlex.split(
            "qemu-img rebase -u -f qcow2 -b volume-1 -F luks /share/volume-1.s1"
        )

    @pytest.mark.parametrize("witness", [Witness.QMP, Witness.HEADER])
    def test_encrypted_by_others_is_a_matter_of_the_verdict(self, witness: Witness) -> None:
        evidence = Evidence(witness=witness, format="luks", detail="")
        disk = samples.changed_layer(chain(format_="raw"), 1, format="luks", evidence=(evidence,))
        assert looked(disk) == ()

    def test_what_is_on_disk_counts_more_than_what_qemu_read(self) -> None:
        header = Header(version=3, virtual_size=1, backing_file="volume-1", backing_format="raw")
        assert looked(chain(format_="file"), {TOP: FileFacts(header=header)}) == ()
        bad = replace(header, backing_format="file")
        found = only(looked(chain(), {TOP: FileFacts(header=bad)}))
        assert found.id == "backing-format-protocol"

    @pytest.mark.parametrize(
        "doubt",
        [
            {"flags": ("probed",)},
            {"verdict": Verdict.CONFLICT},
            {"verdict": Verdict.UNKNOWN, "format": None},
        ],
    )
    def test_no_format_is_suggested_that_somebody_doubts(self, doubt: dict[str, Any]) -> None:
        """An attacker who made QEMU take a raw file for qcow2 must not get that written down."""
        disk = samples.changed_layer(chain(format_=None), 1, **doubt)
        (found,) = [one for one in looked(disk) if one.id == "backing-format-missing"]
        assert "-F FORMAT " in found.remedy
        assert "made with" in found.remedy

    def test_hostile_names_are_quoted(self) -> None:
        found = only(looked(chain("volume-1; rm -rf $HOME", None))[:1])
        assert command(found)[6] == "volume-1; rm -rf $HOME"

    def test_with_the_xml_alone_nobody_has_read_a_header(self) -> None:
        disk = samples.changed_layer(chain(None), 0, node_details=None, node=None)
        assert looked(disk) == ()


class TestRecordedName:
    def test_none_though_qemu_has_one_open(self) -> None:
        found = only(looked(chain(None)))
        assert (found.id, found.file) == ("backing-not-recorded", TOP)
        assert command(found)[-4:] == [BASE, "-F", "raw", TOP]

    @pytest.mark.parametrize(
        "name",
        ["volume-1", "./volume-1", "/share/volume-1", "/share/x/../volume-1", "file:volume-1"],
    )
    def test_the_same_file(self, name: str) -> None:
        assert looked(chain(name)) == ()

    def test_another_file(self) -> None:
        found = only(looked(chain("volume-2")))
        assert (found.id, found.severity) == ("backing-name-differs", Severity.WARNING)
        assert "volume-2" in found.message
        assert command(found)[5:7] == ["-b", BASE]

    def test_a_symbolic_link_to_it(self) -> None:
        files = {BASE: FileFacts(real_path="/mnt/nfs/volume-1", real_folder="/share")}
        disk = chain("/mnt/nfs/volume-1")
        assert "backing-name-differs" not in ids(looked(disk, files))
        assert "backing-name-differs" in ids(looked(disk))

    def test_the_last_layer_names_one_that_qemu_has_not_open(self) -> None:
        disk = samples.disk(1, base="qcow2")
        node = replace(
            disk.layers[0].node_details or Node(name="", driver="", filename=""),
            recorded=Recorded(filename="older", format="raw"),
        )
        found = only(looked(samples.changed_layer(disk, 0, node_details=node)))
        assert found.id == "backing-name-differs"
        assert "QEMU has none" in found.message

    @pytest.mark.parametrize("name", ["nbd://host/export", 'json:{"driver":"nbd"}', "/dev/fdset/1"])
    def test_a_name_that_is_no_file_here(self, name: str) -> None:
        found = looked(chain(name))
        assert all(one.id == "backing-name-differs" for one in found)


class TestLoops:
    @pytest.mark.parametrize(("name", "words"), [("volume-1.s1", "above"), ("volume-1", "itself")])
    def test_a_header_names_a_file_above(self, name: str, words: str) -> None:
        disk = chain(base="qcow2", format_="qcow2")
        header = Header(version=3, virtual_size=1, backing_file=name, backing_format="qcow2")
        found = only(looked(disk, {BASE: FileFacts(header=header)}))
        assert (found.id, found.file) == ("chain-loop", BASE)
        assert words in found.message

    def test_one_file_under_two_names(self) -> None:
        twin = FileFacts(identity=("file", 1, 7))
        found = only(looked(chain(), {TOP: twin, BASE: twin}))
        assert found.id == "chain-loop"

    def test_two_files(self) -> None:
        files = {TOP: FileFacts(identity=("file", 1, 7)), BASE: FileFacts(identity=("file", 2, 7))}
        assert looked(chain(), files) == ()


class TestRawFiles:
    def test_a_header_inside(self) -> None:
        found = only(looked(chain(), {BASE: FileFacts(looks_like="vmdk")}))
        assert (found.id, found.severity) == ("image-header-in-raw", Severity.WARNING)
        assert "vmdk" in found.message

    def test_the_format_stays_raw(self) -> None:
        report = with_flags(samples.guest(chain()), {BASE: FileFacts(looks_like="qcow2")})
        top, base = report.disks[0].layers
        assert (base.format, base.verdict, base.flags) == ("raw", Verdict.EXACT, (HEADER_IN_RAW,))
        assert top.flags == ()

    def test_the_flag_is_for_raw_layers_alone(self) -> None:
        report = with_flags(samples.guest(chain()), {TOP: FileFacts(looks_like="qcow2")})
        assert report == samples.guest(chain())

    def test_a_file_that_cannot_be_read(self) -> None:
        found = only(looked(chain(), {BASE: FileFacts(problem="Permission denied")}))
        assert (found.id, found.severity) == ("file-not-checked", Severity.NOTE)

    def test_a_qcow2_without_a_header(self) -> None:
        found = only(looked(chain(), {TOP: FileFacts(bad_header="the magic is missing")}))
        assert (found.id, found.file) == ("header-invalid", TOP)


class TestFolders:
    def outside(self, path: str, files: dict[str, FileFacts] | None = None) -> list[str]:
        disk = samples.changed_layer(chain(path), 1, path=path)
        return ids(looked(disk, files))

    def test_another_folder(self) -> None:
        assert self.outside("/etc/passwd") == ["backing-outside-folder"]

    def test_the_same_folder_by_another_name(self) -> None:
        assert self.outside("/share/../share/./volume-1") == []

    def test_a_folder_below_is_another_one(self) -> None:
        assert self.outside("/share/_base/volume-1") == ["backing-outside-folder"]

    def test_a_link_in_the_folder_that_leads_out_of_it(self) -> None:
        facts = FileFacts(real_path="/etc/shadow", real_folder="/share")
        assert self.outside(BASE, {BASE: facts}) == ["backing-outside-folder"]

    def test_a_share_that_is_mounted_behind_a_link(self) -> None:
        files = {
            path: FileFacts(real_path=path.replace("/share", "/mnt/1"), real_folder="/mnt/1")
            for path in (TOP, BASE)
        }
        assert self.outside(BASE, files) == []

    def test_a_network_source_below_a_file(self) -> None:
        disk = samples.changed_layer(
            chain("nbd://host/x"), 1, path=None, file="nbd://host/x", protocol="nbd"
        )
        assert "backing-outside-folder" in ids(looked(disk))

    @pytest.mark.parametrize(
        ("off", "name", "words"),
        [
            (True, "/templates/base", "a header alone names it; the active file lies in /share"),
            (True, "nbd:host", "it comes by network; the active file lies in /share"),
            (False, "nbd:host", "it comes by network; the active file lies in /share"),
        ],
    )
    def test_what_is_not_followed(self, off: bool, name: str, words: str) -> None:
        disk = samples.changed_layer(
            samples.disk(2, off=off), 1, path=None, file=name, protocol="network"
        )
        assert [one.message for one in looked(disk) if one.id == "backing-outside-folder"] == [
            words
        ]

    @pytest.mark.parametrize("witness", [Witness.XML, Witness.HEADER])
    def test_what_the_definition_names_and_is_no_file_here(self, witness: Witness) -> None:
        """A volume of a pool that is not started, or a network's image."""
        said = (Evidence(witness=witness, format="raw", detail=""),)
        disk = samples.changed_layer(
            samples.disk(2, off=True), 1, path=None, file="p/v", protocol="network", evidence=said
        )
        (one,) = (one for one in looked(disk) if one.id == "backing-outside-folder")
        assert one.message.startswith("the definition names it") is (witness is Witness.XML)

    @pytest.mark.parametrize("protocol", ["file", "host_device", "host_cdrom", "unknown"])
    def test_a_passed_descriptor_has_no_folder(self, protocol: str) -> None:
        disk = samples.changed_layer(
            chain("/dev/fdset/1"), 1, path=None, file="/dev/fdset/1", protocol=protocol
        )
        assert looked(disk) == ()

    def test_a_network_disk(self) -> None:
        disk = samples.changed_layer(samples.disk(1), 0, path=None, protocol="rbd")
        assert looked(disk) == ()


def open_file(name: str, role: str, layer: int = 0) -> OpenFile:
    return OpenFile(path=name, name=name, protocol="file", node="#block1", role=role, layer=layer)


class TestOtherFiles:
    def test_data_file(self) -> None:
        disk = replace(
            samples.changed_layer(chain(), 0, flags=("data-file",)),
            files=(open_file(TOP, "file"), open_file("/etc/shadow", "data-file")),
        )
        found = only(looked(disk))
        assert (found.id, found.file) == ("data-file", TOP)
        assert "/etc/shadow" in found.message

    def test_data_file_by_the_header_alone(self) -> None:
        header = Header(
            version=3,
            virtual_size=1,
            backing_file="volume-1",
            backing_format="raw",
            data_file="data",
        )
        disk = samples.changed_layer(chain(), 0, flags=("data-file",))
        assert "data" in only(looked(disk, {TOP: FileFacts(header=header)})).message

    def test_extents(self) -> None:
        disk = replace(chain(), files=(open_file("/etc/shadow", "extents.0", 1),))
        found = only(looked(disk))
        assert (found.id, found.file) == ("file-beyond-chain", "/etc/shadow")
        assert "extents.0 of volume-1" in found.message

    def test_files_of_the_chain_itself(self) -> None:
        disk = replace(chain(), files=(open_file(TOP, "file"), open_file(BASE, "file", 1)))
        assert looked(disk) == ()

    def test_the_target_of_a_running_backup(self) -> None:
        disk = replace(chain(), files=(open_file("/backup/1", "target"),))
        job = Job(id="backup", type="backup", status="running")
        assert looked(disk, jobs=(job,)) == ()
        assert only(looked(disk)).id == "file-beyond-chain"


class TestGuest:
    def test_libvirt_sees_another_chain(self) -> None:
        found = only(looked(replace(chain(), xml_differs="libvirt sees a, QEMU has b")))
        assert (found.id, found.message) == ("chain-differs", "libvirt sees a, QEMU has b")

    def test_a_note_says_what_was_missing(self) -> None:
        found = only(looked(chain(), notes=("formats by XML alone: denied",)))
        assert (found.id, found.disk, found.matters) == ("guest-partly-read", None, True)


def command(found: Finding) -> list[str]:
    """The command in a remedy, as a shell would split it."""
    (text,) = re.findall(r"`([^`]*)`", found.remedy)
    return shlex.split(text)


class TestRules:
    def test_ids(self) -> None:
        names = [rule.id for rule in RULES]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)

    def test_the_worst_come_first(self) -> None:
        severities = list(Severity)
        assert [rule.severity for rule in RULES] == sorted(
            (rule.severity for rule in RULES), key=severities.index
        )

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
    def test_no_command_probes(self, rule: Any) -> None:
        for text in re.findall(r"`(qemu-img [^`]*)`", rule.remedy):
            words = text.split()
            assert "-f" in words, text
            assert ("-b" in words) == ("-F" in words), text
        assert rule.title
        assert not rule.title.endswith(".")
        assert rule.help.endswith(".")
        assert rule.remedy.endswith(".")


def test_every_layer_is_named_as_people_know_it() -> None:
    layer: Layer = samples.layer("nbd://h/x", path=None, format=None, verdict=Verdict.UNKNOWN)
    report = Disks(guest="g", disks=(samples.disk(layers=(layer,)),))
    (found,) = one_guest(Seen(guest="g", report=report))
    assert found.file == "nbd://h/x"
