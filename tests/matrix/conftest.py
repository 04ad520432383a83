"""The libvirtd that `python -m tests.matrix` has started; without one there is nothing to test."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from typing import Any

import pytest

from qmpsnap.cli.main import run
from qmpsnap.monitor.virt import open_connection
from tests.rig.rig import Said


@pytest.fixture(scope="session")
def uri(pytestconfig: pytest.Config) -> str:
    """Of a libvirtd of our own."""
    uri = pytestconfig.getoption("--libvirt-uri")
    if uri is None:
        pytest.skip("run by tox -e matrix, which starts a libvirtd")
    return str(uri)


@pytest.fixture(scope="session")
def connection(uri: str) -> Iterator[Any]:
    """With all rights."""
    with closing(open_connection(uri)) as connection:
        yield connection


@pytest.fixture
def cli(uri: str) -> Callable[..., Said]:
    """`cli(command, …, uri=…)`: run the command line in this process."""

    def call(*arguments: str, uri: str = uri) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run(["--connect", uri, *arguments])
        return Said(code, out.getvalue(), err.getvalue())

    return call
