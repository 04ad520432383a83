"""
Pictures of recorded guests, and what stands in a picture.

`drawn/NAME.dot` is what `chain --output dot` prints of the recording NAME. To write them anew:
`python -m tests.unit.drawings`; then look at them (`dot -Tpng -O tests/unit/drawn/*.dot`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qmpsnap.cli.drawing.picture import picture
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.layers import Disks
from qmpsnap.graph import xml
from tests.unit import recordings

FOLDER: Final = Path(__file__).parent / "drawn"
DRAWN: Final = ("two-disks", "commit-running", "libvirt-mirror", "data-file", "quorum")

STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
"""A quoted string of DOT; a backslash takes the next character with it."""

_FRAME: Final = re.compile(rf"    graph \[label=({STRING.pattern})")
_BOX: Final = re.compile(rf"\s+(\w+) \[label=({STRING.pattern})(.*)\];$")
_EDGE: Final = re.compile(r"\s+(\w+) -> (\w+)(.*);$")


def report(name: str) -> Disks:
    """The report of one recording."""
    domain = xml.parse(recordings.xml(name)) if name.startswith("libvirt") else None
    return guest_from_graph(recordings.graph(name), guest=name, domain=domain)


def drawing(name: str) -> str:
    """The picture of all disks of one recording."""
    made = report(name)
    return picture(made, made.disks)


@dataclass
class Drawn:
    """A picture taken apart, line by line: one line is one statement."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    """Lines of text by id."""
    looks: dict[str, str] = field(default_factory=dict)
    frames: dict[str, list[str]] = field(default_factory=dict)
    """Ids by the title of the frame they stand in."""
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    """Parent, child and attributes."""

    def id(self, line: str) -> str:
        """The one box in which this line of text stands."""
        (found,) = (one for one, lines in self.labels.items() if line in lines)
        return found

    def below(self, line: str) -> set[str]:
        """First lines of the boxes to which an arrow leads from the one with this line."""
        return {self.labels[child][0] for parent, child, _ in self.edges if parent == self.id(line)}


def taken_apart(dot: str) -> Drawn:
    """Read back what `picture()` wrote."""
    found, frame = Drawn(), None
    for line in dot.splitlines():
        if match := _EDGE.match(line):
            found.edges.append((match[1], match[2], match[3]))
        elif match := _FRAME.match(line):
            frame = found.frames.setdefault(lines_of(match[1])[0], [])
        elif line == "  }":
            frame = None
        elif match := _BOX.match(line):
            if match[1] == "graph":
                continue
            assert match[1] not in found.labels, "drawn twice"
            found.labels[match[1]] = lines_of(match[2])
            found.looks[match[1]] = match[3]
            if frame is not None:
                frame.append(match[1])
    return found


def lines_of(quoted: str) -> list[str]:
    """The lines that Graphviz shows of a quoted string."""
    lines = re.split(r"(?<!\\)(?:\\\\)*\\n", quoted[1:-1])
    return [re.sub(r"\\(.)", r"\1", line).replace("&amp;", "&") for line in lines]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in DRAWN:
        (FOLDER / f"{one}.dot").write_text(drawing(one), encoding="utf-8")
