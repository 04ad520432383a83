"""Operations of this tool that are under way on a disk's files, or were interrupted: their markers."""

from __future__ import annotations

from qmpsnap.findings import finding as rules
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.journal.markers import Marker, forbidding


def interrupted(seen: Seen) -> tuple[Finding, ...]:
    """Look for markers beside the files of a guest on this host."""
    return tuple(
        Finding(
            rule=rules.OPERATION_OPEN,
            guest=seen.guest,
            disk=disk.disk,
            file=marker.path,
            message=_message(marker),
            remedy=rules.OPERATION_OPEN.remedy,
        )
        for disk in seen.report.disks
        for marker in forbidding([disk])
    )


def _message(marker: Marker) -> str:
    if marker.written is None:
        return f"{marker.path} marks an operation, and cannot be read: {marker.problem}"
    record = marker.written.record
    return (
        f"operation {marker.id} ({record.kind}) was begun on {record.host} by {record.by}, and it is "
        f"not proven what it came to"
    )
