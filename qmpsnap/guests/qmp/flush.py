"""
Flush one node of a running QEMU.

QMP has no command for it. HMP `qemu-io` is the one way while a block job holds the node:
`block_resize` is refused then, and `stop` would interrupt the guest. But HMP answers nothing when
the flush itself fails (seen on 7.2: the error goes to QEMU's standard output), so whoever can
resize to the same size afterwards does that too: it flushes, and says when it could not. After a
commit nobody can, but there QEMU's own flush leaves a trace.
"""

from __future__ import annotations

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import Layer
from qmpsnap.graph.nodes import Graph
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.plan_merge import MergePlan


class FlushUnsupported(Refused):
    """This QEMU has no human monitor (qemu-storage-daemon has none)."""

    msg = "this QEMU has no command to flush {self.file} with"
    remedy = "Resize it to the same size, or pause and resume the guest: both flush."

    file: str


def flush(monitor: Monitor, layer: Layer) -> str | None:
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


def check_closed(graph: Graph, plan: MergePlan) -> None:
    """
    After a commit, see whether QEMU has flushed the base.

    It makes the base read-only again, for which it flushes it, and tells nobody when that fails:
    the job ends without an error (commit_clean(), block/commit.c; on 7.2.22, with no space left
    for the tables of a qcow2 base, all that was committed was gone after a crash). But then the
    base is still writable.

    Args:
        graph: Read after the job.
        plan: The merge.

    Raises:
        NotFlushed: The base was read-only before, and is not any more.
    """
    if plan.kind != "commit" or plan.base is None or plan.base.node_details is None:
        return
    before, after = plan.base.node_details, graph.nodes.get(plan.base.node_details.name)
    if before.read_only and after is not None and not after.read_only:
        raise NotFlushed(plan.base.file, "it could not be made read-only again")
