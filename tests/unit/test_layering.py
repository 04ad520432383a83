"""A package imports only what stands before it (CONTRIBUTING.md, "Where code goes")."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import qmpsnap
from qmpsnap.errors import QmpsnapError

ROOT = Path(qmpsnap.__file__).parent
ORDER = (
    "errors",
    "monitor",
    "graph",
    "formats",
    "operations",
    "guests",
    "journal",
    "status",
    "by_name",
    "service",
    "delivery",
    "ledger",
    "findings",
    "hook",
    "demo",
    "cli",
    "openstack",
)
PURE = ("errors", "graph", "formats", "findings", "status", "operations")
"""What decides: no sockets, processes, threads, files or clocks in here."""
WAITS = {
    "findings/look.py",
    "operations/fresh.py",
    "operations/job/loop.py",
    "operations/job/verbs.py",
}
"""Modules of these that look again after a while."""
COMPOSERS = ("steps.py", "names.py", "leftovers.py", "definition.py")
"""Modules of `guests` that put acts together and ask nobody."""
DECIDES = ("chain.py", "exchange.py", "judge.py", "machine.py", "values.py")
"""Modules of `ledger` that know nothing of databases."""
IMPURE = {
    "asyncio",
    "multiprocessing",
    "queue",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "libvirt",
    "qemu",
    "sqlalchemy",
}
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").parts[0]


@cache
def imports(file: Path) -> frozenset[str]:
    """Full names of all imported modules, also inside functions."""
    return frozenset(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(file: Path) -> set[str]:
    """Packages of ours that a file imports."""
    return {name.split(".")[1] for name in imports(file) if name.startswith("qmpsnap.")}


def test_every_package_has_its_place() -> None:
    assert {package_of(file) for file in FILES} - {"__init__", "__main__"} == {*ORDER}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_imports_point_one_way(file: Path) -> None:
    package = package_of(file)
    if package == "__main__":
        return
    if package == "__init__":  # the public names
        assert own_imports(file).isdisjoint({"cli", "demo"})
        return
    allowed = {*ORDER[: ORDER.index(package) + 1]} if package in ORDER else set()
    assert own_imports(file) <= allowed


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_the_command_line_imports_the_demo(file: Path) -> None:
    if package_of(file) not in ("demo", "cli"):
        assert "demo" not in own_imports(file)


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in FILES
        if package_of(file) in PURE
        or (package_of(file) == "guests" and file.name in COMPOSERS)
        or (package_of(file) == "ledger" and file.parent.name == "ledger" and file.name in DECIDES)
    ],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_what_decides_touches_nothing(file: Path) -> None:
    waits = {"time"} if str(file.relative_to(ROOT)) in WAITS else set()
    assert {name.split(".")[0] for name in imports(file)} & IMPURE == waits


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_decides_knows_the_errors_of_the_monitor_and_nothing_else_of_it(file: Path) -> None:
    if package_of(file) in PURE:
        from_monitor = {name for name in imports(file) if name.startswith("qmpsnap.monitor")}
        errors = {name for name in from_monitor if isinstance(_named(name), type)}
        assert from_monitor == errors
        assert all(issubclass(_named(name), QmpsnapError) for name in errors)


def _named(name: str) -> type:
    module, _, member = name.rpartition(".")
    found: type = getattr(importlib.import_module(module), member)
    return found


@pytest.mark.parametrize(
    ("library", "module"),
    [("qemu", "monitor/socket.py"), ("asyncio", "monitor/socket.py")],
)
def test_confined_to_one_module(library: str, module: str) -> None:
    users = {
        str(file.relative_to(ROOT))
        for file in FILES
        if package_of(file) != "demo"
        and any(name.split(".")[0] == library for name in imports(file))
    }
    assert users == {module}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_libvirt_is_imported_by_name_only_where_it_is_needed(file: Path) -> None:
    """It is an extra, and may not be installed: `monitor/virt.py` asks for it at run time."""
    assert not {"libvirt", "libvirt_qemu"} & {name.split(".")[0] for name in imports(file)}
