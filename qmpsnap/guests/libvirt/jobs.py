"""
Block jobs as libvirt tells of them: one a disk at most, called by the disk's name.

Its events say how a job ended, its job info how far it is, and the `<mirror>` of the XML whether an
active commit can pivot, and into what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmpsnap.graph.xml import XmlDisk, XmlDomain
from qmpsnap.guests.libvirt.door import call
from qmpsnap.monitor.base import Event
from qmpsnap.monitor.subscription import LIBVIRT_BLOCK_JOB
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.job.states import Heard, JobReport, JobStatus, JobView


def info_of(domain: Any, disk: str) -> Mapping[str, int]:
    """
    `virDomainGetBlockJobInfo`; empty when there is no job.

    Raises:
        CommandFailed, LostInMidCommand: It could not be asked.
    """
    flags = libvirt_module().VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES
    answer = call(domain, "virDomainGetBlockJobInfo", lambda: domain.blockJobInfo(disk, flags))
    return answer if isinstance(answer, dict) else {}


def view_of(info: Mapping[str, int], *, ready: bool) -> JobView:
    """How a job is by its info; one that is gone has ended, and its event says how."""
    if not info:
        return JobView(status=JobStatus.NULL)
    status = JobStatus.READY if ready else JobStatus.RUNNING
    return JobView(status=status, current=info.get("cur", 0), total=info.get("end", 0))


def may_be_ready(info: Mapping[str, int]) -> bool:
    """Whether it is worth a look at the XML: only a mirror gets ready, and only at its end."""
    libvirt = libvirt_module()
    mirrors = (
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY,
    )
    return info.get("type") in mirrors and info.get("cur", 0) >= info.get("end", 0)


def reports_of(domain: Any, seen: XmlDomain) -> tuple[JobReport, ...]:
    """
    All block jobs of a guest.

    Raises:
        CommandFailed, LostInMidCommand: It could not be asked.
    """
    found = []
    for disk in seen.disks:
        info = info_of(domain, disk.target) if disk.target else {}
        if info:
            found.append(_report(disk, info))
    return tuple(found)


def _report(disk: XmlDisk, info: Mapping[str, int]) -> JobReport:
    libvirt = libvirt_module()
    types = {
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: "stream",
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: "mirror",
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: "commit",
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: "commit",
        libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP: "backup",
    }
    return JobReport(
        id=disk.target,
        type=types.get(info.get("type", 0), "unknown"),
        disk=disk.target,
        view=view_of(info, ready=disk.mirror_ready),
        bandwidth=info.get("bandwidth"),
        ours=None,
        target=disk.mirror_file if disk.mirror == "active-commit" else None,
    )


def heard_in(event: Event, disk: str) -> Heard | None:
    """
    What an event says of the end of a disk's job; None when it is about something else.

    Only QEMU's own event has the error's text; it comes before libvirt's.
    """
    libvirt = libvirt_module()
    if event.name != LIBVIRT_BLOCK_JOB:
        error = event.data.get("error")
        if event.name == "BLOCK_JOB_COMPLETED" and isinstance(error, str):
            return Heard(reason=error)
        return None
    if event.data.get("disk") != disk:
        return None
    match event.data.get("status"):
        case libvirt.VIR_DOMAIN_BLOCK_JOB_READY:
            return Heard()
        case libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED:
            return Heard(ended=True)
        case libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED:
            return Heard(ended=True, failed=True, reason="it was cancelled")
        case _:
            return Heard(ended=True, failed=True, reason="libvirt does not say why")
