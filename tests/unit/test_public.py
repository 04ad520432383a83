"""What `import qmpsnap` gives: every public name, and nothing before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import qmpsnap


@pytest.mark.parametrize("name", qmpsnap.__all__)
def test_public_name(name: str) -> None:
    assert getattr(qmpsnap, name) is getattr(qmpsnap, name)
    assert name in dir(qmpsnap)


def test_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'kreate'"):
        qmpsnap.kreate  # type: ignore[attr-defined]  # noqa: B018


def test_a_checker_of_types_finds_the_same() -> None:
    """The names stand twice: for it, and for the interpreter."""
    tree = ast.parse(Path(qmpsnap.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = {
        name: f"qmpsnap.{module}"
        for module, names in qmpsnap._HOME.items()
        for name in names.split()
    }
    assert told == found
    assert sorted(found) == sorted(qmpsnap.__all__)


def test_it_says_that_it_has_types() -> None:
    assert (files("qmpsnap") / "py.typed").is_file()


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = """
import sys
import qmpsnap
print(*sorted(name for name in sys.modules if name.startswith("qmpsnap.")))
qmpsnap.QmpsnapError
print(*sorted(name for name in sys.modules if name.startswith("qmpsnap.")))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["", "qmpsnap.errors"]


def test_the_library_does_not_load_the_command_line() -> None:
    code = """
import sys
import qmpsnap
for name in qmpsnap.__all__:
    getattr(qmpsnap, name)
print(*({"click", "rich", "yaml", "qmpsnap.cli", "libvirt"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "\n"
