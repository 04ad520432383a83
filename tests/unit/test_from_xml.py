"""The report where QMP cannot be had: libvirt's XML, and the headers of what it says is qcow2."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.xml import XmlDisk, XmlDomain, XmlLayer, parse
from tests.unit import recordings


def xml_layer(path: str | None, format_: str | None, name: str = "") -> XmlLayer:
    return XmlLayer(path=path, name=path or name, format=format_, index=None)


def layers(*given: XmlLayer, **headers: Header) -> tuple[Layer, ...]:
    """Reports on a disk of these layers, with headers by bare file name."""
    disk = XmlDisk(
        target="vda", serial=None, alias="v", device="disk", read_only=False, layers=given
    )
    by_path = {f"/share/{file}": header for file, header in headers.items()}
    return guest_from_xml(XmlDomain(name="a", disks=(disk,)), headers=by_path).disks[0].layers


def test_recorded_guest() -> None:
    guest = guest_from_xml(parse(recordings.xml("libvirt-running")), notes=("why",))
    assert (guest.guest, guest.notes, guest.jobs) == ("web1", ("why",), ())
    vda, vdd, sda = guest.disks
    assert (vda.disk, vda.serial, vda.qdev, vda.root) == ("vda", "1234", "virtio-disk0", None)
    assert [(one.file, one.format, one.verdict, one.index) for one in vda.layers] == [
        ("base.s2", "qcow2", Verdict.STATED, 3),
        ("base.s1", "qcow2", Verdict.STATED, 4),
        ("base", "raw", Verdict.STATED, 5),
    ]
    assert [one.node for one in vda.layers] == [None] * 3
    assert [(one.path, one.protocol) for one in vdd.layers] == [(None, "network")]
    assert (sda.kind, sda.read_only, sda.layers) == ("cdrom", True, ())


def test_mirror_is_carried_over() -> None:
    vda, *_ = guest_from_xml(parse(recordings.xml("libvirt-mirror"))).disks
    assert vda.mirror == "active-commit"


def test_xml_that_states_nothing_is_unknown() -> None:
    (layer,) = layers(xml_layer("/share/a", None))
    assert (layer.format, layer.verdict) == (None, Verdict.UNKNOWN)


def test_header_alone_states_the_format_below() -> None:
    above = Header(version=3, virtual_size=1, backing_file="b", backing_format="raw")
    _, below = layers(xml_layer("/share/a", "qcow2"), xml_layer("/share/b", None), a=above)
    assert (below.format, below.verdict) == ("raw", Verdict.STATED)
    assert [one.witness for one in below.evidence] == ["header"]


@pytest.mark.parametrize(
    ("written", "verdict"),
    [("raw", Verdict.STATED), ("file", Verdict.STATED), ("qcow2", Verdict.CONFLICT)],
)
def test_header_against_xml(written: str, verdict: Verdict) -> None:
    above = Header(version=3, virtual_size=1, backing_file="b", backing_format=written)
    _, below = layers(xml_layer("/share/a", "qcow2"), xml_layer("/share/b", "raw"), a=above)
    assert (below.format, below.verdict) == ("raw", verdict)


def test_what_comes_from_the_header() -> None:
    found = Header(version=3, virtual_size=7, backing_file="b", snapshots=2)
    (layer,) = layers(xml_layer("/share/a", "qcow2"), a=found)
    assert (layer.virtual_size, layer.backing_name, layer.internal_snapshots) == (7, "b", 2)
    (layer,) = layers(xml_layer("/share/a", "qcow2"))
    assert (layer.virtual_size, layer.backing_name, layer.internal_snapshots) == (None, None, 0)


@pytest.mark.parametrize("format_", ["raw", None])
def test_no_header_is_looked_at_in_what_is_not_stated_to_be_qcow2(format_: str | None) -> None:
    hostile = Header(
        version=3, virtual_size=7, backing_file="/etc/shadow", backing_format="raw", data_file="x"
    )
    upper, lower = layers(xml_layer("/share/a", format_), xml_layer("/share/b", "qcow2"), a=hostile)
    assert (upper.virtual_size, upper.backing_name, upper.flags) == (None, None, ())
    assert lower.verdict is Verdict.STATED


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (Header(version=3, virtual_size=1), ()),
        (Header(version=3, virtual_size=1, data_file=""), ("data-file",)),
        (Header(version=3, virtual_size=1, data_file="d"), ("data-file",)),
        (Header(version=3, virtual_size=1, encryption="luks"), ("encrypted",)),
        (Header(version=3, virtual_size=1, bitmaps=1), ("bitmaps",)),
        (Header(version=3, virtual_size=1, backing_file="json:{}"), ("json-name",)),
    ],
)
def test_flags_by_the_header(header: Header, flags: tuple[str, ...]) -> None:
    (layer,) = layers(xml_layer("/share/a", "qcow2"), a=header)
    assert layer.flags == flags


def test_luks_base_that_the_header_calls_raw_as_libvirt_does() -> None:
    top = Header(version=3, virtual_size=1, backing_file="b", backing_format="raw")
    _, base = layers(xml_layer("/share/a", "qcow2"), xml_layer("/share/b", "luks"), a=top)
    assert (base.format, base.verdict) == ("luks", Verdict.STATED)
    assert [one.detail for one in base.evidence][1] == (
        "header of a, which says 'raw', libvirt's word for it"
    )


@pytest.mark.parametrize("written", ["qcow2", "vmdk", "file"])
def test_luks_base_that_the_header_calls_otherwise(written: str) -> None:
    top = Header(version=3, virtual_size=1, backing_file="b", backing_format=written)
    _, base = layers(xml_layer("/share/a", "qcow2"), xml_layer("/share/b", "luks"), a=top)
    assert base.verdict is Verdict.CONFLICT


def test_luks_is_flagged() -> None:
    (layer,) = layers(xml_layer("/share/a", "luks"))
    assert (layer.format, layer.flags) == ("luks", ("encrypted",))


def test_what_the_xml_says_is_encrypted_is_flagged() -> None:
    """An encrypted qcow2 whose header cannot be read, and what the storage's library decrypts."""
    for format_ in ("qcow2", "raw"):
        one = replace(xml_layer("/share/a", format_), encrypted=True, secret="5e")
        (layer,) = layers(one)
        assert (layer.format, layer.flags, layer.secret) == (format_, ("encrypted",), "5e")


def test_libvirts_own_word_is_told() -> None:
    (layer,) = layers(replace(xml_layer(None, "raw", name="/d"), word="fat"))
    assert [one.detail for one in layer.evidence] == [
        "driver type, which says 'fat', libvirt's word for it"
    ]


def test_network_source_keeps_its_whole_name() -> None:
    (layer,) = layers(xml_layer(None, "raw", name="pool/image"))
    assert (layer.file, layer.path, layer.protocol) == ("pool/image", None, "network")
