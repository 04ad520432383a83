"""
Which files a libvirt knows of: what its definitions, saved memories and snapshot records name.

Whatever stands in an XML as an absolute path counts, whether it is a disk or not; and the chains
below the disks, as far as their headers may be followed (`formats/from_headers.py` has the rules of
a guest that is off; here a header may lead to another folder, because it is followed for names only).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from qmpsnap.formats.layers import Identity
from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.graph import xml
from qmpsnap.guests.files.census import Census, Use, named_by
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import image_identity
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import libvirt_module

TIMEOUT_S: Final = 120.0
"""libvirt lists all guests or none: it waits for one that is being ended (seen for minutes)."""
_WORDS: Final = re.compile(r"[=,\s]")
_KEPT_IN_RECORDS: Final = ("domain", "inactiveDomain")
_NAMES_NOTHING: Final = ("raw", "luks")
"""Formats of which a file names no other one."""


def ask_libvirt(connection: Any, source: str, folder: str) -> Census:
    """
    Ask a libvirt for every file that any of its guests names, running or off.

    Args:
        connection: A `virConnect`, to a libvirt of this host.
        source: Its URI.
        folder: Whose files are in question, without symbolic links.
    """
    libvirt = libvirt_module()
    try:
        return in_time(lambda: _Asking(source, folder, libvirt).all_of(connection), TIMEOUT_S)
    except MonitorBusy:
        return Census(gaps=(f"{source} does not list its guests: one is stuck",))
    except libvirt.libvirtError as error:
        return Census(gaps=(f"{source} does not list its guests: {error}",))


class _Asking:
    """One round of questions; a header is read once."""

    def __init__(self, source: str, folder: str, libvirt: Any) -> None:
        self._source = source
        self._folder = folder
        self._libvirt = libvirt
        self._uses: dict[Identity, list[Use]] = {}
        self._gaps: list[str] = []
        self._headers: dict[str, Header | None] = {}

    def all_of(self, connection: Any) -> Census:
        self._connection = connection
        guests = connection.listAllDomains()
        for domain in guests:
            try:
                self._ask(domain)
            except (self._libvirt.libvirtError, xml.MalformedXml) as error:
                self._gaps.append(f"{self._source} does not tell all of a guest: {error}")
        return Census(
            uses={key: tuple(found) for key, found in self._uses.items()},
            asked={f"guests of {self._source}": len(guests)},
            gaps=tuple(self._gaps),
        )

    def _ask(self, domain: Any) -> None:
        name, runs = domain.name(), bool(domain.isActive())
        text = f"guest {name}" if runs else f"guest {name}, which is off"
        who = Use(by="guest", who=text, guest=name)
        if runs:
            self._take(domain.XMLDesc(0), "domain", who)
        if domain.isPersistent():
            self._take(domain.XMLDesc(self._libvirt.VIR_DOMAIN_XML_INACTIVE), "domain", who)
        if domain.hasManagedSaveImage():
            saved = Use(by="record", who=f"the saved memory of guest {name}")
            self._take(domain.managedSaveGetXMLDesc(), "domain", saved)
        for snapshot in domain.listAllSnapshots():
            record = Use(by="record", who=f"snapshot {snapshot.getName()} of guest {name}")
            self._take(snapshot.getXMLDesc(), "domainsnapshot", record)

    def _take(self, text: str, tag: str, use: Use) -> None:
        root = xml.root_of(text, tag)
        for path in _paths(root):
            self._note(path, use)
        for pool, volume, stated in xml.volumes_of(root):
            found = self._volume(pool, volume, use)
            if found is not None:
                self._note(found, use)
                self._follow(found, stated, use)
        kept = [one for name in _KEPT_IN_RECORDS for one in root.findall(name)]
        for disk in (one for element in (root, *kept) for one in xml.disks_of(element)):
            if disk.layers and (lowest := disk.layers[-1]).path is not None:
                self._follow(lowest.path, lowest.format, use)

    def _volume(self, pool: str, volume: str, use: Use) -> str | None:
        """The path of a volume of a storage pool, which an XML names by these two alone."""
        try:
            found = self._connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
            return str(found.path())
        except self._libvirt.libvirtError as error:
            self._gaps.append(f"volume {volume} of {use.who} cannot be found: {error}")
            return None

    def _note(self, path: str, use: Use) -> None:
        try:
            status = os.stat(path)
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode):
            if os.path.commonpath([self._folder, (real := os.path.realpath(path))]) == real:
                self._gaps.append(f"{use.who} is given the folder {path}, with all that is in it")
        elif (key := image_identity(status)) is not None:
            self._uses.setdefault(key, []).append(use)

    def _follow(self, top: str, format_: str | None, use: Use) -> None:
        """Go down from a file that the XML names; libvirt takes one without a format for raw."""
        path: str | None = top
        stated = format_ or "raw"
        seen: set[str] = set()
        while path is not None and path not in seen and stated not in _NAMES_NOTHING:
            seen.add(path)
            if stated != "qcow2":
                known = stated or "stated by nobody"
                self._gaps.append(f"{path}, of {use.who}, may name more: its format is {known}")
                return
            header = self._header(path, use)
            if header is None:
                return
            names = (header.data_file or "", header.backing_file or "")
            for below in (one for name in names for one in named_by(path, name)):
                self._note(below, use)
            stated = header.backing_format or ""
            path = next(named_by(path, header.backing_file or ""), None)

    def _header(self, path: str, use: Use) -> Header | None:
        if path not in self._headers:
            self._headers[path] = None
            try:
                self._headers[path] = read_header(path)
            except (OSError, BadHeader) as error:
                if isinstance(error, FileNotFoundError) and self._is_listed(path):
                    return None  # it is certainly gone; elsewhere a share may not be mounted
                self._gaps.append(f"the chain of {use.who} cannot be followed: {error}")
        return self._headers[path]

    def _is_listed(self, path: str) -> bool:
        return os.path.realpath(os.path.dirname(path)) == self._folder


def _paths(root: etree._Element) -> Iterator[str]:
    """Every absolute path in an XML, wherever it stands, also in arguments for QEMU itself."""
    for element in root.iter():
        for value in (*element.attrib.values(), element.text or ""):
            text = str(value).strip()
            for word in {text, *_WORDS.split(text)} if "/" in text else ():
                if word.startswith("/") and "\0" not in word:
                    yield word
