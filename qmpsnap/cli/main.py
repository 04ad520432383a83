"""The command group, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version

import click

from qmpsnap.cli import chain, demo, disks, doctor, record, snapshots, verify, volume
from qmpsnap.cli import list as snapshot_list
from qmpsnap.cli.audit import command as audit
from qmpsnap.cli.connection import Road
from qmpsnap.cli.job import control, wait
from qmpsnap.cli.job import list as job_list
from qmpsnap.cli.output import complain, say
from qmpsnap.cli.units import Seconds
from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.reader import MAX_STALL_S

FAILED = 1
USAGE = 2
INTERRUPTED = 6


HELP = """
Live disk snapshots of QEMU guests, the format of every file known, never guessed.

\b
Exit codes: 0 done · 1 failed · 2 usage · 3 findings · 4 refused, nothing touched
5 the job failed, chain intact · 6 interrupted, resumable · 7 cannot reach the guest
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--qmp", metavar="SOCKET", help="Talk to QEMU on its own QMP socket; leave GUEST out."
)
@click.option(
    "--agent",
    metavar="SOCKET",
    help="With --qmp: the socket of the guest agent's channel, for --quiesce.",
)
@click.option(
    "-c",
    "--connect",
    metavar="URI",
    help="libvirt URI.  [default: $LIBVIRT_DEFAULT_URI or qemu:///system]",
)
@click.option(
    "--replay", metavar="TRANSCRIPT", help="Read a recorded guest; leave GUEST out. Reads only."
)
@click.option(
    "--no-passthrough",
    is_flag=True,
    help="Under libvirt, do with the domain XML alone: does not taint the guest, proves less.",
)
@click.option(
    "--max-stall",
    metavar="SECONDS",
    type=Seconds(0),
    default=MAX_STALL_S,
    show_default=True,
    help="Read no guest that QEMU would hold up for longer meanwhile, as chains of a hundred "
    "layers make it; under libvirt, do with the domain XML then.",
)
@click.option("-v", "--verbose", count=True, help="Log to stderr; twice for details.")
@click.version_option(version("qmpsnap"))
@click.pass_context
def cli(
    ctx: click.Context,
    qmp: str | None,
    agent: str | None,
    connect: str | None,
    replay: str | None,
    no_passthrough: bool,
    max_stall: float,
    verbose: int,
) -> None:
    """Take the global options; see `HELP`."""
    if sum(road is not None for road in (qmp, connect, replay)) > 1:
        raise click.UsageError("--qmp, --connect and --replay are different roads: give one")
    if agent is not None and qmp is None:
        raise click.UsageError("--agent goes with --qmp; libvirt finds the agent itself")
    if verbose:
        level = logging.DEBUG if verbose > 1 else logging.INFO
        logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")
    ctx.obj = Road(
        qmp=qmp,
        agent=agent,
        connect=connect,
        replay=replay,
        passthrough=not no_passthrough,
        max_stall_s=max_stall,
    )


for command in (
    disks.disks,
    chain.chain,
    snapshot_list.list_,
    record.record,
    verify.verify,
    audit.audit,
    snapshots.create,
    snapshots.delete,
    job_list.jobs,
    wait.wait,
    control.cancel,
    control.pause,
    control.resume,
    control.set_speed,
    volume.volume_snapshot_create,
    volume.volume_snapshot_delete,
    doctor.doctor,
    demo.demo,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with one of the documented codes."""
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
        return error.exit_code
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
    """With stdout or stderr closed (`>&-`), the first file or socket would get its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
