"""
What a reading of a guest costs.

    python -m tests.bench                     beside XMLDesc and `qemu-img info --backing-chain`
    python -m tests.bench readings            beside its bare queries
    python -m tests.bench [readings] --write  write the page in docs/reference as well

All figures of a row are taken in turns on the same guest; what counts is the ratios, and how a
column grows. The first one ends with an error when the number of round trips is not what is
promised, or the estimate of `graph/stall.py` is far from what was measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import direct, page, readings, readings_page, stalls, under_libvirt
from tests.bench.measure import CASES

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def main() -> int:
    """Measure everything; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("costs", "readings"), default="costs")
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--rounds", type=int, help="readings of each kind a case")
    options = parser.parse_args()
    if options.what == "readings":
        return _readings(options.rounds or 30, write=options.write)
    return _costs(options.rounds or 5, write=options.write)


def _readings(rounds: int, *, write: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="qb-", dir="/var/tmp") as folder:
        rows = readings.measure(Path(folder), rounds)
    _show(readings_page.render(rows, rounds), "benchmarks-readings.md", write=write)
    return 0


def _show(text: str, page: str, *, write: bool) -> None:
    print(text)
    if write:
        (FOLDER / page).write_text(text, encoding="utf-8")


def _costs(rounds: int, *, write: bool) -> int:
    # Short: libvirt's folder may have 50 bytes.
    with tempfile.TemporaryDirectory(prefix="qb-", dir="/var/tmp") as folder:
        on_sockets = [direct.measure(Path(folder), case, rounds) for case in CASES]
        stopped = [
            stalls.measure(Path(folder), layers, rounds, relative=relative)
            for relative in (False, True)
            for layers in stalls.DEPTHS
        ]
        with_libvirt = under_libvirt.measure(Path(folder), CASES, rounds)
    text = page.render(on_sockets, with_libvirt, stopped, rounds)
    _show(text, "benchmarks.md", write=write)
    problems = page.broken_promises(on_sockets, with_libvirt, stopped)
    for problem in problems:
        print(f"not as promised: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
