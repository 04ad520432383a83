"""
Plug-ins for unmodified Cinder, switched on by configuration only.

    [DEFAULT]
    osapi_volume_extension = cinder.api.contrib.standard_extensions
    osapi_volume_extension = qmpsnap.openstack.cinder.Extension
    [nfs1]
    volume_driver = qmpsnap.openstack.cinder.NfsDriver

Cinder loads a class by the name of its module and its own (`importutils.import_class`). The API
process has no use for a driver, and the driver none for the API, so that each is imported when it
is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

_PLACES: Final = {
    "Extension": "extension",
    "SnapshotActionsController": "extension",
    "NfsDriver": "nfs",
    "QuobyteDriver": "quobyte",
    "RemoteFSSnapDriver": "plain",
    "VZStorageDriver": "vzstorage",
}

__all__ = [
    "Extension",
    "NfsDriver",
    "QuobyteDriver",
    "RemoteFSSnapDriver",
    "SnapshotActionsController",
    "VZStorageDriver",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
