"""
The picture of the rooms: which package imports which, drawn from the imports themselves.

    docs/explanation/rooms.dot    what is drawn; compared with the code like every generated page
    docs/explanation/rooms.svg    the same, drawn by Graphviz's `dot`
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1] / "qmpsnap"
FOLDER: Final = Path(__file__).resolve().parent / "explanation"

HOLDS: Final = {
    "errors": "Refused, Failed, Unknown",
    "monitor": "talk to one QEMU",
    "graph": "nodes, edges, chains",
    "formats": "witnesses, verdicts",
    "operations": "plans, steps, their order",
    "guests": "who takes the steps",
    "journal": "what a crash must not lose",
    "status": "the body for Cinder",
    "service": "Nova's two calls",
    "delivery": "updates, until accepted",
    "ledger": "formats, states of snapshots",
    "by_name": "create, delete",
    "findings": "what is wrong",
    "hook": "libvirt's, before a start",
    "demo": "the story",
    "cli": "a module a command",
    "openstack": "plug-ins for Nova, Cinder",
}
"""Every room, lowest first, and what is in it."""
PURE: Final = {"errors", "graph", "formats", "operations", "status"}
"""Rooms that decide and do not act; `operations` has a clock in the loop."""


@cache
def imports() -> dict[str, frozenset[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        if not room.startswith("__"):
            found.setdefault(room, set()).update(set(_imported(path)) - {room})
    return {room: frozenset(others) for room, others in found.items()}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "qmpsnap":
            names = [f"qmpsnap.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("qmpsnap."))


def dot() -> str:
    """The drawing; an arrow that follows from two others is left out."""
    lines = [
        "digraph rooms {",
        "  rankdir=BT; nodesep=0.3; ranksep=0.45;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=11];',
        '  edge [color="#555555", arrowsize=0.7];',
    ]
    for room, holds in HOLDS.items():
        colour = "#e3f0e3" if room in PURE else "#f3ead8"
        lines.append(f'  "{room}" [label="{room}\\n{holds}", fillcolor="{colour}"];')
    for room in HOLDS:
        for other in sorted(_nearest(room)):
            lines.append(f'  "{room}" -> "{other}";')
    return "\n".join([*lines, "}", ""])


def _nearest(room: str) -> frozenset[str]:
    direct = imports()[room]
    further = {far for near in direct for far in _all_below(near)}
    return direct - further


def _all_below(room: str) -> frozenset[str]:
    direct = imports()[room]
    return direct.union(*(_all_below(other) for other in direct))


def draw() -> None:
    """
    Draw the picture.

    Raises:
        OSError, subprocess.CalledProcessError: Graphviz is missing, or failed.
    """
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=dot(), capture_output=True, text=True, check=True
    ).stdout
    (FOLDER / "rooms.svg").write_text(drawn, encoding="utf-8")
