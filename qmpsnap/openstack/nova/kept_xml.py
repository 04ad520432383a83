"""
The definition that Nova keeps while a server is rescued, with the disks as they are by now.

`rescue` writes the definition down (`unrescue.xml`), and `unrescue` starts the guest from that text.
During a stable device rescue the volumes stay attached, and Nova's API allows snapshots of them. So the
text may name files that are no longer active.

Source: LibvirtDriver.rescue and unrescue, nova/virt/libvirt/driver.py, nova 34.0.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy

from lxml import etree
from oslo_utils import fileutils

from qmpsnap.graph.xml import root_of
from qmpsnap.guests.files.folders import sync_folder

FILE = "unrescue.xml"
"""Its name in the folder of an instance."""


def renewed(kept: str, now: str) -> str:
    """
    Return a definition in which the disks have the files that those of another one have.

    A disk is known again by its serial, which is the volume's id. One that the other definition has
    not, a legacy rescue's, stays as it is: without the guest nobody can have changed it.

    Args:
        kept: `<domain>`, as Nova has kept it.
        now: `<domain>`, as libvirt has it.

    Raises:
        MalformedXml: One of the two is not a domain.
    """
    domain, there = root_of(kept, "domain"), dict(_volumes(root_of(now, "domain")))
    for serial, disk in _volumes(domain):
        if serial in there:
            _take_files(disk, there[serial])
    return str(etree.tostring(domain, encoding="unicode"))


def files_of(definition: str) -> dict[str, str]:
    """
    Return the file of every volume in a `<domain>`, by the serial.

    Raises:
        MalformedXml: It is none.
    """
    return {serial: _file(disk) for serial, disk in _volumes(root_of(definition, "domain"))}


def pointed(definition: str, volume: str, path: str, format_: str) -> str:
    """
    Return a definition in which a volume has another active file; what lies below its header tells.

    Raises:
        MalformedXml: It is none.
    """
    domain = root_of(definition, "domain")
    disk = dict(_volumes(domain))[volume]
    for one in disk.findall("backingStore"):
        disk.remove(one)
    for one in disk.findall("source"):
        one.set("file", path)
    for one in disk.findall("driver"):
        one.set("type", format_)
    return str(etree.tostring(domain, encoding="unicode"))


def is_same(one: str, other: str) -> bool:
    """
    Whether two definitions say the same.

    Raises:
        MalformedXml: One is none.
    """
    first, second = (
        etree.tostring(root_of(text, "domain"), method="c14n") for text in (one, other)
    )
    return first == second


def keep(path: str, text: str) -> None:
    """Write one anew, whole or not at all: without it the server stays rescued."""
    temporary = fileutils.write_to_tempfile(text.encode(), os.path.dirname(path))
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def _volumes(domain: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    for disk in domain.findall("./devices/disk[@type='file']"):
        serial = disk.findtext("serial")
        if serial and _file(disk):
            yield serial, disk


def _file(disk: etree._Element) -> str:
    source = disk.find("source")
    return "" if source is None else source.get("file", "")


def _take_files(disk: etree._Element, other: etree._Element) -> None:
    """Its active file, the format of that, and what lies below."""
    for name in ("driver", "source", "backingStore"):
        for one in disk.findall(name):
            disk.remove(one)
        disk.extend(deepcopy(one) for one in other.findall(name))
