"""The same results as tables, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table

from qmpsnap.cli.output import printable, table
from qmpsnap.cli.units import seconds_text
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.graph.files import OpenFile
from qmpsnap.operations.job.pace import Rates
from qmpsnap.operations.job.states import IoStatus, JobReport
from qmpsnap.operations.names import snapshots
from qmpsnap.operations.space import bytes_text


def size(value: int | None) -> str:
    """Bytes in the largest binary unit that keeps them above 1."""
    return "-" if value is None else bytes_text(value)


def disks(guest: Disks) -> Table:
    """One row a disk."""
    rows = [
        (
            disk.disk,
            disk.serial,
            disk.layers[0].format if disk.layers else None,
            size(disk.layers[0].virtual_size if disk.layers else None),
            len(disk.layers),
            (disk.layers[0].path or disk.layers[0].file) if disk.layers else "(empty)",
            ", ".join(_kind(disk)),
        )
        for disk in guest.disks
    ]
    return table(("DISK", "SERIAL", "FORMAT", "SIZE", "DEPTH", "ACTIVE FILE", ""), rows)


def _kind(disk: Disk) -> list[str]:
    words = [] if disk.kind == "disk" else [disk.kind]
    return [*words, "read-only"] if disk.read_only else words


def chain(chosen: Iterable[Disk]) -> Group:
    """One table a disk, one row a layer, active layer first."""
    return Group(*(_chain(disk) for disk in chosen))


def _chain(disk: Disk) -> RenderableType:
    rows = [
        (
            ("" if number == 0 else "└ ") + layer.file,
            layer.format or "?",
            layer.verdict.value,
            witnesses(layer),
            ", ".join(layer.flags),
        )
        for number, layer in enumerate(disk.layers)
    ]
    serial = f" (serial {disk.serial})" if disk.serial else ""
    remarks = [f"CONFLICT: {disk.xml_differs}"] if disk.xml_differs else []
    remarks += [f"also open: {file.name} ({_why(disk, file)})" for file in disk.beyond_chain]
    title = f"{disk.disk}{serial}"
    if not rows:
        return f"{printable(title)}: empty"
    result = table(("FILE", "FORMAT", "VERDICT", "WITNESSES", "FLAGS"), rows, title=title)
    result.caption = "\n".join(map(printable, remarks)) or None
    return result


def _why(disk: Disk, file: OpenFile) -> str:
    return f"{file.role} of {disk.layers[file.layer].file}"


def witnesses(layer: Layer) -> str:
    """Who says what, in short: `qmp,xml: raw · header: qcow2`."""
    formats: dict[str, list[str]] = {}
    for one in layer.evidence:
        formats.setdefault(one.format, []).append(one.witness.value)
    if len(formats) == 1:
        return " ".join(next(iter(formats.values())))
    return " · ".join(f"{' '.join(who)}: {format_}" for format_, who in formats.items())


def snapshot_list(chosen: Iterable[Disk]) -> Table:
    """One row a snapshot."""
    rows = [
        (disk.disk, one.name, one.data.file, one.data.format, one.overlay.file)
        for disk in chosen
        for one in snapshots(disk)
    ]
    return table(("DISK", "SNAPSHOT", "DATA IN", "FORMAT", "WRITTEN SINCE IN"), rows)


def jobs(found: Iterable[JobReport], rates: Mapping[str, Rates]) -> Table:
    """One row a job."""
    rows = [_job(one, rates.get(one.id)) for one in found]
    return table(("JOB", "TYPE", "DISK", "STATUS", "DONE", "RATE", "LEFT", "LIMIT", ""), rows)


def _job(job: JobReport, rates: Rates | None) -> tuple[object, ...]:
    view = job.view
    left = rates.left_s if rates else None
    remarks = [] if view.io_status is IoStatus.OK else [f"stopped: {view.io_status}"]
    remarks += [view.error] if view.error else []
    remarks += ["qmpsnap's"] if job.ours else []
    return (
        job.id,
        job.type,
        job.disk,
        view.status,
        f"{100 * view.current // view.total} % of {size(view.total)}" if view.total else None,
        f"{bytes_text(rates.copying)}/s" if rates else None,
        seconds_text(left) if left is not None else None,
        f"{size(job.bandwidth)}/s" if job.bandwidth else None,
        ", ".join(remarks),
    )
