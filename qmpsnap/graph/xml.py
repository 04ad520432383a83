"""
The same chains as libvirt sees them, from the live domain XML.

The XML may come from elsewhere, so the parser resolves no entities, loads no DTD and opens no
network connection, and a document with a DOCTYPE is refused.

Source: libvirt docs/formatdomain.rst, "Hard drives, floppy disks, CDROMs".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec
from lxml import etree

from qmpsnap.errors import Failed
from qmpsnap.graph.xml_sources import host_file, is_empty, name_of

MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters. libvirt's protocol carries no longer text (VIR_NET_MESSAGE_STRING_MAX)."""
MAX_DISKS: Final = 4096
"""More than any machine has room for; each takes 0.4 ms and 9 KiB here."""
_INDEX: Final = re.compile(r"[0-9]{1,9}")


class MalformedXml(Failed):
    """The text is not a domain XML that can be read safely."""

    msg = "the domain XML cannot be read: {self.reason}"
    remedy = "Nothing was changed. Look at it with `virsh dumpxml`."
    changed = "no"

    reason: str


class XmlLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One `<source>` of a disk: of the disk itself, or of a `<backingStore>`."""

    path: str | None
    """Host file or device; None for network sources."""
    name: str
    """Path, or the name of the network source; empty when the XML gives none."""
    format: str | None
    """`<driver type>` or `<format type>` in QEMU's words; `luks` for a raw source that QEMU
    decrypts. None when libvirt does not say (before 1.2.10 it gave no backing chain at all)."""
    index: int | None
    """libvirt's number of this source: `vda[index]`, and the N of node `libvirt-N-format`."""
    data_store: str | None = None
    """Name of an external data file, which libvirt lists since 10.10."""
    slice: bool = False
    """Only a part of the file is the disk (`<slice type='storage'>`)."""
    encrypted: bool = False
    """It has an `<encryption>`, whoever decrypts it: QEMU's block layer, or the storage's library."""
    secret: str | None = None
    """UUID of libvirt's secret that QEMU decrypts LUKS with."""
    volume: bool = False
    """It is a volume of a storage pool, of which the XML does not tell the file."""
    word: str | None = None
    """libvirt's own word for the format, where QEMU has another."""


class XmlDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One `<disk>` of the live XML; `layers` is empty for an empty drive."""

    target: str
    serial: str | None
    alias: str | None
    device: str
    """`disk`, `cdrom`, `floppy` or `lun`."""
    read_only: bool
    layers: tuple[XmlLayer, ...]
    ended: bool = False
    """Whether it is said that nothing lies below the last layer; else libvirt goes on by headers."""
    mirror: str | None = None
    """Job of a `<mirror>` (`copy`, `active-commit`) while one runs."""
    mirror_ready: bool = False
    """The mirror is in step with the guest: it can pivot."""
    mirror_file: str | None = None
    """The file that it mirrors into."""
    transient: bool = False
    shareable: bool = False


class XmlDomain(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a domain XML."""

    name: str
    disks: tuple[XmlDisk, ...]
    besides: tuple[str, ...] = ()
    """What the guest keeps in files that are no disks: `nvram`, `TPM`."""


class XmlSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that libvirt keeps a record of (`<domainsnapshot>`)."""

    name: str
    overlays: tuple[str, ...]
    """Files that were put on for it; none of an internal one."""


def parse(text: str) -> XmlDomain:
    """
    Parse a live domain XML.

    Raises:
        MalformedXml: Not well formed, a DOCTYPE, too deep or too large for the parser's limits or
            ours, or not a `<domain>`.
    """
    root = root_of(text, "domain")
    return XmlDomain(
        name=root.findtext("name") or "", disks=disks_of(root), besides=tuple(_besides(root))
    )


def _besides(domain: etree._Element) -> Iterator[str]:
    """Source: libvirt docs/formatdomain.rst, "BIOS bootloader" and "TPM device"."""
    os = domain.find("os")
    if os is not None and (os.get("firmware") == "efi" or os.find("nvram") is not None):
        yield "nvram"
    if domain.find("./devices/tpm/backend[@type='emulator']") is not None:
        yield "TPM"


def disks_of(domain: etree._Element) -> tuple[XmlDisk, ...]:
    """
    The disks of a `<domain>`, or of what a record keeps of one.

    Raises:
        MalformedXml: There are too many.
    """
    disks = domain.findall("./devices/disk")
    if len(disks) > MAX_DISKS:
        raise MalformedXml(f"it has {len(disks)} disks, and at most {MAX_DISKS} are read")
    return tuple(_disk(element) for element in disks if element.find("target") is not None)


def volumes_of(root: etree._Element) -> Iterator[tuple[str, str, str | None]]:
    """Pool, volume and stated format of every source that is named by its place in a storage pool."""
    for source in root.iter("source"):
        pool, volume, above = source.get("pool"), source.get("volume"), source.getparent()
        if pool and volume and above is not None:
            tag = "format" if above.tag == "backingStore" else "driver"
            stated = above.find(tag)
            yield pool, volume, None if stated is None else stated.get("type")


def parse_snapshot(text: str) -> XmlSnapshot:
    """
    Parse the XML of a snapshot.

    Raises:
        MalformedXml: See `parse`; or not a `<domainsnapshot>`.

    Source: libvirt docs/formatsnapshot.rst.
    """
    root = root_of(text, "domainsnapshot")
    sources = root.iterfind("./disks/disk[@snapshot='external']/source")
    files = (source.get("file") or source.get("dev") for source in sources)
    return XmlSnapshot(
        name=root.findtext("name") or "", overlays=tuple(file for file in files if file)
    )


def root_of(text: str, tag: str) -> etree._Element:
    """
    Parse a document of libvirt.

    Raises:
        MalformedXml: See `parse`; or not a `<tag>`.
    """
    if len(text) > MAX_TEXT:
        raise MalformedXml(f"it has {len(text)} characters, and at most {MAX_TEXT} are read")
    # The text was decoded before, so whatever encoding it declares is not that of these bytes. A
    # comment would cut a text in two, of which only the first part is read.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedXml(str(error)) from error
    if _has_doctype(root):
        raise MalformedXml("it has a DOCTYPE")
    if root.tag != tag:
        raise MalformedXml(f"its root is <{root.tag}>, not <{tag}>")
    return root


def _has_doctype(root: etree._Element) -> bool:
    info = root.getroottree().docinfo
    return bool(info.internalDTD is not None or info.doctype)


def _disk(element: etree._Element) -> XmlDisk:
    target, alias = element.find("target"), element.find("alias")
    mirror = element.find("mirror")
    layers, ended = _layers(element)
    return XmlDisk(
        target=(target.get("dev") or "") if target is not None else "",
        serial=element.findtext("serial"),
        alias=alias.get("name") if alias is not None else None,
        device=element.get("device", "disk"),
        read_only=element.find("readonly") is not None,
        transient=element.find("transient") is not None,
        shareable=element.find("shareable") is not None,
        layers=tuple(layers),
        ended=ended,
        mirror=mirror.get("job") if mirror is not None else None,
        mirror_ready=mirror is not None and mirror.get("ready") == "yes",
        mirror_file=_mirror_file(mirror),
    )


def _mirror_file(mirror: etree._Element | None) -> str | None:
    source = mirror.find("source") if mirror is not None else None
    return source.get("file") or source.get("dev") if source is not None else None


def _layers(disk: etree._Element) -> tuple[list[XmlLayer], bool]:
    """The layers that are named, and whether a `<backingStore/>` ends them."""
    layers: list[XmlLayer] = []
    element: etree._Element | None = disk
    format_tag = "driver"
    while element is not None:
        source = element.find("source")
        if source is None or is_empty(source):
            return layers, bool(layers)  # an empty drive has no chain to end
        stated = element.find(format_tag)
        # The number of the disk's own source stands at <source>, of those below at <backingStore>.
        index = element.get("index") or source.get("index") or ""
        layers.append(_layer(source, stated.get("type") if stated is not None else None, index))
        element, format_tag = element.find("backingStore"), "format"
    return layers, False


def _layer(source: etree._Element, stated: str | None, index: str) -> XmlLayer:
    path = host_file(source)
    # Since libvirt 3.9 it stands in <source>; at the <disk> it is kept where it was written.
    places = (source.find("encryption"), source.find("../encryption"))
    encryptions = [place for place in places if place is not None]
    format_ = _FORMATS.get(stated or "", stated)
    if format_ == "raw" and any(_is_luks_of_qemu(one) for one in encryptions):
        format_ = "luks"
    return XmlLayer(
        path=path,
        name=path or name_of(source),
        format=format_ or None,
        index=int(index) if _INDEX.fullmatch(index) else None,
        data_store=_data_store(source),
        slice=source.find("slices/slice") is not None,
        encrypted=bool(encryptions),
        secret=next((_secret(one) for one in encryptions if _is_luks_of_qemu(one)), None),
        volume=path is None and source.get("volume") is not None,
        word=stated if stated in _FORMATS else None,
    )


_FORMATS: Final = {"fat": "raw", "ploop": "parallels", "vhd": "vhdx"}
"""QEMU's driver by libvirt's word, where they differ. A `fat` is made by the storage driver (vvfat),
with a raw node over it. Source: qemuBlockStorageSourceGetBlockdevFormatProps(), qemu_block.c."""


def _is_luks_of_qemu(encryption: etree._Element) -> bool:
    """
    Whether QEMU has a `luks` node for it.

    With the engine `librbd` the client library decrypts (`luks2` and `luks-any` too, which QEMU
    does not know), and QEMU's node is raw.
    """
    return encryption.get("format") == "luks" and encryption.get("engine") != "librbd"


def _secret(encryption: etree._Element) -> str | None:
    """One that is named by its usage is not looked up."""
    secret = encryption.find("secret")
    return None if secret is None else secret.get("uuid")


def _data_store(source: etree._Element) -> str | None:
    for place in ("dataStore/source", "../dataStore/source"):
        found = source.find(place)
        if found is not None:
            return host_file(found) or name_of(found)
    return None
