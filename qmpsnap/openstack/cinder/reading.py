"""
What a file of a volume is, without asking its bytes for their format.

The format comes from the ledger. Of a raw file nothing is read but its length; of a file that is
stated to be qcow2, its header. The answer is the object that Cinder's drivers know from
`cinder.image.image_utils.qemu_img_info`, which concludes the format from the bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Final

from qmpsnap.errors import Refused
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.ledger.named import OfLedger

Run = Callable[..., tuple[str, str]]
"""A driver's `_execute`."""
SECTOR: Final = 512


class FileUnusable(OfLedger, Refused):
    """A file is not what the ledger says, or could make QEMU open others."""

    msg = "{self.path} cannot be used as {self.format}: {self.reason}"
    remedy = (
        "`qmpsnap ledger show{self.ledger}` has what is known of it, and since when. Nothing was "
        "opened by it, and nothing changed."
    )

    path: str
    format: str
    reason: str


def describe(path: str, stated: str, *, run: Run, as_root: bool) -> dict[str, Any]:
    """
    What `qemu-img info -f FORMAT --output=json` would say, as far as Cinder asks for it.

    Args:
        path: The file.
        stated: Its format, `raw` or `qcow2`.
        run: For files that this process itself may not read.
        as_root: Whether `run` is to run as root.

    Raises:
        FileUnusable: It is no file of that format, or its header names a data file.
        OSError: It is not there.
    """
    try:
        return _read(path, stated)
    except PermissionError:
        command = ["env", "LC_ALL=C", "qemu-img", "info", "-f", stated, "--output=json", "-U", path]
        found: dict[str, Any] = json.loads(run(*command, run_as_root=as_root)[0])
        if found.get("format-specific", {}).get("data", {}).get("data-file") is not None:
            raise FileUnusable(path, stated, "its header names a data file") from None
        return found


def _read(path: str, stated: str) -> dict[str, Any]:
    status = os.stat(path)
    plain = {"filename": path, "format": stated, "actual-size": status.st_blocks * SECTOR}
    if stated != "qcow2":
        return plain | {"virtual-size": status.st_size}
    try:
        header = read_header(path)
    except BadHeader as error:
        raise FileUnusable(path, stated, error.reason) from error
    if header.data_file is not None:
        raise FileUnusable(path, stated, "its header names a data file")
    found = plain | {
        "virtual-size": header.virtual_size,
        "encrypted": bool(header.encryption),
        # image_utils.check_qcow2_image looks for a data file in here.
        "format-specific": {"type": "qcow2", "data": {"compat": "1.1"}},
    }
    if header.backing_file is not None:
        found |= {
            "backing-filename": header.backing_file,
            "backing-filename-format": header.backing_format,
            "full-backing-filename": os.path.join(os.path.dirname(path), header.backing_file),
        }
    return found
