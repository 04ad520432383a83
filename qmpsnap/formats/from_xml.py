"""The report from the domain XML alone, for hosts where QMP cannot be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import judge
from qmpsnap.formats.witnesses import header_says, xml_says
from qmpsnap.graph.chain import host_path
from qmpsnap.graph.files import OpenFile
from qmpsnap.graph.xml import XmlDisk, XmlDomain, XmlLayer


def guest_from_xml(
    domain: XmlDomain, *, headers: Mapping[str, Header] | None = None, notes: tuple[str, ...] = ()
) -> Disks:
    """Build the report from the XML alone, where QMP cannot be had."""
    paths = (layer.path for disk in domain.disks for layer in disk.layers)
    return Disks(
        guest=domain.name,
        open_files=frozenset(path for path in paths if path is not None),
        disks=tuple(disk_from_xml(disk, headers) for disk in domain.disks),
        notes=notes,
        besides=domain.besides,
    )


def headers_to_read(domain: XmlDomain) -> dict[str, str]:
    """Format by host path, of the layers that the XML states a format of."""
    return {
        layer.path: layer.format
        for disk in domain.disks
        for layer in disk.layers
        if layer.path is not None and layer.format is not None
    }


def disk_from_xml(disk: XmlDisk, headers: Mapping[str, Header] | None = None) -> Disk:
    layers = []
    above: Header | None = None
    above_name = ""
    for xml in disk.layers:
        by_xml = xml_says(xml)
        source = f"header of {above_name}"
        said = header_says(above.backing_format, source, xml=by_xml) if above else None
        evidence = tuple(one for one in (by_xml, said) if one is not None)
        format_, verdict = judge(evidence)
        # Only a file that somebody states to be qcow2 has a header worth reading.
        own = (headers or {}).get(xml.path or "") if format_ == "qcow2" else None
        name = xml.name.rpartition("/")[2] if xml.path else xml.name
        layers.append(
            Layer(
                file=name,
                path=xml.path,
                protocol="file" if xml.path else "network",
                format=format_,
                verdict=verdict,
                node=None,
                virtual_size=own.virtual_size if own else None,
                flags=_flags(xml, own),
                evidence=evidence,
                backing_name=own.backing_file if own else None,
                backing_format=own.backing_format if own else None,
                index=xml.index,
                secret=xml.secret,
                has_subclusters=own is not None and own.has_subclusters,
                internal_snapshots=own.snapshots if own else 0,
            )
        )
        above, above_name = own, name
    return Disk(
        disk=disk.target,
        serial=disk.serial,
        qdev=disk.alias,
        layers=tuple(layers),
        kind=disk.device,
        read_only=disk.read_only,
        transient=disk.transient,
        shareable=disk.shareable,
        mirror=disk.mirror,
        files=tuple(_files(disk, headers or {})),
    )


def _files(disk: XmlDisk, headers: Mapping[str, Header]) -> Iterator[OpenFile]:
    """Files by the XML, and data files by the headers of what the XML states to be qcow2."""
    for position, xml in enumerate(disk.layers):
        own = headers.get(xml.path or "") if xml.format == "qcow2" else None
        data_file = xml.data_store or (own.data_file if own else None)
        named = [("file", xml.path, xml.name)]
        if data_file:
            named.append(("data-file", host_path(data_file), data_file))
        for role, path, name in named:
            yield OpenFile(
                path=path, name=name, protocol=None, node=None, role=role, layer=position
            )


def _flags(xml: XmlLayer, header: Header | None) -> tuple[str, ...]:
    flags = {
        "encrypted": xml.encrypted or xml.format == "luks" or (header and header.encryption),
        "data-file": xml.data_store is not None or (header and header.data_file is not None),
        "slice": xml.slice,
        "json-name": header and (header.backing_file or "").startswith("json:"),
        "bitmaps": header and header.bitmaps,
    }
    return tuple(flag for flag, holds in flags.items() if holds)
