"""The same results as tables, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import Safe, printable
from qmpsnap.cli.units import moment_text, seconds_text
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.graph.files import OpenFile
from qmpsnap.operations.space import bytes_text

if TYPE_CHECKING:  # none of them for `chain`
    from qmpsnap.guests.files.measure import Measure
    from qmpsnap.operations.job.pace import Rates
    from qmpsnap.operations.job.states import JobReport


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
    return Table(("DISK", "SERIAL", "FORMAT", "SIZE", "DEPTH", "ACTIVE FILE", ""), rows)


def _kind(disk: Disk) -> list[str]:
    words = [] if disk.kind == "disk" else [disk.kind]
    return [*words, "read-only"] if disk.read_only else words


def chain(
    chosen: Iterable[Disk], here: Screen, files: Mapping[str, Measure] | None = None
) -> Iterator[str | Table]:
    """One table a disk, one row a layer, active layer first; with sizes where files were measured."""
    below = "`- " if here.plain else "└ "
    for disk in chosen:
        yield _chain(disk, below, files)


def _chain(disk: Disk, below: str, files: Mapping[str, Measure] | None) -> str | Table:
    rows = [
        (
            Safe(("" if number == 0 else below) + printable(layer.file)),
            layer.format or "?",
            *(() if files is None else _measures(layer, files)),
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
    measures = () if files is None else ("ON DISK", "CREATED")
    columns = ("FILE", "FORMAT", *measures, "VERDICT", "WITNESSES", "FLAGS")
    return Table(columns, rows, title=title, remarks=remarks, labelled=False)


def _measures(layer: Layer, files: Mapping[str, Measure]) -> tuple[str | None, str | None]:
    """What a layer takes of what the guest sees of it, `196 KiB of 1 GiB`, and since when it is there."""
    seen = files.get(layer.path or "")
    allocated = seen.allocated if seen else None
    sizes = f"{size(allocated)} of {size(layer.virtual_size)}"
    return None if sizes == "- of -" else sizes, moment_text(seen.created if seen else None)


def _why(disk: Disk, file: OpenFile) -> str:
    return f"{file.role} of {disk.layers[file.layer].file}"


def witnesses(layer: Layer) -> str:
    """Who says what, in short: `qmp,xml: raw; header: qcow2`."""
    formats: dict[str, list[str]] = {}
    for one in layer.evidence:
        formats.setdefault(one.format, []).append(one.witness.value)
    if len(formats) == 1:
        return " ".join(next(iter(formats.values())))
    return "; ".join(f"{' '.join(who)}: {format_}" for format_, who in formats.items())


def snapshot_list(
    chosen: Iterable[Disk], files: Mapping[str, Measure] = MappingProxyType({})
) -> Table:
    """One row a snapshot."""
    from qmpsnap.operations.names import snapshots

    rows = [
        (
            disk.disk,
            one.name,
            moment_text(made.created if (made := files.get(one.overlay.path or "")) else None),
            one.data.file,
            one.data.format,
            size(one.data.virtual_size),
            one.overlay.file,
            size(made.allocated if made else None),
        )
        for disk in chosen
        for one in snapshots(disk)
    ]
    columns = ("DISK", "SNAPSHOT", "CREATED", "DATA IN", "FORMAT", "SIZE", "WRITTEN SINCE IN")
    return Table((*columns, "ON DISK"), rows, heading=2)


def jobs(found: Iterable[JobReport], rates: Mapping[str, Rates]) -> Table:
    """One row a job."""
    rows = [job_cells(one, rates.get(one.id)) for one in found]
    return Table(("JOB", "TYPE", "DISK", "STATUS", "DONE", "RATE", "LEFT", "LIMIT", ""), rows)


def job_cells(job: JobReport, rates: Rates | None) -> tuple[object, ...]:
    """One row of the table of jobs."""
    from qmpsnap.operations.job.states import IoStatus

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
