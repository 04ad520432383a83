"""
The report from the block graph, cross-checked with what else is at hand.

Built from up to three views of the same chain: the block graph, the domain XML, and the headers
of the layers that are known to be qcow2. Which XML source belongs to which node is told by
libvirt's own numbering (`<source index='3'>` is node `libvirt-3-format`), not by file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.from_xml import disk_from_xml
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import judge
from qmpsnap.formats.witnesses import layer_above_says, node_says, xml_says
from qmpsnap.graph.chain import ChainLink, chain, host_path, nodes_of
from qmpsnap.graph.drivers import DriverKind
from qmpsnap.graph.files import files_of
from qmpsnap.graph.nodes import Device, Graph, Node
from qmpsnap.graph.xml import XmlDisk, XmlDomain, XmlLayer

_LIBVIRT: Final = re.compile(r"libvirt-([0-9]{1,9})-")


class _Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of single layers beside the graph."""

    shared: frozenset[str]
    """Nodes with more than one reader."""
    probed: frozenset[str]
    """Files that QEMU was started with without a format."""


class DiskChain(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, not judged yet."""

    device: Device
    xml: XmlDisk | None
    links: tuple[ChainLink, ...]
    sources: tuple[XmlLayer | None, ...]
    """What the domain XML has in the place of each link."""
    differs: str | None
    """Why libvirt's chain is another one than QEMU's, if it is."""

    def paths(self) -> Iterator[tuple[ChainLink, str | None]]:
        """Each link with its host file; where QEMU has no name for it, libvirt's."""
        for link, source in zip(self.links, self.sources, strict=True):
            named = link.path
            if named is None and source is not None and _nameless(link):
                named = source.path
            yield link, named


def disk_chains(graph: Graph, domain: XmlDomain | None = None) -> tuple[DiskChain, ...]:
    """
    Find the disks in a graph, and their chains.

    Args:
        graph: The block graph.
        domain: The domain XML, under libvirt; it then also says which disks there are.
    """
    found = []
    for device in graph.devices:
        xml = _xml_disk(domain, device)
        if domain is not None and xml is None:
            continue  # pflash, and what else QEMU counts as a block device
        if domain is None and not device.name:
            continue  # a backend that no device uses
        links = chain(graph, device.root) if device.root else ()
        sources, differs = _paired(links, xml)
        found.append(
            DiskChain(device=device, xml=xml, links=links, sources=sources, differs=differs)
        )
    return tuple(found)


def headers_to_read(chains: Iterable[DiskChain], probed: Collection[str] = ()) -> dict[str, str]:
    """
    Format by host path, of the layers whose headers are witnesses: those that run as qcow2.

    Not of those below a layer that QEMU opened by guessing: the guest may have written the header
    that names them.

    Args:
        chains: The disks.
        probed: Files that QEMU was started with without a format.
    """
    found = {}
    for disk in chains:
        above: ChainLink | None = None
        for link, path in disk.paths():
            if path is not None and link.node.driver == "qcow2" and not link.inner:
                found[path] = link.node.driver
            if _probed(link, above, probed):
                break
            above = link
    return found


def guest_from_graph(
    graph: Graph,
    *,
    chains: Sequence[DiskChain] | None = None,
    guest: str | None = None,
    serials: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
    domain: XmlDomain | None = None,
    headers: Mapping[str, Header] | None = None,
    probed: Collection[str] = (),
    notes: tuple[str, ...] = (),
) -> Disks:
    """
    Build the report from the block graph, cross-checked with what else is at hand.

    Args:
        graph: The block graph.
        chains: Its disks, where they were asked for already (`disk_chains`).
        guest: Name to show.
        serials: Serial by device id, on the direct road.
        types: QOM type by device id, on the direct road, of devices that are no plain disks.
        domain: The domain XML, under libvirt; it then also says which disks there are.
        headers: Header by host path, of layers that a node opens as qcow2.
        probed: Files that QEMU was started with without a format.
        notes: Carried into the report.
    """
    marks = _Marks(shared=_shared(graph), probed=frozenset(probed))
    disks = []
    for one in disk_chains(graph, domain) if chains is None else chains:
        kind = one.xml.device if one.xml else _kind(one.device, (types or {}).get(one.device.name))
        disks.append(_disk(graph, one, kind, serials or {}, headers or {}, marks))
    known = {disk.disk for disk in disks}
    disks += [
        disk_from_xml(xml) for xml in (domain.disks if domain else ()) if xml.target not in known
    ]
    paths = (host_path(node.filename) for node in graph.nodes.values())
    if graph.incomplete is not None:
        notes = (*notes, graph.incomplete)
    return Disks(
        guest=guest,
        disks=tuple(disks),
        jobs=graph.jobs,
        open_files=frozenset(path for path in paths if path),
        notes=notes,
        besides=_besides(disks) if domain is None else domain.besides,
        graph=graph,
    )


def _besides(disks: Iterable[Disk]) -> tuple[str, ...]:
    """Flash memory that is written holds what the firmware keeps."""
    is_written = any(one.kind == "pflash" and one.layers and not one.read_only for one in disks)
    return ("nvram",) if is_written else ()


def _xml_disk(domain: XmlDomain | None, device: Device) -> XmlDisk | None:
    if domain is None:
        return None
    return next((disk for disk in domain.disks if disk.alias and disk.alias == device.id), None)


def _kind(device: Device, type_: str | None) -> str:
    """libvirt's word for a device, by its QOM type where that is known."""
    if type_ is None:
        return "cdrom" if device.removable else "disk"
    if type_ == "floppy":
        return "floppy"
    if type_.endswith("-cd"):
        return "cdrom"
    return "pflash" if type_.startswith("cfi.pflash") else "disk"


def _disk(
    graph: Graph,
    disk: DiskChain,
    kind: str,
    serials: Mapping[str, str],
    headers: Mapping[str, Header],
    marks: _Marks,
) -> Disk:
    device, xml, layers = disk.device, disk.xml, disk.links
    name = device.name
    reports: list[Layer] = []
    above: ChainLink | None = None
    for (layer, path), source in zip(disk.paths(), disk.sources, strict=True):
        report = _layer(layer, path, source, above, headers, marks)
        reports.append(replace(report, nodes=nodes_of(graph, layer)))
        above = layer
    return Disk(
        disk=xml.target if xml else name,
        serial=xml.serial if xml else serials.get(name),
        qdev=device.qdev,
        layers=tuple(reports),
        kind=kind,
        read_only=xml.read_only if xml else bool(layers) and layers[0].node.read_only,
        transient=xml is not None and xml.transient,
        shareable=xml is not None and xml.shareable,
        root=device.root,
        entry=device.entry or device.root,
        xml_differs=disk.differs,
        mirror=xml.mirror if xml else None,
        files=files_of(graph, layers),
        nodes=_reachable(graph, device),
    )


def _reachable(graph: Graph, device: Device) -> frozenset[str]:
    """The nodes that a device reads, but for filters: jobs put theirs there, and take them away."""
    if device.root is None:
        return frozenset()
    found = graph.below(device.root)
    return frozenset(name for name in found if not _is_filter(graph, name))


_BACKUPS: Final = frozenset({"backup-top", "copy-before-write"})
"""Filters that keep what was there for a backup, so that its target may read below them."""


def _shared(graph: Graph) -> frozenset[str]:
    """
    Names of nodes that more than one node reads, or a node and a device or an export.

    A filter reads nothing for itself, only for who reads the filter. An export of an active layer
    is no other reader: it writes and reads as this disk.
    """
    parents: dict[str, set[str]] = {}
    for edge in graph.edges:
        parents.setdefault(edge.child, set()).add(edge.parent)
    devices: dict[str, set[str]] = {}
    for number, device in enumerate(graph.devices):
        if device.root and device.name:
            devices.setdefault(device.root, set()).add(f"{number} {device.name}")
    return frozenset(name for name in graph.nodes if _readers(graph, parents, devices, name) > 1)


def _readers(
    graph: Graph, parents: Mapping[str, set[str]], devices: Mapping[str, set[str]], name: str
) -> int:
    nodes: set[str] = set()
    used_by = set(devices.get(name, ()))
    filters = [name]
    exported = False
    for one in filters:  # which grows
        exported = exported or one in graph.exported
        for parent in sorted(parents.get(one, ())):
            if not _is_filter(graph, parent):
                nodes.add(parent)
            elif parent not in filters and graph.nodes[parent].driver not in _BACKUPS:
                filters.append(parent)
                used_by |= devices.get(parent, set())
    return len(nodes) + len(used_by) + (exported and bool(nodes))


def _is_filter(graph: Graph, name: str) -> bool:
    node = graph.nodes.get(name)
    return node is not None and node.kind is DriverKind.FILTER


def _paired(
    layers: tuple[ChainLink, ...], xml: XmlDisk | None
) -> tuple[tuple[XmlLayer | None, ...], str | None]:
    """Find each layer's XML source, and say if the chains differ."""
    if xml is None:
        return (None,) * len(layers), None
    by_index = {layer.index: layer for layer in xml.layers if layer.index is not None}
    if by_index:
        pairs = tuple(by_index.get(_libvirt_index(layer) or 0) for layer in layers)
    else:
        # Before libvirt 5.10 sources carry no number; then the order is all there is.
        pairs = tuple(xml.layers[n] if n < len(xml.layers) else None for n in range(len(layers)))
    # The XML may end early (nbd, after a pull on libvirt 7.0), so only what it has must fit.
    same = pairs[: len(xml.layers)] == xml.layers
    if same or xml.mirror is not None:
        return pairs, None
    return pairs, (
        f"libvirt sees {_names(layer.name for layer in xml.layers)}, "
        f"QEMU has {_names(layer.path or layer.file for layer in layers)}"
    )


def _names(names: Iterable[str]) -> str:
    return " <- ".join(name.rpartition("/")[2] for name in names) or "nothing"


def _libvirt_index(layer: ChainLink) -> int | None:
    """The N of `libvirt-N-format`, `libvirt-N-storage` or `libvirt-N-slice-sto`."""
    match = _LIBVIRT.match(layer.node.name)
    return int(match[1]) if match else None


def _layer(
    layer: ChainLink,
    path: str | None,
    xml: XmlLayer | None,
    above: ChainLink | None,
    headers: Mapping[str, Header],
    marks: _Marks,
) -> Layer:
    node, protocol = layer.node, layer.protocol
    header = headers.get(path) if path and node.driver == "qcow2" else None
    by_xml = xml_says(xml)
    evidence = (node_says(layer), by_xml, layer_above_says(above, layer, headers, xml=by_xml))
    stated = tuple(one for one in evidence if one is not None)
    format_, verdict = judge(stated)
    return Layer(
        file=path.rpartition("/")[2] if path else layer.file or f"(node {node.name})",
        path=path,
        protocol=(protocol.driver if protocol else "") or "unknown",
        format=format_,
        verdict=verdict,
        node=node.name,
        virtual_size=node.virtual_size,
        flags=_flags(layer, header, above, marks),
        evidence=stated,
        backing_name=header.backing_file
        if header
        else (node.recorded.filename if node.recorded else None),
        backing_format=header.backing_format
        if header
        else (node.recorded.format if node.recorded else None),
        index=xml.index if xml else None,
        secret=xml.secret if xml else None,
        top_node=layer.top.name,
        protocol_node=protocol.name if protocol else None,
        node_details=node,
        has_subclusters=node.has_subclusters or bool(header and header.has_subclusters),
        internal_snapshots=len(node.snapshots) or (header.snapshots if header else 0),
    )


def _nameless(layer: ChainLink) -> bool:
    """A passed descriptor, or a node that QEMU cannot describe: only libvirt knows the name."""
    filename = layer.protocol.filename if layer.protocol else ""
    return not filename or filename.startswith("/dev/fdset/")


def _flags(
    layer: ChainLink, header: Header | None, above: ChainLink | None, marks: _Marks
) -> tuple[str, ...]:
    node, nodes = layer.node, (*layer.filters, layer.node)
    between = (*layer.between, *(() if layer.protocol is None else (layer.protocol,)))
    recorded = header.backing_file if header else (node.recorded and node.recorded.filename)
    names = (layer.protocol.filename if layer.protocol else "", recorded or "")
    flags = {
        "unreadable": not node.driver,
        "inactive": not all(one.active for one in nodes),
        "encrypted": any(one.encrypted or one.driver == "luks" for one in (node, *layer.inner))
        or (header and header.encryption),
        "data-file": node.data_file is not None or (header and header.data_file is not None),
        "two-formats": layer.inner,
        "slice": any(_is_slice(one) for one in (node, *layer.between)),
        "probed": _probed(layer, above, marks.probed),
        "shared-base": any(one.name in marks.shared for one in (*nodes, *between)),
        "detect-zeroes": node.detect_zeroes,
        "implicit-filter": layer.filters and _implicit(layer),
        "filter": layer.filters and not _implicit(layer),
        "json-name": any(name.startswith("json:") for name in names),
        "bitmaps": node.bitmaps or (header and header.bitmaps),
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def _probed(layer: ChainLink, above: ChainLink | None, probed: Collection[str]) -> bool:
    """
    Nobody told QEMU the format: no option did, nor the header that names the file.

    QEMU gave the node a name of its own then (`#block123`); whoever names a node has also said
    its driver.
    """
    if not layer.node.name.startswith("#"):
        return False
    if layer.path in probed:
        return True
    return above is not None and above.node.recorded is not None and not above.node.recorded.format


def _is_slice(node: Node) -> bool:
    """
    A raw node that shows a part of its file only; QEMU tells it in the node's name alone.

    Its own options stand at the top; `size` further down is another driver's (null-co has one).
    """
    if node.driver != "raw" or not node.filename.startswith("json:"):
        return False
    try:
        options = json.loads(node.filename.removeprefix("json:"))
    except (ValueError, RecursionError):
        return False
    return isinstance(options, dict) and bool({"offset", "size"} & options.keys())


def _implicit(layer: ChainLink) -> bool:
    return any(node.name.startswith("#") for node in layer.filters)
