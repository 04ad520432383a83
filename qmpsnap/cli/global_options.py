"""Options of the whole program: understood before the name of a command, and after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import click
from click.core import ParameterSource

from qmpsnap.cli.output import LOG_JSON, QUIET, Drawing, Format, Rows
from qmpsnap.cli.units import Seconds

_GIVEN: Final = "qmpsnap.cli.given"
_ROADS: Final = ("qmp", "connect", "replay")


_OPTIONS: Final[dict[tuple[str, ...], dict[str, Any]]] = {
    ("--qmp",): {
        "metavar": "SOCKET",
        "type": click.Path(readable=False),
        "help": "Talk to QEMU on its own QMP socket; leave GUEST out.  [default: $QMPSNAP_QMP]",
    },
    ("--agent",): {
        "metavar": "SOCKET",
        "type": click.Path(readable=False),
        "help": "With --qmp: the socket of the guest agent's channel, for --quiesce.",
    },
    ("-c", "--connect"): {
        "metavar": "URI",
        "help": "libvirt URI.  [default: $LIBVIRT_DEFAULT_URI or qemu:///system]",
    },
    ("--replay",): {
        "metavar": "TRANSCRIPT",
        "type": click.Path(readable=False),
        "help": "Read a recorded guest; leave GUEST out. Reads only.",
    },
    ("--no-passthrough",): {
        "is_flag": True,
        "help": "Under libvirt, use the domain XML alone: does not taint the guest, proves less.",
    },
    ("--max-stall",): {
        "metavar": "SECONDS",
        "type": Seconds(0),
        "help": "Read no guest that QEMU would hold up for longer, as chains of a hundred layers "
        "make it; under libvirt, use the domain XML then.  [default: 0.5]",
    },
    ("-v", "--verbose"): {"count": True, "help": "Log to stderr; twice for details."},
    ("-q", "--quiet"): {
        "is_flag": True,
        "help": "No progress and no notes on stderr; errors still.",
    },
    ("--log-json",): {
        "is_flag": True,
        "help": "Messages, progress and errors on stderr as JSON, one a line.",
    },
}
"""All but `--output`, which not every command has."""

_OUTPUT: Final[dict[str, Any]] = {
    "metavar": "FORMAT",
    "type": click.Choice([*(one.value for one in (*Format, *Rows, *Drawing)), "sarif", "html"]),
    "help": "How to print the result: table, json or yaml, and csv where it is rows; chain can dot "
    "and svg as well, verify and audit sarif and html.  [default: table]",
}


def global_options(*, hidden: bool, output: bool = False) -> list[click.Parameter]:
    """Make the options, for one command or group; a group has `--output` for its commands."""
    options = _OPTIONS | ({("-o", "--output"): _OUTPUT} if output else {})
    return [
        click.Option(names, hidden=hidden, expose_value=False, callback=_take, **more)
        for names, more in options.items()
    ]


def given(ctx: click.Context) -> dict[str, Any]:
    """The global options that were given, by name, wherever they stood."""
    found: dict[str, Any] = ctx.meta.setdefault(_GIVEN, {})
    return found


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    name = str(param.name)
    if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return
    if name == "verbose":
        value += given(ctx).get(name, 0)
    else:
        agree(ctx, param.opts[-1], given(ctx).get(name), value)
    given(ctx)[name] = value


def agree(ctx: click.Context, option: str, before: object, after: object) -> None:
    """
    Take an option twice only with one value.

    Raises:
        click.UsageError: The values before and after the command differ.
    """
    if None not in (before, after) and before != after:
        raise click.UsageError(
            f"{option} stands before the command as {before} and after it as {after}: give one", ctx
        )


def check(ctx: click.Context) -> None:
    """
    Look at all global options together; switch `-q` on.

    Raises:
        click.UsageError: They contradict each other.
    """
    found = given(ctx)
    if sum(name in found for name in _ROADS) > 1:
        raise click.UsageError(
            "--qmp, --connect and --replay lead to different guests: give one", ctx
        )
    if "agent" in found and "qmp" not in found:
        raise click.UsageError("--agent goes with --qmp; libvirt finds the agent itself", ctx)
    if "quiet" in found and "verbose" in found:
        raise click.UsageError("-q and -v contradict each other: give one", ctx)
    ctx.meta[QUIET] = "quiet" in found
    ctx.meta[LOG_JSON] = "log_json" in found


def by_environment(ctx: click.Context, values: Mapping[str, object]) -> None:
    """
    Take `$QMPSNAP_QMP` for `--qmp`, unless the command line says which guest is meant.

    Args:
        ctx: Of the command.
        values: Options that stand after it.
    """
    socket = os.environ.get("QMPSNAP_QMP")
    found = given(ctx)
    if socket and not any(name in found or name in values for name in _ROADS):
        found["qmp"] = socket


def names_guest(ctx: click.Context) -> bool:
    """Whether GUEST is an argument; a socket and a transcript say which guest it is."""
    return not given(ctx).keys() & {"qmp", "replay"}
