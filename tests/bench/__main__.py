"""
What a reading of a guest costs, and what an operation.

    python -m tests.bench                     a reading beside XMLDesc and `qemu-img info`
    python -m tests.bench readings            a reading beside its bare queries
    python -m tests.bench operations          an operation beside the bare job, and virsh
    python -m tests.bench journal             an operation with the journal, and without
    python -m tests.bench shares              `orphans` on a share of up to 10,000 files
    python -m tests.bench openstack           Nova and Cinder, ours beside stock (.tox/openstack)
    python -m tests.bench […] --write         write the page in docs/reference as well

All figures of a row are taken in turns on the same guest; what counts is the ratios, and how a
column grows. The first one ends with an error when the number of round trips is not what is
promised, or the estimate of `graph/stall.py` is far from what was measured.

On a machine that has other work, `chrt --rr 3` before it keeps that out of the figures; not of those
of `openstack`: libvirtd cannot start a guest then (`Invalid value for 'tasks'`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.bench import (
    direct,
    freezes,
    journals,
    operations,
    operations_page,
    page,
    parts,
    readings,
    readings_page,
    shares,
    stalls,
    starts,
    under_libvirt,
)
from tests.bench.measure import CASES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
WITH_NOVA = ROOT / ".tox/openstack/bin/python"


def main() -> int:
    """Measure everything; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = ("costs", "readings", "operations", "journal", "shares", "openstack")
    parser.add_argument("what", nargs="?", choices=choices, default="costs")
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--rounds", type=int, help="times that each thing is done")
    options = parser.parse_args()
    # Short: libvirt's folder may have 50 bytes.
    with tempfile.TemporaryDirectory(prefix="qb-", dir="/var/tmp") as folder:
        match options.what:
            case "readings":
                return _readings(Path(folder), options.rounds or 30, write=options.write)
            case "operations":
                return _operations(Path(folder), options.rounds or 15, write=options.write)
            case "journal":
                return _journal(Path(folder), options.rounds or 15, write=options.write)
            case "openstack":
                return _openstack(options.rounds or 5, write=options.write)
            case "shares":
                return _shares(options.rounds or 3, write=options.write)
            case _:
                return _costs(Path(folder), options.rounds or 5, write=options.write)


def _readings(folder: Path, rounds: int, *, write: bool) -> int:
    rows = readings.measure(folder, rounds)
    _show(readings_page.render(rows, rounds), "benchmarks-readings.md", write=write)
    return 0


def _operations(folder: Path, rounds: int, *, write: bool) -> int:
    few = max(3, rounds // 2)
    started = starts.measure(rounds)
    frozen = [freezes.measure(folder, disks, few) for disks in freezes.DISKS]
    rows = [*operations.measure(folder, rounds, few)]
    spent = [*parts.measure(folder, few)]
    text = operations_page.render(rows, spent, frozen, started, rounds, few)
    _show(text, "benchmarks-operations.md", write=write)
    return 0


def _journal(folder: Path, rounds: int, *, write: bool) -> int:
    rows = [*journals.measure(folder, rounds)]
    _show(journals.render(rows, rounds), "benchmarks-journal.md", write=write)
    return 0


def _openstack(rounds: int, *, write: bool) -> int:
    if find_spec("nova") is None:
        if not WITH_NOVA.exists():
            print(f"Nova and Cinder are missing; make {WITH_NOVA}: tox run -e openstack --notest")
            return 1
        os.execv(WITH_NOVA, [str(WITH_NOVA), "-m", "tests.bench", *sys.argv[1:]])
    from docs.openstack_figures import RESULTS, render
    from tests.bench import openstack

    results = openstack.measure(rounds)
    if write:
        text = json.dumps(results, indent=1, ensure_ascii=False)
        RESULTS.write_text(f"{text}\n", encoding="utf-8")
    _show(render(results), "benchmarks-openstack.md", write=write)
    return 0


def _shares(rounds: int, *, write: bool) -> int:
    rows = [*shares.measure(rounds)]
    _show(shares.render(rows, rounds), "benchmarks-shares.md", write=write)
    wrong = sum(row.wrong for row in rows)
    if wrong:
        print(f"not as promised: {wrong} files are not told as they are", file=sys.stderr)
    return 1 if wrong else 0


def _costs(folder: Path, rounds: int, *, write: bool) -> int:
    on_sockets = [direct.measure(folder, case, rounds) for case in CASES]
    stopped = [
        stalls.measure(folder, layers, rounds, relative=relative)
        for relative in (False, True)
        for layers in stalls.DEPTHS
    ]
    with_libvirt = under_libvirt.measure(folder, CASES, rounds)
    text = page.render(on_sockets, with_libvirt, stopped, rounds)
    _show(text, "benchmarks.md", write=write)
    problems = page.broken_promises(on_sockets, with_libvirt, stopped)
    for problem in problems:
        print(f"not as promised: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _show(text: str, page: str, *, write: bool) -> None:
    print(text)
    if write:
        (FOLDER / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
