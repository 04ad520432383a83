"""The rules that look at several guests: one file in more than one disk. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from qmpsnap.findings import finding as rules
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding, Rule
from qmpsnap.formats.layers import Disk


class _Use(msgspec.Struct, frozen=True, kw_only=True):
    """One disk's use of one file."""

    guest: str | None
    disk: str
    file: str
    node: str | None
    writes: bool

    def __str__(self) -> str:
        return f"{self.disk} of {self.guest or 'the guest'}"


def across_guests(guests: Sequence[Seen]) -> tuple[Finding, ...]:
    """
    Find files that are written through one disk and used by another, of any of the guests.

    Files are told apart by what identifies them on this host, not by their names.
    """
    by_file: dict[object, list[_Use]] = {}
    for seen in guests:
        for disk in seen.report.disks:
            # A disk that has a file twice is `chain-loop`; here it counts once, as its writer.
            mine: dict[object, _Use] = {}
            for use in _uses(seen, disk):
                mine.setdefault(seen.key(use.file), use)
            for key, use in mine.items():
                by_file.setdefault(key, []).append(use)
    found: list[Finding] = []
    for uses in by_file.values():
        found += _judge(uses)
    return tuple(found)


def _uses(seen: Seen, disk: Disk) -> Iterator[_Use]:
    """Yield the disk's own files, the written ones first."""
    writable = not disk.read_only and disk.kind != "cdrom"
    for position, layer in enumerate(disk.layers):
        if layer.path is not None:
            yield _Use(
                guest=seen.guest,
                disk=disk.disk,
                file=layer.path,
                node=layer.node,
                writes=writable and position == 0,
            )
    for file in disk.beyond_chain:
        if file.path is not None:
            yield _Use(
                guest=seen.guest,
                disk=disk.disk,
                file=file.path,
                node=file.node,
                writes=writable and file.layer == 0,
            )


def _judge(uses: Sequence[_Use]) -> Iterator[Finding]:
    writers = [use for use in uses if use.writes]
    readers = [use for use in uses if not use.writes]
    if len(writers) > 1:
        others = ", ".join(map(str, writers[1:]))
        yield _finding(rules.FILE_ACTIVE_TWICE, writers[0], f"it is also active in {others}")
    if writers and readers:
        others = ", ".join(map(str, readers))
        written = ", ".join(map(str, writers))
        yield _finding(
            rules.FILE_ACTIVE_AND_BASE, writers[0], f"{written} writes to it; a base of {others}"
        )


def _finding(rule: Rule, use: _Use, message: str) -> Finding:
    return Finding(
        rule=rule,
        guest=use.guest,
        disk=use.disk,
        file=use.file,
        node=use.node,
        message=message,
        remedy=rule.remedy,
    )
