"""
How a guest is started on an encrypted volume that has snapshots.

Nova names the active file and its secret alone. libvirt then finds the files below by their headers
and has no secret for them: `Unexpected enum value 0 for virStorageEncryptionEngine` (libvirt 9.0).
So the whole chain is named, each file with the volume's secret.

Source: LibvirtBaseVolumeDriver.get_config, nova/virt/libvirt/volume/volume.py, nova 34.0.0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from lxml import etree
from nova.virt.libvirt import config

from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header


class NotNamed(Exception):
    """The chain of an encrypted volume is not one that Cinder makes, and libvirt is not told of it."""


class EncryptedDisk(config.LibvirtConfigGuestDisk):  # type: ignore[misc]
    """Nova's disk with the files below the active one, all of them qcow2 with LUKS inside."""

    def __init__(self, disk: Any, below: Sequence[str]) -> None:
        """
        Take everything over from Nova's.

        Args:
            disk: A LibvirtConfigGuestDisk with `volume_encryption`.
            below: Paths, the uppermost first.
        """
        super().__init__()
        self.__dict__.update(vars(disk))
        self._below = tuple(below)

    def format_dom(self) -> Any:
        """As Nova's, with `<backingStore>`."""
        disk = super().format_dom()
        above = disk
        for path in self._below:
            store = etree.SubElement(above, "backingStore", type="file")
            etree.SubElement(store, "format", type="qcow2")
            source = etree.SubElement(store, "source", file=path)
            source.append(deepcopy(self.volume_encryption.format_dom()))
            above = store
        etree.SubElement(above, "backingStore")
        return disk


def files_below(path: str) -> tuple[str, ...]:
    """
    Follow the headers of an encrypted chain, which no guest can write.

    Args:
        path: The active file, stated to be qcow2.

    Returns:
        Paths of the files below it, the uppermost first.

    Raises:
        NotNamed: A header cannot be read, or names what Cinder does not make: a file of another
            folder, one that is not stated to be qcow2, or one without LUKS inside.
    """
    folder, found = os.path.dirname(path), [path]
    while (name := _named(found[-1], folder)) is not None:
        if name in found:
            raise NotNamed(f"the chain of {path} comes back to {name}")
        found.append(name)
    return tuple(found[1:])


def _named(path: str, folder: str) -> str | None:
    try:
        header = read_header(path)
    except (OSError, BadHeader) as error:
        raise NotNamed(str(error)) from error
    if header.encryption != "luks" or header.data_file is not None:
        raise NotNamed(f"{path} is no file with LUKS inside")
    if header.backing_file is None:
        return None
    name = os.path.join(folder, header.backing_file)
    if os.path.dirname(name) != folder or header.backing_format != "qcow2":
        raise NotNamed(f"{path} is backed by {header.backing_file!r} ({header.backing_format})")
    return name
