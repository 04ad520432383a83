"""
Which files the guests of a libvirt name: their definitions, saved memories and snapshot records.

Whatever stands in an XML as an absolute path counts, whether it is a disk or not; and the chains
below the disks, by their headers (`formats/from_headers.py` has the rules of a guest that is off;
here a header may lead to another folder, and one whose format nobody states is read, because it is
followed for names only: that can do no more than keep a file from being written or removed).
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lxml import etree

from qmpsnap.formats.layers import Identity
from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.graph import xml
from qmpsnap.graph.mentions import NOBODY, mentioned_in, mentions
from qmpsnap.guests.files.census import Use, places
from qmpsnap.guests.files.header import beginning, read_header
from qmpsnap.guests.files.identity import image_identity
from qmpsnap.monitor.virt import libvirt_module

_WORDS: Final = re.compile(r"[=,\s]")
_KEPT_IN_RECORDS: Final = ("domain", "inactiveDomain")
_AROUND: Final = re.compile(rb"[\0-\x1f\"'=\x7f-\xff]")
"""What may stand around a name in a file; of a vmdk's descriptor, and of binary headers."""
_MOST_WORDS: Final = 1000
_LONGEST: Final = 4096
_OLD_QCOW: Final = b"QFI\xfb\0\0\0\1"
_NAME_AT: Final = struct.Struct(">8sQI")
_NAMES_NOTHING: Final = ("raw", "luks")
"""Formats of which a file names no other one."""


class Names:
    """Files by what they are, and who names them; a header is read once."""

    def __init__(self, connection: Any) -> None:
        """Begin with a `virConnect`, to a libvirt of this host."""
        self._connection = connection
        self._headers: dict[str, Header | OSError | BadHeader] = {}
        self._uses: dict[Identity | str, list[Use]] = {}
        self.gaps: list[tuple[Use, str]] = []
        """Who may name more, and why that is not known."""
        self.gone: list[tuple[Use, str]] = []
        """Who names an image that is not there, and its path."""
        self.given: list[tuple[Use, str]] = []
        """Who is given a folder with all that is in it, and which."""

    @property
    def uses(self) -> Mapping[Identity | str, tuple[Use, ...]]:
        """Who names a file, by what it is; by its path where that cannot be looked at."""
        return {key: tuple(dict.fromkeys(found)) for key, found in self._uses.items()}

    def ask(self, domain: Any) -> None:
        """
        Take all that one guest names.

        Raises:
            libvirtError: It does not tell.
            MalformedXml: What it tells cannot be read.
        """
        name, runs = domain.name(), bool(domain.isActive())
        if runs:
            self.take(domain.XMLDesc(0), "domain", Use(by="guest", who=f"guest {name}", guest=name))
        if domain.isPersistent():
            text = f"the definition of guest {name}" if runs else f"guest {name}, which is off"
            who = Use(by="guest", who=text, guest=name)
            self.take(domain.XMLDesc(libvirt_module().VIR_DOMAIN_XML_INACTIVE), "domain", who)
        if domain.hasManagedSaveImage():
            saved = Use(by="record", who=f"the saved memory of guest {name}")
            self.take(domain.managedSaveGetXMLDesc(), "domain", saved)
        for snapshot in domain.listAllSnapshots():
            record = Use(by="record", who=f"snapshot {snapshot.getName()} of guest {name}")
            self.take(snapshot.getXMLDesc(), "domainsnapshot", record)

    def take(self, text: str, tag: str, use: Use) -> None:
        """
        Take all that an XML names.

        Raises:
            MalformedXml: It cannot be read.
        """
        root = xml.root_of(text, tag)
        for path in _paths(root):
            self.note(path, use)
        for pool, volume, stated in xml.volumes_of(root):
            found = self._volume(pool, volume, use)
            if found is not None:
                self.follow(found, stated, use)
        for path in _argued(root):
            self._follow(path, NOBODY, use, known=False)
        kept = [one for name in _KEPT_IN_RECORDS for one in root.findall(name)]
        for disk in (one for element in (root, *kept) for one in xml.disks_of(element)):
            self.take_disk(disk, use)

    def take_disk(self, disk: xml.XmlDisk, use: Use) -> None:
        """
        Take the files that a disk names, and those below each of them.

        The next start goes by the definition as far as that goes; headers that say otherwise may
        be gone by then, or the definition may.
        """
        for layer in disk.layers:
            if layer.path is not None:
                self.follow(layer.path, layer.format, use)

    def _volume(self, pool: str, volume: str, use: Use) -> str | None:
        """The path of a volume of a storage pool, which an XML names by these two alone."""
        error_type = libvirt_module().libvirtError
        try:
            kept_in = self._connection.storagePoolLookupByName(pool)
            try:
                return str(kept_in.storageVolLookupByName(volume).path())
            except error_type:  # the pool is not started, or does not know of the file yet
                folder = xml.root_of(kept_in.XMLDesc(0), "pool").findtext("./target/path")
                path = os.path.join(folder or "", volume)
                if folder and os.path.exists(path):
                    return path
                raise
        except error_type as error:
            self.gaps.append((use, f"volume {volume} of {use.who} cannot be found: {error}"))
            return None

    def note(self, path: str, use: Use) -> None:
        """Take one path."""
        try:
            status = os.stat(path)
        except OSError:
            self._uses.setdefault(path, []).append(use)
            return
        if stat.S_ISDIR(status.st_mode):
            self.given.append((use, path))
        elif (key := image_identity(status)) is not None:
            self._uses.setdefault(key, []).append(use)

    def follow(self, top: str, format_: str | None, use: Use) -> None:
        """Take a file and all below it; libvirt takes one without a format for raw."""
        self._follow(top, format_ or "raw", use)

    def _follow(self, top: str, format_: str, use: Use, *, known: bool = True) -> None:
        """
        Take a file and all that is named in it, and so on.

        Args:
            top: The file.
            format_: What is stated of it.
            use: Who names it.
            known: Whether it certainly is an image: then what it may name besides is a gap.
        """
        left = [(top, format_)]
        seen: set[tuple[str, str]] = set()
        while left:
            path, stated = one = left.pop(0)
            if one in seen:
                continue
            seen.add(one)
            self.note(path, use)
            if stated in _NAMES_NOTHING:
                continue
            if stated != "qcow2" and known:
                told = stated or "stated by nobody"
                self.gaps.append(
                    (use, f"{path}, of {use.who}, may name more: its format is {told}")
                )
            header = self._header(path, stated, use, known=known)
            if header is not None:
                left += _below(path, header)
            elif stated not in ("qcow2", NOBODY):
                left += _mentioned(path)

    def _header(self, path: str, stated: str, use: Use, *, known: bool) -> Header | None:
        if path not in self._headers:
            try:
                self._headers[path] = read_header(path)
            except (OSError, BadHeader) as error:
                self._headers[path] = error
        found = self._headers[path]
        if isinstance(found, Header):
            return found
        if isinstance(found, FileNotFoundError):
            if known:
                self.gone.append((use, path))
        elif stated == "qcow2":
            self.gaps.append((use, f"the chain of {use.who} cannot be followed: {found}"))
        return None


