"""All block jobs of one QEMU, read without a look at its nodes: that may be dangerous meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from qmpsnap.graph.qmp import (
    block_jobs_from,
    devices_from_debug_graph,
    edges_from_debug_graph,
    job_nodes_from_debug_graph,
    jobs_from,
)
from qmpsnap.guests.qmp.names import OURS
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.operations.job.states import IoStatus, JobReport, JobView, status_of


def job_reports(monitor: Monitor) -> tuple[JobReport, ...]:
    """
    Read all block jobs.

    A job that ends between the two queries has no bandwidth in its report; jobs that are no block
    jobs (of snapshots, of image creation) are left out.
    """
    details = block_jobs_from(monitor.execute("query-block-jobs"))
    disks = _disks_of_jobs(monitor) if details else {}
    return tuple(
        JobReport(
            id=info.id,
            type=info.type,
            disk=disks.get(info.id),
            view=JobView(
                status=status_of(info.status),
                current=info.current,
                total=info.total,
                error=info.error,
                io_status=io_status_of(details[info.id].io_status),
            ),
            bandwidth=details[info.id].speed,
            ours=info.id.startswith(OURS),
        )
        for info in jobs_from(monitor.execute("query-jobs"))
        if info.id in details
    )


def io_status_of(word: str) -> IoStatus:
    """A word that a later QEMU may have is a failure."""
    return IoStatus(word) if word in list(IoStatus) else IoStatus.FAILED


def _disks_of_jobs(monitor: Monitor) -> Mapping[str, str]:
    """The disk by job, where the graph for debugging is to be had and names exactly one."""
    try:
        reply = monitor.execute("x-debug-query-block-graph")
    except CommandFailed:
        return {}
    below: dict[str, set[str]] = {}
    for edge in edges_from_debug_graph(reply):
        below.setdefault(edge.parent, set()).add(edge.child)
    trees = {
        device.name: _tree(device.root, below)
        for device in devices_from_debug_graph(reply)
        if device.root is not None and device.name
    }
    found = {}
    for job, nodes in job_nodes_from_debug_graph(reply).items():
        names = [name for name, tree in trees.items() if tree & nodes]
        if len(names) == 1:
            found[job] = names[0]
    return found


def _tree(root: str, below: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [root]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += below.get(name, ())
    return seen
