"""All block jobs of one QEMU, read without a look at its nodes: that may be dangerous meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from qmpsnap.graph import debug_graph
from qmpsnap.graph.nodes import Graph
from qmpsnap.graph.qmp import block_jobs_from, jobs_from
from qmpsnap.guests.qmp.names import OURS
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.operations.job.states import IoStatus, JobReport, JobView, status_of


def job_reports(monitor: Monitor) -> tuple[JobReport, ...]:
    """
    Read all block jobs.

    A job that ends between the two queries has no bandwidth in its report; jobs that are no block
    jobs (of snapshots, of image creation) are left out.
    """
    listed, jobs = (
        _answer(reply)
        for reply in monitor.execute_all([("query-block-jobs", {}), ("query-jobs", {})])
    )
    details = block_jobs_from(listed)
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
        for info in jobs_from(jobs)
        if info.id in details
    )


def _answer(reply: object) -> object:
    if isinstance(reply, CommandFailed):
        raise reply
    return reply


def io_status_of(word: str) -> IoStatus:
    """A word that a later QEMU may have is a failure."""
    return IoStatus(word) if word in list(IoStatus) else IoStatus.FAILED


def _disks_of_jobs(monitor: Monitor) -> Mapping[str, str]:
    """The disk by job, where the graph for debugging is to be had and names exactly one."""
    try:
        reply = monitor.execute(debug_graph.QUERY)
    except CommandFailed:
        return {}
    told = debug_graph.debug_graph_from(reply)
    graph = Graph(devices=told.devices, nodes={}, edges=told.edges)
    disks: dict[str, set[str]] = {}
    for device in graph.devices:
        if device.root is not None and device.name:
            for node in graph.below(device.root):
                disks.setdefault(node, set()).add(device.name)
    of_job: dict[str, set[str]] = {}
    for edge in told.job_edges:
        of_job.setdefault(edge.parent, set()).update(disks.get(edge.child, ()))
    return {job: names.pop() for job, names in of_job.items() if len(names) == 1}
