"""
What people and programs see: results on stdout, everything else on stderr.

Names come from guests, headers and other people's XML, so text for a terminal is escaped first;
JSON and YAML escape by themselves.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TypeVar

import click
import yaml
from rich.console import Console, RenderableType
from rich.table import Table

from qmpsnap.errors import Failed, QmpsnapError

F = TypeVar("F", bound=Callable[..., Any])

PIPE_WIDTH: Final = 10_000
"""Columns of a table that goes into a pipe: never folded, so that one row stays one line."""


class Format(StrEnum):
    """Values of `--output`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Drawing(StrEnum):
    """Values of `--output` where there is something to draw."""

    DOT = "dot"
    SVG = "svg"


def output_option(function: F) -> F:
    """Add `-o`/`--output` to a command."""
    return _output(Format)(function)


def drawing_option(function: F) -> F:
    """Add `-o`/`--output` to a command that can draw its result as well."""
    return _output((*Format, *Drawing))(function)


def _output(values: Iterable[StrEnum]) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice([one.value for one in values]),
        default=Format.TABLE.value,
        show_default=True,
        help="How to print the result.",
    )


class CannotPrint(Failed):
    """The result is there, and cannot be written where stdout goes."""

    msg = "the result cannot be printed: {self.reason}"
    remedy = (
        "A command that changes something has done it all the same; `qmpsnap chain` shows the "
        "guest as it is."
    )
    changed = "unknown"

    reason: str


def printable(text: object) -> str:
    """
    Escape control characters (terminal escapes, newlines) and bytes that are not UTF-8.

    And the backslash, or a name with an escape written out would look like one with that byte.
    """
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
        if not 0xDC80 <= ord(character) <= 0xDCFF
        else f"\\x{ord(character) - 0xDC00:02x}"
        for character in str(text)
    )


def console(*, stderr: bool = False) -> Console:
    """A console that reads no markup or `:emoji:` in names, and does not fold lines in a pipe."""
    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else PIPE_WIDTH
    return Console(
        file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A plain table, cells escaped."""
    result = Table(
        *columns,
        title=printable(title) or None,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        pad_edge=False,
    )
    for column in result.columns:
        column.overflow = "fold"
    for row in rows:
        result.add_row(*(printable("-" if cell is None else cell) for cell in row))
    return result


def show(
    document: Mapping[str, object], output: str, as_table: Callable[[], RenderableType]
) -> None:
    """Print a result in the format asked for."""
    match Format(output):
        case Format.JSON:
            write(json.dumps(document, indent=2))
        case Format.YAML:
            write(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=False), nl=False)
        case Format.TABLE:
            show_text(as_table())


def show_text(what: RenderableType) -> None:
    """Print something for people on stdout, without the padding at the end of lines."""
    out = console()
    with _writing(), out.capture() as captured:  # it writes nothing, and flushes
        out.print(what)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def write(text: str, *, nl: bool = True) -> None:
    """
    Print a result on stdout.

    Raises:
        CannotPrint: There is no space where it goes, or the like.
        BrokenPipeError: Nobody reads it.
    """
    with _writing():
        click.echo(text, nl=nl)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # Or Python tries again at exit, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotPrint(error.strerror or str(error)) from error


def say(text: str) -> None:
    """A message for people, on stderr."""
    click.echo(printable(text), err=True)


def complain(error: QmpsnapError, output: str | None) -> None:
    """Say what went wrong, whether anything changed, and what to do; JSON where asked for."""
    if output in (Format.JSON, Format.YAML):
        problem = {
            "schema": "qmpsnap.error/1",
            "error": error.id,
            "message": str(error),
            "changed": error.changed,
            "remedy": error.way_out,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps(problem), err=True)
        return
    click.echo(f"qmpsnap: {printable(error)}", err=True)
    if error.way_out:
        click.echo(f"  {printable(error.way_out)}", err=True)
