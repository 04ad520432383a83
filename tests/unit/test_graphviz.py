"""Graphviz's program, or what stands in its place: missing, failing, never ending."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.cli.drawing import graphviz
from qmpsnap.cli.drawing.graphviz import GraphvizFailed, GraphvizMissing, svg


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; `dot` is to be made in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "dot"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_missing(program: Path) -> None:
    with pytest.raises(GraphvizMissing) as caught:
        svg("digraph {}")
    assert "graphviz" in caught.value.way_out


def test_reads_stdin_and_writes_stdout(program: Path) -> None:
    script(program, 'read -r line; echo "$1 $line"')
    assert svg("digraph ä {}\n") == "-Tsvg digraph ä {}\n"


def test_failure_says_what_dot_said(program: Path) -> None:
    script(program, "echo 'Error: syntax error in line 1' >&2; exit 1")
    with pytest.raises(GraphvizFailed, match="syntax error in line 1"):
        svg("digraph {")


def test_failure_without_a_word(program: Path) -> None:
    script(program, "exit 3")
    with pytest.raises(GraphvizFailed, match="exit code 3"):
        svg("digraph {}")


def test_not_a_program(program: Path) -> None:
    program.write_bytes(b"")
    program.chmod(0o755)
    with pytest.raises(GraphvizFailed):
        svg("digraph {}")


def test_one_that_does_not_end(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(program, "exec /bin/sleep 60")
    monkeypatch.setattr(graphviz, "TIMEOUT_S", 0.2)
    with pytest.raises(GraphvizFailed, match=r"0\.2 s"):
        svg("digraph {}")
