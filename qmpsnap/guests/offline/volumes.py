"""
Volumes of storage pools in the definition of a guest that is off: which files they are.

libvirt finds them in the same way at the next start, and does not start the guest when it cannot.
It leaves such a name where it was when a snapshot of the running guest puts a file over it.

Source: virDomainDiskTranslateSourcePool(), storage_driver.c (libvirt 9.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lxml import etree

from qmpsnap.graph import xml
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import libvirt_module

Find = Callable[[str, str], str]
"""The file of a volume, by the names of its pool and its own; raises `NoVolume`."""


class NoVolume(Exception):
    """libvirt gives no file for it; the text says why."""


def with_files(definition: str, find: Find) -> tuple[str, Mapping[str, str]]:
    """
    Say of each volume which file it is, beside its own name.

    Returns:
        The definition, to be read and not to be given back; and why there is no file, by
        `POOL/VOLUME`.
    """
    root = xml.root_of(definition, "domain")
    missing: dict[str, str] = {}
    for source in root.iter("source"):
        pool, volume = source.get("pool"), source.get("volume")
        if pool and volume and source.get("mode") != "direct":  # QEMU itself talks to that server
            try:
                source.set("file", find(pool, volume))
            except NoVolume as error:
                missing[f"{pool}/{volume}"] = f"libvirt gives no file for {pool}/{volume}: {error}"
    return etree.tostring(root, encoding="unicode"), missing


def file_of(connection: Any, pool: str, volume: str) -> str:
    """
    Ask libvirt for the file or block device of a volume.

    Raises:
        NoVolume: Its pool is not started, or does not know it; or it is neither.
    """
    libvirt = libvirt_module()
    local = (libvirt.VIR_STORAGE_VOL_FILE, libvirt.VIR_STORAGE_VOL_BLOCK)

    def found() -> tuple[int, str]:
        one = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
        return one.info()[0], str(one.path())

    try:
        kind, path = in_time(found)
    except libvirt.libvirtError as error:
        raise NoVolume(str(error)) from error
    except MonitorBusy:
        raise NoVolume("it does not answer") from None
    if kind not in local or not path.startswith("/"):
        raise NoVolume(f"it is no file of a host ({path})")
    return path
