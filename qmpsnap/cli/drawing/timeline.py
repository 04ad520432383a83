"""The history as a picture: a row a disk, a bar an operation, from its beginning to its end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from qmpsnap.cli.units import moment
from qmpsnap.journal.record import Entry

_COLOURS: Final = {
    "finished": "#3a7d44",
    "rolled-back": "#8a8a8a",
    "nothing-to-do": "#8a8a8a",
    "failed": "#b3261e",
    "open": "#e08600",
}
_LEFT: Final = 180
_WIDTH: Final = 900
_ROW: Final = 34
_TOP: Final = 40
_LONGEST: Final = 26
"""Characters of a label."""
_NARROW: Final = 3.0
"""Pixels that the shortest bar has."""


def timeline(entries: Sequence[Entry], now: float) -> str:
    """
    Draw operations as SVG.

    Args:
        entries: What is drawn.
        now: Seconds after 1970; the end of what is open.
    """
    lanes = {lane: None for entry in entries for lane in _lanes(entry)}
    rows = {lane: number for number, lane in enumerate(sorted(lanes))}
    first = min((_begun(entry, now) for entry in entries), default=now)
    last = max((_end(entry, now) for entry in entries), default=now)
    scale = (_WIDTH - _LEFT - 20) / max(last - first, 1.0)
    height = _TOP + _ROW * max(len(rows), 1) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 20, _moment(first)),
        _text(_WIDTH - 20, 20, _moment(last), anchor="end"),
    ]
    for lane, row in rows.items():
        y = _TOP + _ROW * row
        lines.append(_text(_LEFT - 10, y + 18, _short(" ".join(lane)), anchor="end"))
        lines.append(
            f'<line x1="{_LEFT}" y1="{y + 28}" x2="{_WIDTH - 20}" y2="{y + 28}" stroke="#dddddd"/>'
        )
    for entry in entries:
        begun = _begun(entry, now)
        x = _LEFT + (begun - first) * scale
        width = max((_end(entry, now) - begun) * scale, _NARROW)
        for lane in _lanes(entry):
            lines.append(_bar(entry, x, _TOP + _ROW * rows[lane] + 4, width))
    x = _LEFT
    for word, colour in _COLOURS.items():
        lines.append(f'<rect x="{x}" y="{height - 20}" width="10" height="10" fill="{colour}"/>')
        lines.append(_text(x + 14, height - 11, word))
        x += 120
    return "\n".join([*lines, "</svg>", ""])


def _lanes(entry: Entry) -> list[tuple[str, str]]:
    record = entry.record
    return [(record.guest or record.where.at, disk) for disk in record.disks]


def _begun(entry: Entry, now: float) -> float:
    """In a marker of somebody else it may have been any number; one that is no time is drawn now."""
    return now if moment(entry.record.begun) is None else entry.record.begun


def _end(entry: Entry, now: float) -> float:
    end = now if entry.conclusion is None else entry.conclusion.ended
    return max(end, _begun(entry, now))  # a clock may have been set back


def _bar(entry: Entry, x: float, y: int, width: float) -> str:
    outcome = "open" if entry.conclusion is None else entry.conclusion.outcome
    said = f"{entry.record.kind} {entry.record.id}: {outcome}, {_moment(entry.record.begun)}"
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" rx="2" '
        f'fill="{_COLOURS[outcome]}"><title>{escape(_plain(said))}</title></rect>'
    )


def _text(x: float, y: int, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(_plain(text))}</text>'


def _short(label: str) -> str:
    """The end of a name that is too long to stand beside its row: of a path, that tells most."""
    return label if len(label) <= _LONGEST else f"…{label[1 - _LONGEST :]}"


def _plain(text: str) -> str:
    """Without what XML cannot hold: names come from guests and other people's definitions."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _moment(seconds: float) -> str:
    found = moment(seconds)
    return "?" if found is None else found.replace("T", " ").replace("Z", " UTC")
