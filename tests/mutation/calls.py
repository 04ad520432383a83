"""
Which tests call which function of the product: a plugin for pytest.

    pytest -p tests.mutation.calls --calls calls.json tests/unit
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType

import pytest


class _Calls:
    """Asks the interpreter to tell of every call; of lines it is not told."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tests: defaultdict[CodeType, set[str]] = defaultdict(set)
        self._all: set[str] = set()
        self._now = ""

    def trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        """See `sys.settrace`."""
        self._tests[frame.f_code].add(self._now)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._now = item.nodeid.partition("[")[0]
        self._all.add(self._now)
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self._now = ""

    def pytest_unconfigure(self) -> None:
        """By file and function; and all."""
        product = f"{Path.cwd()}/qmpsnap/"
        found: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
        for code, tests in self._tests.items():
            if code.co_filename.startswith(product) and (those := tests - {""}):
                name = Path(code.co_filename).relative_to(Path.cwd()).as_posix()
                of_file = found[name]
                known = of_file.get(code.co_qualname, [])
                of_file[code.co_qualname] = sorted({*known, *those})
        self._file.write_text(json.dumps({**found, "": {"": sorted(self._all)}}))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the result goes."""
    parser.addoption("--calls", help="file for what was called by which test")


def pytest_configure(config: pytest.Config) -> None:
    """Put it in."""
    config.pluginmanager.register(_Calls(Path(config.getoption("--calls"))))
