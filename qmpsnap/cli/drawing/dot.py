"""
Graphviz's DOT language, as far as pictures of chains need it. Pure.

Ids are made here and never come from a guest. Names stand in quoted strings only, so that no name
can become an attribute, a statement or one of the HTML-like labels (`label=<…>`).

Source: graphviz.org/doc/info/lang.html; the escapes of a label: shapes.html and `escString`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from qmpsnap.cli.text import printable

NAME_LIMIT: Final = 56
"""Characters of one line of a label; a longer one loses its middle."""

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;"})
"""A label takes `\\N` for the node's id and `&lt;` for `<`, in quoted strings too."""


def text(lines: Iterable[str], *, limit: int = NAME_LIMIT) -> str:
    """A quoted string that is shown as these lines, whatever is in them."""
    shown = (printable(line) for line in lines)
    joined = r"\n".join(shortened(line, limit).translate(_ESCAPES) for line in shown)
    return f'"{joined}"'


def shortened(line: str, limit: int) -> str:
    """The line itself, or its two ends: names differ at the end more often than in the middle."""
    if len(line) <= limit:
        return line
    kept = limit - 1
    return f"{line[: kept // 2]}…{line[len(line) - (kept - kept // 2) :]}"


def attributes(**values: str) -> str:
    """`[key=value, …]`; values are quoted already, or words of DOT."""
    return f"[{', '.join(f'{key}={value}' for key, value in values.items())}]"


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A frame with a title, and the statements in it."""

    title: str
    color: str
    statements: list[str] = field(default_factory=list)


def document(
    title: Iterable[str],
    defaults: Iterable[str],
    clusters: Iterable[Cluster],
    statements: Iterable[str],
) -> str:
    """A whole directed graph: what is outside of all clusters stands first."""
    lines = ["digraph chain {", f"  graph {attributes(label=text(title), labelloc='t')};"]
    lines += [f"  {one};" for one in defaults]
    for number, cluster in enumerate(one for one in clusters if one.statements):
        lines += _cluster(number, cluster)
    lines += [f"  {one};" for one in statements]
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(number: int, cluster: Cluster) -> Iterator[str]:
    yield f"  subgraph cluster_{number} {{"
    look = attributes(label=text([cluster.title]), color=f'"{cluster.color}"', labelloc="b")
    yield f"    graph {look};"
    yield from (f"    {one};" for one in cluster.statements)
    yield "  }"
