"""
Run the layouts on each release's QEMU and libvirt.

    python -m tests.matrix [--suite NAME]… [arguments for pytest]

Each release is installed first, if it is not there yet. Ends with 1 when a test failed anywhere,
or a release could not be installed or used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.matrix import namespaces, release, roots

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = "QMPSNAP_MATRIX"
_NONE_SELECTED: Final = 5
"""pytest's exit code; `-k` may leave nothing of one folder."""

_LIVE: Final = "tests/live/test_operations.py tests/live/test_headers.py"
_RUNS: Final = (
    ("tests/layouts", False),
    ("tests/layouts_libvirt", True),
    ("tests/matrix", True),
    (f"{_LIVE} tests/live/only_qmp/test_headers.py -m qemu", False),
    ("tests/live/only_qmp/test_raw_without_node.py", False),
    (f"{_LIVE} -m libvirt", True),
)
"""Tests, and whether they take the URI of the libvirtd."""


def main(arguments: list[str]) -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", allow_abbrev=False)
    parser.add_argument(
        "--suite",
        action="append",
        choices=["host", *roots.SUITES],
        help="only this one; repeatable",
    )
    options, for_pytest = parser.parse_known_args(arguments)
    if not namespaces.is_inside():
        try:
            return namespaces.enter(arguments)
        except namespaces.NoNamespaces as error:
            print(f"matrix: {error}", file=sys.stderr)
            return 1
    results = {suite: _run(suite, for_pytest) for suite in options.suite or ["host", *roots.SUITES]}
    for suite, result in results.items():
        print(f"matrix: {suite}: {result or 'passed'}")
    return 1 if any(results.values()) else 0


def _run(suite: str, for_pytest: list[str]) -> str | None:
    """Run all on one release; what went wrong, or None."""
    cache = Path(os.environ.get(_CACHE) or CHECKOUT / ".matrix").resolve()
    try:
        root = roots.ensure(suite, cache)
        # Not a temporary folder: were it cleared away, the host's QEMU would be tested instead.
        programs = cache / f"{suite}.bin"
        release.mount(root, CHECKOUT)
        release.write_programs(root, programs)
        with release.libvirtd(root) as uri:
            return _test(root, programs, uri, for_pytest)
    except (roots.RootError, release.DaemonError, subprocess.CalledProcessError) as error:
        return str(error)


def _test(root: roots.Root, programs: Path, uri: str, for_pytest: list[str]) -> str | None:
    failed = []
    for tests, takes_uri in _RUNS:
        print(f"matrix: {root.suite}: {tests}", flush=True)
        # An expected report is written by the tests that have one, so the options are for all.
        with_uri = [f"--libvirt-uri={uri}"] if takes_uri else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *tests.split(), *with_uri, *for_pytest],
            cwd=CHECKOUT,
            check=False,
            env=release.environment(programs),
        )
        if done.returncode not in (0, _NONE_SELECTED):
            failed.append(f"{tests} ended with {done.returncode}")
    return ", ".join(failed) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
