"""
What people and programs see: results on stdout, everything else on stderr.

Names come from guests, headers and other people's XML, so text for a terminal is escaped first;
JSON and YAML escape by themselves.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, Final, TypeVar

import click

from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import encodes, printable
from qmpsnap.errors import Failed, QmpsnapError

F = TypeVar("F", bound=Callable[..., Any])

_DUMB: Final = ("dumb", "unknown")

View = Callable[[Screen], Iterable[str | Table]]
"""Something for people: tables, and lines that fit the screen."""

QUIET: Final = "qmpsnap.cli.quiet"
"""Key of `-q` among what a click context knows."""
LOG_JSON: Final = "qmpsnap.cli.log_json"
"""The same of `--log-json`."""


class Format(StrEnum):
    """Values of `--output`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Rows(StrEnum):
    """Values of `--output` where there are rows."""

    CSV = "csv"


class Drawing(StrEnum):
    """Values of `--output` where there is something to draw."""

    DOT = "dot"
    SVG = "svg"


def output_option(function: F) -> F:
    """Add `-o`/`--output` to a command."""
    return _output(Format)(function)


def rows_option(function: F) -> F:
    """Add `-o`/`--output` to a command whose result is rows."""
    return _output((*Format, *Rows))(function)


def timeline_option(function: F) -> F:
    """Add `-o`/`--output` to a command that can draw its result over time."""
    return _output((*Format, *Rows, Drawing.SVG))(function)


def drawing_option(function: F) -> F:
    """Add `-o`/`--output` to a command that can draw its result as well."""
    return _output((*Format, *Rows, *Drawing))(function)


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
    """There is a result, but it cannot be written to standard output."""

    msg = "the result cannot be printed: {self.reason}"
    remedy = (
        "A command that changes something has done it all the same; `qmpsnap chain` shows the "
        "guest as it is."
    )
    changed = "unknown"

    reason: str


def screen() -> Screen:
    """What stdout can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = _locale() in ("C", "POSIX") or not encodes("└", encoding)
    if not sys.stdout.isatty():
        return Screen(width=None, encoding=encoding, plain=plain)
    import shutil

    return Screen(
        width=shutil.get_terminal_size().columns,
        encoding=encoding,
        styled=not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in _DUMB,
        plain=plain,
    )


def _locale() -> str:
    """The locale of characters; Python says UTF-8 in the C locale, and sets LC_CTYPE (PEP 538)."""
    ctype = os.environ.get("LC_CTYPE", "")
    return (
        os.environ.get("LC_ALL")
        or (ctype if ctype != "C.UTF-8" else "")
        or os.environ.get("LANG", "")
    )


def show(document: Mapping[str, object], output: str, view: View) -> None:
    """Print a result in the format asked for."""
    if output == Rows.CSV:
        from qmpsnap.cli.rows import csv_text

        write(csv_text(document), nl=False)
        return
    match Format(output):
        case Format.JSON:
            import json

            write(json.dumps(document, indent=2))
        case Format.YAML:
            import yaml

            write(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=False), nl=False)
        case Format.TABLE:
            show_text(view)


def show_text(view: View) -> None:
    """Print something for people on stdout."""
    here = screen()
    lines = [
        line for one in view(here) for line in ([one] if isinstance(one, str) else one.lines(here))
    ]
    write("\n".join(lines))


def write(text: str, *, nl: bool = True) -> None:
    """
    Print a result on stdout.

    Raises:
        CannotPrint: There is no space where it goes, or the like.
        BrokenPipeError: Nobody reads it.
    """
    encoding = screen().encoding
    with _writing():
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=nl)


def draw(picture: str) -> None:
    """
    Print a picture, which is UTF-8 whatever a terminal shows.

    Raises:
        CannotPrint, BrokenPipeError: As for `write`.
    """
    with _writing():
        click.echo(picture.encode() if hasattr(sys.stdout, "buffer") else picture, nl=False)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # Or Python tries again at exit, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        closed = error.errno == errno.EBADF
        reason = "stdout is closed" if closed else error.strerror or str(error)
        raise CannotPrint(reason) from error


def say(text: str) -> None:
    """A message for people, on stderr; not with `-q`."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """A message that somebody has to see, `-q` or not."""
    if logs_json():
        from qmpsnap.cli.json_log import line

        _echo(line("info", text))
        return
    _echo(printable(text))


def _echo(text: str) -> None:
    """Nobody may read it any more, such as a terminal that is closed; that ends no operation."""
    with suppress(OSError):
        click.echo(text, err=True)


def is_quiet() -> bool:
    """Whether `-q` was given."""
    return _is_given(QUIET)


def logs_json() -> bool:
    """Whether `--log-json` was given."""
    return _is_given(LOG_JSON)


def _is_given(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def complain(error: QmpsnapError, output: str | None) -> None:
    """Say what went wrong, whether anything changed, and what to do; JSON where asked for."""
    if output in (Format.JSON, Format.YAML) or logs_json():
        import json

        problem = {
            "schema": "qmpsnap.error/1",
            "error": error.id,
            "message": str(error),
            "changed": error.changed,
            "remedy": error.way_out,
            "exit_code": error.code,
        }
        _echo(json.dumps(problem))
        return
    _echo(f"qmpsnap: {printable(error)}")
    if error.way_out:
        _echo(f"  {printable(error.way_out)}")
