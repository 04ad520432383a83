"""
What to call a source that is no file of this host.

QEMU describes it by a `json:{…}` name where it has no URL for it (rbd, iscsi, gluster, or any
option that is not a default). The words that people know it by are in there.

Source: BlockdevOptions* in qapi/block-core.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

_NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "rbd": ("pool", "namespace", "image"),
    "iscsi": ("target", "lun"),
    "gluster": ("volume", "path"),
    "nfs": ("path",),
    "ssh": ("path",),
    "nbd": ("export",),
    "nvme": ("device", "namespace"),
    "http": ("url",),
    "https": ("url",),
    "ftp": ("url",),
    "ftps": ("url",),
}


def source_name(filename: str) -> str:
    """Shorten a `json:` name of a network source; anything else is left as it is."""
    if not filename.startswith("json:"):
        return filename
    try:
        options = json.loads(filename.removeprefix("json:"))
    except (ValueError, RecursionError):
        return filename
    if not isinstance(options, dict):
        return filename
    keys = _NAMED_BY.get(str(options.get("driver")), ())
    parts = [str(options[key]) for key in keys if key in options]
    return "/".join(parts) or filename
