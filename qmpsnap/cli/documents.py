"""The JSON that this tool prints: contracts, one function a schema. Keys may be added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from qmpsnap.cli.units import moment
from qmpsnap.formats.layers import Disk, Disks, Layer

if TYPE_CHECKING:  # none of them for `chain`
    from qmpsnap.findings.finding import Finding
    from qmpsnap.guests.files.measure import Measure
    from qmpsnap.operations.job.pace import Rates
    from qmpsnap.operations.job.states import JobReport
    from qmpsnap.operations.names import Snapshot
    from qmpsnap.operations.outcome import Result

Document = dict[str, object]
Files = Mapping[str, "Measure"]
"""What is known of files, by path."""
NOT_MEASURED: Final[Files] = {}


def chain(guest: Disks, disks: Iterable[Disk], files: Files = NOT_MEASURED) -> Document:
    """`qmpsnap.chain/1`: every layer with format, witnesses and verdict, and its file."""
    return {
        "schema": "qmpsnap.chain/1",
        "guest": guest.guest,
        "disks": [_disk(disk, files) for disk in disks],
        "notes": list(guest.remarks),
    }


def _disk(disk: Disk, files: Files = NOT_MEASURED) -> Document:
    return {
        "disk": disk.disk,
        "serial": disk.serial,
        "qdev": disk.qdev,
        "kind": disk.kind,
        "read_only": disk.read_only,
        "xml_differs": disk.xml_differs,
        "layers": [_layer(layer, files) for layer in disk.layers],
        "files": [
            {
                "path": file.path,
                "name": file.name,
                "protocol": file.protocol,
                "node": file.node,
                "role": file.role,
                "layer": file.layer,
            }
            for file in disk.files
        ],
    }


def _layer(layer: Layer, files: Files) -> Document:
    seen = files.get(layer.path or "")
    return {
        "file": layer.file,
        "path": layer.path,
        "protocol": layer.protocol,
        "format": layer.format,
        "verdict": layer.verdict.value,
        "node": layer.node,
        "virtual_size": layer.virtual_size,
        "allocated": seen.allocated if seen else None,
        "created": moment(seen.created) if seen else None,
        "modified": moment(seen.modified) if seen else None,
        "flags": list(layer.flags),
        "evidence": [
            {"witness": one.witness.value, "format": one.format, "detail": one.detail}
            for one in layer.evidence
        ],
    }


def disks(guest: Disks) -> Document:
    """`qmpsnap.disks/1`: one row a disk, with its active file."""
    return {
        "schema": "qmpsnap.disks/1",
        "guest": guest.guest,
        "disks": [in_short(disk) for disk in guest.disks],
        "notes": list(guest.remarks),
    }


def in_short(disk: Disk) -> Document:
    """A disk with its active file alone."""
    active = disk.layers[0] if disk.layers else None
    return {
        "disk": disk.disk,
        "serial": disk.serial,
        "qdev": disk.qdev,
        "kind": disk.kind,
        "read_only": disk.read_only,
        "file": active.file if active else None,
        "path": active.path if active else None,
        "format": active.format if active else None,
        "verdict": active.verdict.value if active else None,
        "virtual_size": active.virtual_size if active else None,
        "depth": len(disk.layers),
    }


def snapshot_list(guest: Disks, chosen: Iterable[Disk], files: Files = NOT_MEASURED) -> Document:
    """`qmpsnap.snapshots/1`: newest first for each disk."""
    from qmpsnap.operations.names import snapshots

    return {
        "schema": "qmpsnap.snapshots/1",
        "guest": guest.guest,
        "snapshots": [_snapshot(disk, one, files) for disk in chosen for one in snapshots(disk)],
    }


def _snapshot(disk: Disk, one: Snapshot, files: Files) -> Document:
    data, overlay = files.get(one.data.path or ""), files.get(one.overlay.path or "")
    return {
        "disk": disk.disk,
        "name": one.name,
        "data": one.data.file,
        "data_format": one.data.format,
        "overlay": one.overlay.file,
        "created": moment(overlay.created) if overlay else None,
        "virtual_size": one.data.virtual_size,
        "data_allocated": data.allocated if data else None,
        "overlay_allocated": overlay.allocated if overlay else None,
    }


def result(operation: str, done: Sequence[Result]) -> Document:
    """`qmpsnap.result/1`: what a create or delete for people did, on one or several disks."""
    return {
        "schema": "qmpsnap.result/1",
        "operation": operation,
        "file_format": {name: format_ for one in done for name, format_ in one.file_format.items()},
        "dropped": [path for one in done for path in one.dropped],
        "removed": [path for one in done for path in one.removed],
        "held": [path for one in done for path in one.held],
        "kept": [path for one in done for path in one.kept],
        "repaired": list(dict.fromkeys(repair for one in done for repair in one.repaired)),
        "notes": list(dict.fromkeys(note for one in done for note in one.notes)),
        "consistency": done[0].consistency,
        "frozen_s": done[0].frozen_s,
        "guest_state": done[0].guest_state,
        "id": done[0].operation,
        "disk": _disk(done[0].disk),
        "volumes": [
            {
                "file_format": dict(one.file_format),
                "dropped": list(one.dropped),
                "removed": list(one.removed),
                "held": list(one.held),
                "kept": list(one.kept),
                "repaired": list(one.repaired),
                "notes": list(one.notes),
                "disk": _disk(one.disk),
            }
            for one in done
        ],
    }


def jobs(found: Iterable[JobReport], rates: Mapping[str, Rates]) -> Document:
    """`qmpsnap.jobs/1`: every block job of a guest."""
    return {"schema": "qmpsnap.jobs/1", "jobs": [_job(one, rates.get(one.id)) for one in found]}


def _job(job: JobReport, rates: Rates | None) -> Document:
    return {
        "id": job.id,
        "type": job.type,
        "disk": job.disk,
        "status": job.view.status.value,
        "current": job.view.current,
        "total": job.view.total,
        "rate": round(rates.copying) if rates else None,
        "seconds_left": round(rates.left_s) if rates and rates.left_s is not None else None,
        "bandwidth": job.bandwidth,
        "io_status": job.view.io_status.value,
        "error": job.view.error,
        "ours": job.ours,
    }


def findings(
    audited: Sequence[Document], not_audited: Sequence[Document], found: Sequence[Finding]
) -> Document:
    """`qmpsnap.findings/1`: what `verify` and `audit` found, and where they looked."""
    from qmpsnap.findings.finding import Severity

    counted = Counter(one.severity for one in found)
    return {
        "schema": "qmpsnap.findings/1",
        "audited": list(audited),
        "not_audited": list(not_audited),
        "findings": [
            {
                "id": one.id,
                "severity": one.severity.value,
                "guest": one.guest,
                "disk": one.disk,
                "file": one.file,
                "node": one.node,
                "message": one.message,
                "remedy": one.remedy,
            }
            for one in found
        ],
        "count": {severity.value: counted[severity] for severity in Severity},
    }
