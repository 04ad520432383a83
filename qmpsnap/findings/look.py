"""Look at one guest for findings; reads only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from qmpsnap.findings import finding as rules
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.findings.host_files import file_facts
from qmpsnap.findings.interrupted import interrupted
from qmpsnap.findings.one_guest import one_guest, with_flags
from qmpsnap.formats.layers import Disks
from qmpsnap.graph.chain import ChainLoop

AGAIN_S: Final = 0.2
"""Seconds before a finding is looked for again. libvirt's XML lags a pivot by up to 19 ms."""


def look(
    read: Callable[[], Disks], *, name: str | None, live: bool = True, host: str = ""
) -> tuple[Seen, tuple[Finding, ...]]:
    """
    Read a guest and find what is wrong with it.

    A chain and its headers cannot be read in one moment, and snapshots go on meanwhile, so what
    was found is looked for again; only what is found twice counts.

    Args:
        read: Reads the guest afresh.
        name: What to call a guest that has no name.
        live: False for a recording: it has no files, and a second look finds the same.
        host: Where the guest runs; empty for this host, whose files can be looked at.

    Raises:
        QmpsnapError: What `read` raises, but for `ChainLoop`, which is a finding.
    """
    seen, found = _once(read, name, live, host)
    if found and live:
        time.sleep(AGAIN_S)
        seen, again = _once(read, name, live, host)
        found = tuple(one for one in again if one in found)
    return seen, found


def _once(
    read: Callable[[], Disks], name: str | None, live: bool, host: str
) -> tuple[Seen, tuple[Finding, ...]]:
    try:
        report = read()
    except ChainLoop as error:
        found = Finding(
            rule=rules.CHAIN_LOOP,
            guest=name,
            node=error.node,
            message=str(error),
            remedy=rules.CHAIN_LOOP.remedy,
        )
        return Seen(guest=name, report=Disks(guest=name, disks=())), (found,)
    files = file_facts(report) if live and not host else {}
    guest = report.guest or name
    seen = Seen(guest=guest, report=with_flags(report, files), files=files, host=host)
    problems = one_guest(seen)
    return seen, (*problems, *interrupted(seen)) if live and not host else problems
