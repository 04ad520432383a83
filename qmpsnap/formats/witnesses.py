"""What each witness states about one layer, as `Evidence`; None where it does not speak."""

from __future__ import annotations

from collections.abc import Mapping

from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import Evidence, Witness
from qmpsnap.graph.chain import ChainLink
from qmpsnap.graph.drivers import DriverKind, format_meant_by
from qmpsnap.graph.xml import XmlLayer


def node_says(link: ChainLink) -> Evidence | None:
    """
    The running node: a protocol driver in the place of a format means raw.

    Where another format lies below it, neither of the two is how the file is to be opened.
    """
    node = link.node
    meant = format_meant_by(node.driver)
    if meant is None or link.inner:
        return None
    detail = f"node {node.name}: driver {node.driver}"
    if node.kind is DriverKind.PROTOCOL:
        detail += ", no format node: the bytes as they are"
    return Evidence(witness=Witness.QMP, format=meant, detail=detail)


def xml_says(layer: XmlLayer | None) -> Evidence | None:
    """The domain XML, where it gives a format."""
    if layer is None or layer.format is None:
        return None
    detail = f"index {layer.index}" if layer.index is not None else "driver type"
    if layer.word is not None:
        detail += f", which says {layer.word!r}, libvirt's word for it"
    return Evidence(witness=Witness.XML, format=layer.format, detail=detail)


def layer_above_says(
    above: ChainLink | None,
    below: ChainLink,
    headers: Mapping[str, Header],
    *,
    xml: Evidence | None = None,
) -> Evidence | None:
    """
    What the header of the layer above says: on disk, else as QEMU read it when it opened it.

    A header speaks of one file. Where QEMU has a node of several in its place (quorum), it is one
    of these that the header names, and nothing is said of the whole. Nor is it where a format lies
    below the format.

    Args:
        above: The layer whose header it is.
        below: The layer that it stands for.
        headers: Those on disk, by path.
        xml: What the domain XML says of the layer below.
    """
    if above is None or below.inner:
        return None
    if below.node.kind is DriverKind.UNKNOWN and below.protocol is None:
        return None
    header = headers.get(above.path) if above.path else None
    if header is not None and above.node.driver == "qcow2":
        written, source = header.backing_format, f"header of {above.file}"
    elif above.node.recorded is not None:
        written = above.node.recorded.format
        source = f"header of {above.file}, as QEMU opened it"
    else:
        return None
    return header_says(written, source, xml=xml)


def header_says(
    written: str | None, source: str, *, xml: Evidence | None = None
) -> Evidence | None:
    """
    A backing format as it stands in a header.

    Args:
        written: The format, or None when the header has none.
        source: Where it stands, in words.
        xml: What the domain XML says of the same file. libvirt's formats have no LUKS, but `raw`
            with an encryption beside it, and `raw` is what it writes into the header of a
            snapshot that it makes while the guest is off.

    Source: libvirt src/qemu/qemu_snapshot.c, qemuSnapshotCreateQcow2Files(); of a running guest
    qemu_block.c, qemuBlockStorageSourceCreateAddBacking(), which writes `luks`.
    """
    if written is None:
        return None
    if written == "raw" and xml is not None and xml.format == "luks":
        detail = f"{source}, which says 'raw', libvirt's word for it"
        return Evidence(witness=Witness.HEADER, format="luks", detail=detail)
    # QEMU writes the protocol's name (`file`) over a base without a raw node; as a format it
    # opens the bytes as they are.
    meant = format_meant_by(written) or written
    detail = source if meant == written else f"{source}, which says {written!r}"
    return Evidence(witness=Witness.HEADER, format=meant, detail=detail)
