"""Domain XML: what libvirt 9.0 really writes, what older ones wrote, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.errors import Failed
from qmpsnap.graph.xml import MalformedXml, XmlDisk, XmlLayer, parse, parse_snapshot
from tests.unit import recordings

LUKS = "<encryption format='luks' engine='qemu'><secret type='passphrase' uuid='11'/></encryption>"


def domain(*disks: str, name: str = "web1") -> str:
    return f"<domain type='qemu'><name>{name}</name><devices>{''.join(disks)}</devices></domain>"


def disk(body: str, attributes: str = "type='file' device='disk'") -> str:
    return f"<disk {attributes}>{body}<target dev='vda' bus='virtio'/></disk>"


def only_disk(body: str, attributes: str = "type='file' device='disk'") -> XmlDisk:
    (found,) = parse(domain(disk(body, attributes))).disks
    return found


def only_layer(body: str) -> XmlLayer:
    (found,) = only_disk(body).layers
    return found


class TestRecorded:
    def test_running_guest(self) -> None:
        found = parse(recordings.xml("libvirt-running"))
        assert found.name == "web1"
        vda, vdd, cdrom = found.disks
        assert vda == XmlDisk(
            target="vda",
            serial="1234",
            alias="virtio-disk0",
            device="disk",
            read_only=False,
            layers=(
                XmlLayer(path="/share/base.s2", name="/share/base.s2", format="qcow2", index=3),
                XmlLayer(path="/share/base.s1", name="/share/base.s1", format="qcow2", index=4),
                XmlLayer(path="/share/base", name="/share/base", format="raw", index=5),
            ),
            ended=True,
        )
        nbd = "nbd+unix://?socket=/share/nbd.sock"
        assert vdd.layers == (XmlLayer(path=None, name=nbd, format="raw", index=2),)
        assert (vdd.target, vdd.serial, vdd.device) == ("vdd", None, "disk")
        assert cdrom == XmlDisk(
            target="sda",
            serial=None,
            alias="ide0-0-0",
            device="cdrom",
            read_only=True,
            layers=(),
        )

    def test_mirror_while_an_active_commit_is_ready(self) -> None:
        vda, *_ = parse(recordings.xml("libvirt-mirror")).disks
        assert vda.mirror == "active-commit"
        assert [layer.index for layer in vda.layers] == [3, 4, 5]


class TestDisks:
    def test_no_disks(self) -> None:
        assert parse("<domain><name>a</name></domain>").disks == ()

    def test_no_name(self) -> None:
        assert parse("<domain/>").name == ""

    def test_disk_without_target_is_not_reachable(self) -> None:
        assert parse(domain("<disk><source file='/a'/></disk>")).disks == ()

    @pytest.mark.parametrize("device", ["disk", "cdrom", "floppy", "lun"])
    def test_device(self, device: str) -> None:
        assert only_disk("", f"device='{device}'").device == device

    def test_device_is_a_disk_when_nothing_is_said(self) -> None:
        assert only_disk("", "type='file'").device == "disk"

    def test_only_disks_below_devices_count(self) -> None:
        inner = disk("<source file='/a'/>")
        assert parse(f"<domain><metadata>{inner}</metadata>{inner}</domain>").disks == ()

    @pytest.mark.parametrize(
        ("source", "file"),
        [
            ("<source file='/s/a'/>", "/s/a"),
            ("<source dev='/dev/sda'/>", "/dev/sda"),
            ("<source protocol='nbd' name='x'/>", None),
            ("", None),
        ],
    )
    def test_where_a_mirror_leads(self, source: str, file: str | None) -> None:
        assert only_disk(f"<mirror job='copy'>{source}</mirror>").mirror_file == file

    def test_mirror_without_a_job_attribute(self) -> None:
        assert only_disk("<mirror type='file'/>").mirror is None


class TestLayers:
    def test_block_device(self) -> None:
        layer = only_layer("<driver type='raw'/><source dev='/dev/sdb'/>")
        assert (layer.path, layer.name) == ("/dev/sdb", "/dev/sdb")

    def test_network_source_has_a_name_and_no_path(self) -> None:
        layer = only_layer("<driver type='raw'/><source protocol='rbd' name='pool/image'/>")
        assert (layer.path, layer.name, layer.format) == (None, "pool/image", "raw")

    def test_driver_without_type_states_nothing(self) -> None:
        assert only_layer("<driver name='qemu'/><source file='/a'/>").format is None
        assert only_layer("<source file='/a'/>").format is None

    def test_no_backing_store_is_the_end(self) -> None:
        found = only_disk("<driver type='qcow2'/><source file='/a' index='1'/>")
        assert [layer.path for layer in found.layers] == ["/a"]

    @pytest.mark.parametrize(
        ("below", "ended"),
        [
            ("", False),
            ("<backingStore/>", True),
            ("<backingStore type='file'><source file='/b'/></backingStore>", False),
            ("<backingStore><source file='/b'/><backingStore/></backingStore>", True),
        ],
    )
    def test_whether_the_end_is_said(self, below: str, ended: bool) -> None:
        assert only_disk(f"<source file='/a'/>{below}").ended is ended
        assert not only_disk(below).ended

    def test_backing_store_without_format_states_nothing(self) -> None:
        found = only_disk(
            "<driver type='qcow2'/><source file='/a'/>"
            "<backingStore type='file'><source file='/b'/></backingStore>"
        )
        assert [layer.format for layer in found.layers] == ["qcow2", None]

    def test_driver_of_the_disk_is_not_the_format_of_what_lies_below(self) -> None:
        found = only_disk(
            "<driver type='qcow2'/><source file='/a'/>"
            "<backingStore><driver type='qcow2'/><source file='/b'/></backingStore>"
        )
        assert found.layers[1].format is None

    @pytest.mark.parametrize(
        ("index", "expected"),
        [("1", 1), ("0", 0), ("", None), ("-1", None), ("x", None), ("٣", None), ("1.0", None)],
    )
    def test_index(self, index: str, expected: int | None) -> None:
        assert only_layer(f"<source file='/a' index='{index}'/>").index == expected

    def test_index_that_python_would_not_convert(self) -> None:
        assert only_layer(f"<source file='/a' index='{'9' * 5000}'/>").index is None

    def test_index_at_the_disks_source_and_at_backing_store(self) -> None:
        found = only_disk(
            "<source file='/a' index='7'/>"
            "<backingStore index='8'><source file='/b' index='9'/></backingStore>"
        )
        assert [layer.index for layer in found.layers] == [7, 8]

    def test_luks_in_the_source(self) -> None:
        body = f"<driver type='raw'/><source file='/a'>{LUKS}</source>"
        assert only_layer(body).format == "luks"

    def test_luks_at_the_disk_where_libvirt_keeps_it_if_it_was_written_there(self) -> None:
        assert only_layer(f"<driver type='raw'/><source file='/a'/>{LUKS}").format == "luks"

    def test_luks_of_the_disk_is_not_that_of_its_base(self) -> None:
        found = only_disk(
            f"<driver type='raw'/><source file='/a'/>{LUKS}"
            "<backingStore><format type='raw'/><source file='/b'/></backingStore>"
        )
        assert [layer.format for layer in found.layers] == ["luks", "raw"]

    def test_luks_in_a_base(self) -> None:
        found = only_disk(
            "<driver type='qcow2'/><source file='/a'/><backingStore><format type='raw'/>"
            f"<source file='/b'>{LUKS}</source></backingStore>"
        )
        assert [layer.format for layer in found.layers] == ["qcow2", "luks"]

    def test_luks_inside_qcow2_is_qcow2(self) -> None:
        body = f"<driver type='qcow2'/><source file='/a'>{LUKS}</source>"
        assert only_layer(body).format == "qcow2"

    def test_other_encryption_of_a_raw_source(self) -> None:
        body = "<driver type='raw'/><source file='/a'><encryption format='qcow'/></source>"
        assert only_layer(body).format == "raw"

    @pytest.mark.parametrize("format", ["luks", "luks2", "luks-any"])
    def test_encryption_of_the_storage_is_raw_to_qemu(self, format: str) -> None:
        inside = f"<encryption format='{format}' engine='librbd'/>"
        body = f"<source protocol='rbd' name='p/i'>{inside}</source>"
        layer = only_layer(f"<driver type='raw'/>{body}")
        assert (layer.format, layer.encrypted) == ("raw", True)

    @pytest.mark.parametrize(
        ("driver", "body"),
        [
            ("qcow2", f"<source file='/a'>{LUKS}</source>"),
            ("qcow2", "<source file='/a'/><encryption format='qcow'/>"),
            ("raw", f"<source file='/a'/>{LUKS}"),
        ],
    )
    def test_whatever_is_encrypted_is_flagged(self, driver: str, body: str) -> None:
        assert only_layer(f"<driver type='{driver}'/>{body}").encrypted
        assert not only_layer(f"<driver type='{driver}'/><source file='/a'/>").encrypted

    @pytest.mark.parametrize(
        ("body", "secret"),
        [
            ("<source file='/a'>{}</source>", "5e"),
            ("<source file='/a'/>{}", "5e"),
            ("<source file='/a'/>", None),
        ],
    )
    def test_secret(self, body: str, secret: str | None) -> None:
        named = "<encryption format='luks'><secret type='passphrase' uuid='5e'/></encryption>"
        assert only_layer("<driver type='qcow2'/>" + body.format(named)).secret == secret

    @pytest.mark.parametrize(
        "encryption",
        [
            "<encryption format='luks'><secret type='passphrase' usage='a'/></encryption>",
            "<encryption format='luks'/>",
            "<encryption format='qcow'><secret type='passphrase' uuid='5e'/></encryption>",
            "<encryption format='luks2' engine='librbd'><secret uuid='5e'/></encryption>",
        ],
    )
    def test_encryption_whose_secret_is_not_told(self, encryption: str) -> None:
        layer = only_layer(f"<driver type='qcow2'/><source file='/a'/>{encryption}")
        assert (layer.encrypted, layer.secret) == (True, None)

    @pytest.mark.parametrize(
        ("word", "driver"), [("fat", "raw"), ("ploop", "parallels"), ("vhd", "vhdx")]
    )
    def test_words_that_qemu_has_others_for(self, word: str, driver: str) -> None:
        layer = only_layer(f"<driver type='{word}'/><source file='/a'/>")
        assert (layer.format, layer.word) == (driver, word)
        assert only_layer(f"<driver type='{driver}'/><source file='/a'/>").word is None

    @pytest.mark.parametrize("depth", [2, 8, 64, 200])
    def test_depth(self, depth: int) -> None:
        body = "<backingStore/>"
        for number in range(depth - 1, 0, -1):
            body = f"<backingStore index='{number}'><source file='/{number}'/>{body}</backingStore>"
        found = only_disk(f"<source file='/0'/>{body}")
        assert [layer.path for layer in found.layers] == [f"/{number}" for number in range(depth)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (domain(*["<disk/>"] * 4097), "it has 4097 disks"),
        (domain(*["<disk/>"] * 4096), None),
        (f"<domain>{'x' * 4194304}</domain>", "it has 4194321 characters"),
    ],
    ids=["disks", "as many as are read", "text"],
)
def test_more_than_any_guest_has(text: str, reason: str | None) -> None:
    if reason is None:
        assert parse(text).disks == ()
        return
    with pytest.raises(MalformedXml, match=reason):
        parse(text)


BOMB = "<!DOCTYPE domain [<!ENTITY a 'ha'>{}]><domain><name>&{};</name></domain>".format(
    "".join(
        f"<!ENTITY {name} '{f'&{below};' * 10}'>"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "i",
)


class TestRefused:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "<",
            "domain",
            "<domain>",
            "<domain></domain",
            "<domain><name></domain></name>",
            "<domain>\0</domain>",
            "<domain/><domain/>",
            "<domain>&unknown;</domain>",
            "<domain name='\udcff'/>",
        ],
    )
    def test_not_well_formed(self, text: str) -> None:
        with pytest.raises(MalformedXml) as caught:
            parse(text)
        assert isinstance(caught.value, Failed)
        assert caught.value.changed == "no"

    @pytest.mark.parametrize("root", ["domainsnapshot", "Domain", "network"])
    def test_not_a_domain(self, root: str) -> None:
        with pytest.raises(MalformedXml, match=f"<{root}>, not <domain>"):
            parse(f"<{root}/>")

    def test_domain_of_another_name_space(self) -> None:
        with pytest.raises(MalformedXml):
            parse("<domain xmlns='http://example.org/'/>")

    @pytest.mark.parametrize(
        "doctype",
        [
            "<!DOCTYPE domain>",
            "<!DOCTYPE domain []>",
            "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>",
            "<!DOCTYPE domain PUBLIC 'a' 'http://127.0.0.1:9/a.dtd'>",
            "<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        ],
    )
    def test_doctype(self, doctype: str) -> None:
        with pytest.raises(MalformedXml, match="DOCTYPE"):
            parse(f"{doctype}<domain><name>a</name></domain>")

    def test_external_entity(self) -> None:
        doctype = "<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/hostname'>]>"
        with pytest.raises(MalformedXml):
            parse(f"{doctype}<domain><name>&a;</name></domain>")

    def test_bomb(self) -> None:
        with pytest.raises(MalformedXml):
            parse(BOMB)

    def test_nested_too_deep(self) -> None:
        with pytest.raises(MalformedXml, match="depth"):
            parse("<domain>" * 300 + "</domain>" * 300)

    def test_text_that_is_too_large(self) -> None:
        with pytest.raises(MalformedXml):
            parse(f"<domain><name>{'a' * 11_000_000}</name></domain>")

    def test_comment_or_instruction_before_the_domain_is_fine(self) -> None:
        assert parse("<?xml version='1.0'?><!-- a --><?b c?><domain/>").disks == ()

    @given(st.text("<>/='\"! &;domainskevcu", max_size=60))
    def test_any_text(self, text: str) -> None:
        with suppress(MalformedXml):
            parse(f"<domain>{text}</domain>")


class TestTextIsReadWhole:
    @pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1", "UTF-16", "nonsense"])
    def test_declared_encoding_is_not_that_of_a_decoded_text(self, encoding: str) -> None:
        text = f"<?xml version='1.0' encoding='{encoding}'?><domain><name>\u00e9</name></domain>"
        assert parse(text).name == "\u00e9"

    def test_comment_in_a_text_does_not_end_it(self) -> None:
        text = "<domain><name>web<!-- x -->1<?x y?>2</name></domain>"
        assert parse(text).name == "web12"

    def test_empty_format_is_none(self) -> None:
        source = "<driver type=''/><source file='/share/a'/><target dev='vda'/>"
        found = parse(f"<domain><devices><disk>{source}</disk></devices></domain>")
        assert found.disks[0].layers[0].format is None


def test_empty_drive_of_libvirt_12() -> None:
    disk = (
        "<disk type='file' device='cdrom'><source index='2'/><target dev='hdb'/><readonly/></disk>"
    )
    (found,) = parse(f"<domain><devices>{disk}</devices></domain>").disks
    assert found.layers == ()


def test_snapshot_that_libvirt_records() -> None:
    text = """<domainsnapshot><name>theirs</name><disks>
      <disk name='vda' snapshot='external'><source file='/share/a.theirs'/></disk>
      <disk name='vdb' snapshot='external' type='block'><source dev='/dev/vg/b'/></disk>
      <disk name='vdc' snapshot='internal'><source file='/share/c'/></disk>
      <disk name='vdd' snapshot='no'/>
      <disk name='vde' snapshot='external' type='network'><source protocol='nbd'/></disk>
    </disks><domain><devices><disk><source file='/share/a'/></disk></devices></domain>
    </domainsnapshot>"""
    found = parse_snapshot(text)
    assert (found.name, found.overlays) == ("theirs", ("/share/a.theirs", "/dev/vg/b"))
    with pytest.raises(MalformedXml, match="its root is <domain>"):
        parse_snapshot("<domain/>")