def _below(path: str, header: Header) -> Iterator[tuple[str, str]]:
    """The files that a header names, with what is stated of each."""
    folder = os.path.dirname(path)
    if header.data_file:
        for one in mentions(header.data_file):
            yield from ((there, "raw") for there in places(folder, one))
    if header.backing_file:
        for one in mentions(header.backing_file, header.backing_format):
            yield from ((there, one.format) for there in places(folder, one))


def _mentioned(path: str) -> Iterator[tuple[str, str]]:
    """
    Files whose names stand at the beginning of one that is neither raw nor qcow2.

    There the backing file of a qed or an old qcow is named, and the extents and the parent of a
    vmdk.
    """
    try:
        data = beginning(path)
    except OSError:
        return
    words = dict.fromkeys((*_backing_of_qcow(data), *_AROUND.split(data)))
    folder = os.path.dirname(path)
    for word in list(words)[:_MOST_WORDS]:
        if 0 < len(word) <= _LONGEST and (b"/" in word or b"." in word):
            there = os.path.join(folder, os.fsdecode(word))
            if os.path.isfile(there) and not os.path.samefile(there, path):
                yield there, NOBODY


def _backing_of_qcow(data: bytes) -> Iterator[bytes]:
    """The name in a header of the old qcow, which stands right behind a number (block/qcow.c)."""
    if data.startswith(_OLD_QCOW) and len(data) >= _NAME_AT.size:
        start, length = _NAME_AT.unpack_from(data)[1:]
        yield data[start : start + length]


def _paths(root: etree._Element) -> Iterator[str]:
    """Every absolute path in an XML, wherever it stands, also in arguments for QEMU itself."""
    for element in root.iter():
        for value in (*element.attrib.values(), element.text or ""):
            text = str(value).strip()
            for word in {text, *_WORDS.split(text)} if "/" in text else ():
                if word.startswith("/") and "\0" not in word:
                    yield word


def _argued(root: etree._Element) -> Iterator[str]:
    """Files named in arguments for QEMU itself, wherever the XML has any."""
    for element in root.iter():
        if not isinstance(element.tag, str) or etree.QName(element).localname not in ("arg", "env"):
            continue
        for one in mentioned_in(element.get("value") or ""):
            yield from (path for path in places("/", one) if os.path.isfile(path))
