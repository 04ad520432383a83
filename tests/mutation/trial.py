"""
One mutant and the tests that call it, in a process of its own.

Each is forked from a process that has imported pytest and the libraries, and nothing of the
project: that saves most of a start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.mutation.mutants import Mutant

HANG_S: Final = 900.0
"""Seconds after which a mutant hangs, which is as good as a failure."""
ONE_TEST_S: Final = 120
"""The same for one test; none takes more than some seconds."""
UNTOUCHED: Final = 1_000_000_000
"""Time of change of every file that is not mutated: what Python has compiled of them stays good."""


_ALWAYS: Final = (
    *("-q", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-o", f"timeout={ONE_TEST_S}"),
    *("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"),
)


class _Only:
    """A plugin: run these tests alone."""

    def __init__(self, tests: Collection[str]) -> None:
        self._tests = tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid.partition("[")[0] in self._tests]


def passes(
    arguments: Sequence[str], plugins: Sequence[object] = (), *, shown: bool = False
) -> bool:
    """Run pytest in a child; its output goes nowhere, unless it is to be shown."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in () if shown else range(3):
                os.dup2(nowhere, number)
            sys.dont_write_bytecode = "--calls" not in arguments
            words = [*_ALWAYS, *arguments]
            os._exit(int(pytest.main(words, list(plugins))))
        os._exit(99)
    end = time.monotonic() + HANG_S
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) in (0, 5)  # 5: no test was left
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.02)


def survives(file: Path, mutant: Mutant, stages: Sequence[Collection[str]]) -> bool:
    """
    Whether no test sees a mutant.

    Args:
        file: In a copy of the project, which is the working directory.
        mutant: The change.
        stages: Tests that may see it, those first that are likely to.
    """
    source = file.read_bytes()
    file.write_bytes(source[: mutant.start] + mutant.new + source[mutant.end :])
    try:
        return all(
            passes(sorted({test.partition("::")[0] for test in tests}), [_Only(set(tests))])
            for tests in stages
            if tests
        )
    finally:
        file.write_bytes(source)
        os.utime(file, (UNTOUCHED, UNTOUCHED))
