"""
What one reading of a guest costs, beside XMLDesc and `qemu-img info --backing-chain`.

    python -m tests.bench            print the tables
    python -m tests.bench --write    write docs/reference/benchmarks.md as well

All figures of a row are taken in turns on the same guest; what counts is the ratios, and how a
column grows. It ends with an error when the number of round trips is not what is promised, or
the estimate of `graph/stall.py` is far from what was measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import direct, page, stalls, under_libvirt
from tests.bench.measure import CASES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "benchmarks.md"


def main() -> int:
    """Measure everything; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=5, help="readings of each kind a case")
    options = parser.parse_args()
    # Short: libvirt's folder may have 50 bytes.
    with tempfile.TemporaryDirectory(prefix="qb-", dir="/var/tmp") as folder:
        on_sockets = [direct.measure(Path(folder), case, options.rounds) for case in CASES]
        stopped = [
            stalls.measure(Path(folder), layers, options.rounds, relative=relative)
            for relative in (False, True)
            for layers in stalls.DEPTHS
        ]
        with_libvirt = under_libvirt.measure(Path(folder), CASES, options.rounds)
    text = page.render(on_sockets, with_libvirt, stopped, options.rounds)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    problems = page.broken_promises(on_sockets, with_libvirt, stopped)
    for problem in problems:
        print(f"not as promised: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
