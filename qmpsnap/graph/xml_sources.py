"""
What a `<source>` of a domain XML stands for: a file of this host, or what to call it otherwise.

Source: libvirt docs/formatdomain.rst, "Hard drives, floppy disks, CDROMs"; names of NVMe and NBD as
QEMU's own (qapi/block-core.json, block/nbd.c).
"""

from __future__ import annotations

from lxml import etree


def host_file(source: etree._Element) -> str | None:
    """The host file or block device; None for any other kind of source."""
    return (
        source.get("file") or (None if _type(source) == "vhostvdpa" else source.get("dev")) or None
    )


def is_empty(source: etree._Element) -> bool:
    """
    Whether no medium is in the drive.

    libvirt takes an empty name for none, whatever else is said of it (an `index` by libvirt 12, a
    `startupPolicy`, a `<seclabel>`).

    Source: virStorageSourceIsEmpty(), storage_source_conf.c; virDomainDiskSourceParse().
    """
    return not (host_file(source) or name_of(source))


def name_of(source: etree._Element) -> str:
    """
    What to call a source that is no file of this host; empty where it is none.

        network      pool/image; nbd://host:port where it has no name
        volume       pool/volume
        nvme         the PCI address and the namespace: 0000:01:00.0/1
        dir, vhostuser, vhostvdpa    its path
    """
    pool, volume = source.get("pool"), source.get("volume")
    if pool and volume:
        return f"{pool}/{volume}"
    address = source.find("address")
    if source.get("type") == "pci" and address is not None:
        return f"{_pci(address)}/{source.get('namespace', '')}"
    if (name := source.get("name") or source.get("dir") or source.get("path")) is not None:
        return name
    protocol = source.get("protocol")
    return _url(source, protocol) if protocol else source.get("dev") or ""


def _type(source: etree._Element) -> str | None:
    """The kind of source: it stands at the element that the source belongs to."""
    above = source.getparent()
    return above.get("type") if above is not None else None


def _pci(address: etree._Element) -> str:
    """As Linux and QEMU write it; libvirt has hexadecimal numbers with `0x`."""
    domain, bus, slot, function = (
        address.get(part, "0").removeprefix("0x") for part in ("domain", "bus", "slot", "function")
    )
    return f"{domain:0>4}:{bus:0>2}:{slot:0>2}.{function}"


def _url(source: etree._Element, protocol: str) -> str:
    """Of the first server, as QEMU writes it for NBD. Source: nbd_refresh_filename(), block/nbd.c."""
    host = source.find("host")
    if host is None:
        return f"{protocol}://"
    if (path := host.get("socket")) is not None:
        return f"{protocol}+unix://?socket={path}"
    name, port = host.get("name", ""), host.get("port")
    return f"{protocol}://{name}:{port}" if port else f"{protocol}://{name}"
