"""
The chain of a guest that is off, from its definition and the headers on disk. Pure.

libvirt's definition names the active file and its format, and may name what lies below: then the
next start obeys it, and the headers are witnesses. Where it ends, each qcow2 header names the next
file and its format. Only headers of files that are stated to be qcow2 count, a name counts only in
the folder of the file that names it, and a header without a backing format ends what is known.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.qcow2 import Header
from qmpsnap.graph.chain import host_path
from qmpsnap.graph.xml import XmlDisk, XmlLayer

Real = Callable[[str], str]
"""Tells where a folder's name leads, links followed; by its text alone unless a caller can look."""


def next_below(path: str, header: Header, real: Real = os.path.normpath) -> str | None:
    """
    The path of the backing file that a header names; None where it may not be followed.

    A `json:` name, a protocol, or a file of another folder is not: the header may have come with
    an image that somebody uploaded. The path has the folder in the spelling of `path`.
    """
    name = header.backing_file
    # QEMU takes for a protocol what stands before a colon in front of the first slash.
    if name is None or ":" in name.partition("/")[0] or "\0" in name:
        return None
    folder = os.path.dirname(path)
    there, _, file = os.path.join(folder, name).rpartition("/")
    if file in ("", ".", "..") or real(there) != real(folder):
        return None
    # Behind a link, `..` leads elsewhere than the text says.
    return os.path.join(folder if ".." in folder.split("/") else os.path.normpath(folder), file)


def with_chain(
    disk: XmlDisk, headers: Mapping[str, Header], real: Real = os.path.normpath
) -> XmlDisk:
    """
    Complete the chain of an inactive definition, which may have the active file only.

    Args:
        disk: As it is defined.
        headers: By path, of the layers that are stated to be qcow2, as far as they were followed.
        real: As `next_below` takes it.
    """
    if not disk.layers or disk.ended:
        return disk
    layers = list(disk.layers)
    while (path := layers[-1].path) is not None and (header := headers.get(path)) is not None:
        if header.backing_file is None:
            break
        below = next_below(path, header, real)
        # Its format is stated by the header above alone, which is a witness of its own.
        layers.append(
            XmlLayer(path=below, name=below or header.backing_file, format=None, index=None)
        )
        if below is None or any(layer.path == below for layer in layers[:-1]):
            break
    return replace(disk, layers=tuple(layers))


def formats_to_follow(disk: XmlDisk, headers: Mapping[str, Header]) -> dict[str, str]:
    """
    Format by path of the layers whose headers are to be read, as far as the chain is known.

    Args:
        disk: From `with_chain`.
        headers: Those that were read.
    """
    found = {}
    above: Header | None = None
    for layer in disk.layers:
        stated = layer.format or (above.backing_format if above is not None else None)
        above = headers.get(layer.path or "")
        if layer.path is not None and stated is not None:
            found[layer.path] = stated
    return found


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a definition names another file than the header of the layer above."""

    above: int
    """Position of the layer with that header."""
    text: str
    """In words."""


def difference(
    disk: XmlDisk, headers: Mapping[str, Header], same: Callable[[str, str], bool]
) -> Difference | None:
    """
    In what a definition that names the chain differs first from the headers; None: in nothing.

    Args:
        disk: As it is defined.
        headers: By path, of the layers that are stated to be qcow2.
        same: Whether two names are of one file. What a header names is compared, never opened.
    """
    for position, layer in enumerate(disk.layers):
        path = layer.path or ""
        header = headers.get(path)
        is_last = position + 1 == len(disk.layers)
        if header is None or (is_last and not disk.ended):
            continue
        below = None if is_last else disk.layers[position + 1]
        if not _is_named(path, header.backing_file, below, same):
            file = os.path.basename(path)
            named = "nothing" if header.backing_file is None else header.backing_file
            text = (
                f"below {file} the definition has {below.name if below else 'nothing'}, "
                f"and its header names {named}"
            )
            return Difference(above=position, text=text)
    return None


def _is_named(
    path: str, name: str | None, below: XmlLayer | None, same: Callable[[str, str], bool]
) -> bool:
    if name is None or below is None:
        return name is None and below is None
    if below.volume:
        return True  # which file it is, libvirt alone knows
    there = host_path(name)
    if there is not None and _PROTOCOL.match(there):
        there = None
    if there is None or below.path is None:
        return there is None and below.path is None  # a network's names are not compared
    return same(os.path.join(os.path.dirname(path), there), below.path)


_PROTOCOL: Final = re.compile(r"[^/]*:")
"""What stands before a colon in front of the first slash. Source: path_has_protocol(), block.c."""
