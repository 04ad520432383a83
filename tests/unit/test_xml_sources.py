"""What a `<source>` stands for: each kind that libvirt has, and no medium at all."""

from __future__ import annotations

import pytest
from lxml import etree

from qmpsnap.graph.xml_sources import host_file, is_empty, name_of

PCI = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
SOCKET = "<host transport='unix' socket='/run/n'/>"


def source(type_: str, text: str) -> etree._Element:
    found = etree.fromstring(f"<disk type='{type_}'>{text}</disk>").find("source")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("type_", "text", "file"),
    [
        ("file", "<source file='/a'/>", "/a"),
        ("block", "<source dev='/dev/sdb'/>", "/dev/sdb"),
        ("vhostvdpa", "<source dev='/dev/vhost-vdpa-0'/>", None),
        ("dir", "<source dir='/d'/>", None),
        ("file", "<source file=''/>", None),
    ],
)
def test_host_file(type_: str, text: str, file: str | None) -> None:
    assert host_file(source(type_, text)) == file


@pytest.mark.parametrize(
    ("type_", "text", "name"),
    [
        ("network", "<source protocol='rbd' name='pool/image'/>", "pool/image"),
        ("network", "<source protocol='nbd'/>", "nbd://"),
        (
            "network",
            "<source protocol='nbd'><host name='h' port='10809'/></source>",
            "nbd://h:10809",
        ),
        ("network", "<source protocol='nbd'><host name='h'/></source>", "nbd://h"),
        (
            "network",
            f"<source protocol='nbd'>{SOCKET}</source>",
            "nbd+unix://?socket=/run/n",
        ),
        ("network", f"<source protocol='nbd' name='x'>{SOCKET}</source>", "x"),
        ("volume", "<source pool='p' volume='v' mode='host'/>", "p/v"),
        (
            "nvme",
            f"<source type='pci' managed='yes' namespace='1'>{PCI}</source>",
            "0000:01:00.0/1",
        ),
        ("nvme", "<source type='pci' namespace='2'><address/></source>", "0000:00:00.0/2"),
        (
            "nvme",
            "<source type='pci'><address domain='0xabcd' bus='a' slot='0x1f' function='7'/></source>",
            "abcd:0a:1f.7/",
        ),
        ("nvme", "<source type='pci' name='n'/>", "n"),
        ("network", f"<source protocol='nbd' name='n'>{PCI}</source>", "n"),
        ("vhostuser", "<source type='unix' path='/run/v'/>", "/run/v"),
        ("vhostvdpa", "<source dev='/dev/vhost-vdpa-0'/>", "/dev/vhost-vdpa-0"),
        ("dir", "<source dir='/d'/>", "/d"),
    ],
)
def test_name(type_: str, text: str, name: str) -> None:
    found = source(type_, text)
    assert name_of(found) == name
    assert not is_empty(found)


@pytest.mark.parametrize(
    "text",
    [
        "<source/>",
        "<source index='2'/>",
        "<source startupPolicy='optional'/>",
        "<source file=''/>",
        "<source dev='' index='2'/>",
        "<source file='' startupPolicy='optional'/>",
        "<source index='2'><seclabel model='dac' relabel='no'/></source>",
    ],
)
def test_no_medium(text: str) -> None:
    assert is_empty(source("file", text))
