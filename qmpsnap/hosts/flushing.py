"""
Flush one node of a running QEMU.

QMP has no command for it. HMP `qemu-io` is the one way while a block job holds the node:
`block_resize` is refused then, and `stop` would interrupt the guest. But HMP answers nothing when
the flush itself fails (seen on 7.2: the error goes to QEMU's standard output), so whoever can
resize to the same size afterwards does that too: it flushes, and says when it could not.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import LayerReport
from qmpsnap.monitor.base import CommandFailed, Monitor


@dataclass(eq=False)
class FlushUnsupported(Refused):
    """This QEMU has no human monitor (qemu-storage-daemon has none)."""

    msg = "this QEMU has no command to flush {self.file} with"
    remedy = "Resize it to the same size, or pause and resume the guest: both flush."

    file: str


def flush(monitor: Monitor, layer: LayerReport) -> str | None:
    """
    Flush a layer's node; returns why it was not tried, None when it was.

    Raises:
        FlushUnsupported: There is no human monitor.
    """
    line = {"command-line": f"qemu-io {layer.node} flush"}
    try:
        said = monitor.execute("human-monitor-command", line)
    except CommandFailed as error:
        if error.error_class == "CommandNotFound":
            raise FlushUnsupported(layer.file) from error
        said = error.description
    return f"flush of {layer.file}: {str(said).strip()}" if said else None
