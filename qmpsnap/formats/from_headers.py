"""
The chain of a guest that is off, from its definition and the headers on disk. Pure.

libvirt's definition names the active file and its format; each qcow2 header names the next file
and its format. Only headers of files that are stated to be qcow2 count, a name counts only in the
folder of the file that names it, and a header without a backing format ends what is known.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from dataclasses import replace

from qmpsnap.formats.qcow2 import Header
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
    Complete the chain of an inactive definition, which has the active file only.

    Args:
        disk: As it is defined.
        headers: By path, of the layers that are stated to be qcow2, as far as they were followed.
        real: As `next_below` takes it.
    """
    if not disk.layers:
        return disk
    layers = [disk.layers[0]]
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
