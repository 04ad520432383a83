"""Tables; where one does not fit, a block for each row, so that no name is torn. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from qmpsnap.cli.text import INDENT, cells, fold, printable

_GAP = "  "
_EMPTY = ("", "-")
_CODES = {"bold": "1", "dim": "2", "bold red": "1;31", "yellow": "33"}


class Screen(NamedTuple):
    """What stdout can show."""

    width: int | None
    """Columns of a terminal; None in a pipe, where a row stays one line however long it is."""
    encoding: str = "utf-8"
    styled: bool = False
    """Whether it knows bold type and colours."""
    plain: bool = False
    """Whether nothing but ASCII is to be drawn with; names are shown where `encoding` has them."""

    def paint(self, text: str, style: str) -> str:
        """A text in a style, where there are styles."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.styled and text else text


class Table:
    """
    A plain table, cells escaped; None is shown as `-`.

    Args:
        columns: Headers.
        rows: As many cells each.
        title: Stands above.
        remarks: Lines below.
        heading: How many cells of a row are the heading of its block, where it has to be one.
        prose: Columns that may be folded between words there; names are not.
        labelled: Whether the others are named there, one a line; or else all on one line.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str = "",
        remarks: Iterable[str] = (),
        heading: int = 1,
        prose: Collection[str] = ("",),
        labelled: bool = True,
    ) -> None:
        self._columns = columns
        self._rows = [[printable("-" if cell is None else cell) for cell in row] for row in rows]
        self._title = printable(title)
        self._remarks = [printable(one) for one in remarks]
        self._heading = heading
        self._prose = prose
        self._labelled = labelled

    def lines(self, screen: Screen) -> Iterator[str]:
        """Lay it out."""
        for line in fold(self._title, screen.width) if self._title else ():
            yield screen.paint(line, "bold")
        if self.fits(screen):
            widths = self._widths()
            yield screen.paint(_row(self._columns, widths), "dim")
            yield from (_row(row, widths) for row in self._rows)
        else:
            for row in self._rows:
                yield from self._block(row, screen)
        for remark in self._remarks:
            yield from fold(remark, screen.width)

    def fits(self, screen: Screen) -> bool:
        """Whether it is a table there, and not blocks."""
        widths = self._widths()
        total = sum(widths) + len(_GAP) * (len(widths) - 1)
        return screen.width is None or total <= screen.width

    def _widths(self) -> list[int]:
        return [
            max(cells(row[number]) for row in (self._columns, *self._rows))
            for number in range(len(self._columns))
        ]

    def _block(self, row: Sequence[str], screen: Screen) -> Iterator[str]:
        yield screen.paint(_GAP.join(row[: self._heading]), "bold")
        if not self._labelled:
            others = ", ".join(cell for cell in row[self._heading :] if cell not in _EMPTY)
            yield from fold(others, screen.width, INDENT)
            return
        columns = self._columns[self._heading :]
        room = max(map(cells, columns)) + len(_GAP)
        for column, cell in zip(columns, row[self._heading :], strict=True):
            if cell in _EMPTY:
                continue
            width = screen.width if column in self._prose else None
            label = screen.paint(column.lower(), "dim")
            beside = fold(cell, width, INDENT + " " * room)
            if not column:
                yield from fold(cell, width, INDENT)
            elif max(map(cells, beside)) > (screen.width or 0):
                yield INDENT + label
                yield from fold(cell, width, 2 * INDENT)
            else:
                yield (
                    INDENT + label + " " * (room - cells(column)) + beside[0][len(INDENT) + room :]
                )
                yield from beside[1:]


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True))
    return _GAP.join(padded).rstrip()
