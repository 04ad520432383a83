"""
What the next start of a guest that is off would open: its definition, then the headers on disk.

Every disk is looked at by itself. What is the matter with one becomes a note of it, and the others
are as usable as ever.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable

from msgspec.structs import replace

from qmpsnap.formats.from_headers import difference, formats_to_follow, with_chain
from qmpsnap.formats.from_xml import disk_from_xml
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.formats.verdict import Witness, judge
from qmpsnap.graph.xml import XmlDisk
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import is_device, same_file
from qmpsnap.guests.files.sizes import with_raw_sizes


def read_disk(defined: XmlDisk, size: Callable[[str], int]) -> Disk:
    """
    Read one disk.

    Args:
        defined: As the definition has it.
        size: Asks libvirt for the bytes of the disk of a target, where its active file cannot be
            looked at from here; raises `NoSize`.
    """
    whole, headers, notes = _followed(defined)
    disk = disk_from_xml(whole, headers)
    layers = [_with_protocol(layer) for layer in disk.layers]
    differs = difference(defined, headers, same_file)
    if differs is not None and differs.above + 1 < len(layers):
        layers[differs.above + 1] = _without_header(layers[differs.above + 1])
    text = differs.text if differs is not None else None
    disk = replace(disk, xml_differs=text, layers=tuple(layers), notes=notes)
    return _with_size(with_raw_sizes(disk), size)


class NoSize(Exception):
    """libvirt does not tell how large a disk is; the text says why."""


def _followed(defined: XmlDisk) -> tuple[XmlDisk, dict[str, Header], tuple[str, ...]]:
    """The whole chain, the headers of it, and why one of them could not be read."""
    headers: dict[str, Header] = {}
    problems: dict[str, str] = {}
    while True:
        whole = with_chain(defined, headers, os.path.realpath)
        todo = [
            path
            for path, stated in formats_to_follow(whole, headers).items()
            if stated == "qcow2" and path not in headers and path not in problems
        ]
        if not todo:
            return whole, headers, tuple(problems.values())
        for path in todo:
            try:
                headers[path] = read_header(path)
            except OSError as error:
                problems[path] = f"{path} cannot be read: {error.strerror or error}"
            except BadHeader as error:
                problems[path] = str(error)


def _without_header(layer: Layer) -> Layer:
    """What the header above says is of another file."""
    evidence = tuple(one for one in layer.evidence if one.witness is not Witness.HEADER)
    format_, verdict = judge(evidence)
    return replace(layer, evidence=evidence, format=format_, verdict=verdict)


def _with_protocol(layer: Layer) -> Layer:
    """A block device is opened by another driver than a file."""
    is_block = layer.path is not None and is_device(layer.path)
    return replace(layer, protocol="host_device") if is_block else layer


def _with_size(disk: Disk, size: Callable[[str], int]) -> Disk:
    """No header tells the size of a raw file; libvirt may look where this process may not."""
    active = disk.layers[0] if disk.layers else None
    if active is None or active.virtual_size is not None or active.format != "raw":
        return disk
    try:
        known = replace(active, virtual_size=size(disk.disk))
    except NoSize as error:
        note = f"the size of {active.file} is not known: {error}"
        return replace(disk, notes=(*disk.notes, note))
    return replace(disk, layers=(known, *disk.layers[1:]))
