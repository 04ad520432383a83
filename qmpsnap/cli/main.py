"""The command group, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys

import click

from qmpsnap.cli import signals
from qmpsnap.cli.commands import COMMANDS, HIDDEN
from qmpsnap.cli.group import LazyGroup
from qmpsnap.cli.output import complain, say, write
from qmpsnap.errors import QmpsnapError

FAILED = 1
USAGE = 2
INTERRUPTED = 6

HELP = """
Live disk snapshots of QEMU guests, the format of every file known, never guessed.

The global options stand before the command or after it. GUEST is a name or UUID that libvirt
knows; with --qmp and --replay it is left out.

\b
Exit codes:
  0 done   1 failed   2 usage   3 findings
  4 refused, nothing touched
  5 the job failed, chain intact
  6 interrupted, resumable
  7 cannot reach the guest
"""


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        write(f"qmpsnap, version {version('qmpsnap')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    sections=COMMANDS,
    hidden_commands=HIDDEN,
    shows_global_options=True,
    examples=(
        "chain web1",
        "--qmp /run/web1.qmp create vda monday",
        "delete web1 vda monday --plan",
        "audit -o sarif -c qemu+ssh://compute7/system",
    ),
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Run a command; see `HELP`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with one of the documented codes."""
    signals.install()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _open_what_is_closed()
    try:
        code = cli.main(arguments, prog_name="qmpsnap", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return USAGE
    except QmpsnapError as error:
        complain(error, None)
        return error.code
    except click.Abort:
        say("qmpsnap: interrupted; nothing was under way that changes a guest")
        return INTERRUPTED
    except BrokenPipeError:
        # `qmpsnap … | head`: nobody reads any more. Python would complain at exit. click does the
        # same, with the same code, when it is in a command that the pipe breaks.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else 0


def _open_what_is_closed() -> None:
    """
    With stdout or stderr closed (`>&-`), the first file or socket would get its number.

    A result that cannot be written is an error, as with a full disk; a message is just lost.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
