"""`create` and `delete`: snapshots, for people."""

from __future__ import annotations

import datetime
import os

import click
from rich.console import Group

from qmpsnap.cli import documents, views
from qmpsnap.cli.output import output_option, printable, say, show
from qmpsnap.cli.progress import bar
from qmpsnap.cli.road import GuestCommand, Road
from qmpsnap.operations import run
from qmpsnap.operations.names import folder_of, tidy
from qmpsnap.operations.requests import CreateRequest, Method, NamedDeleteRequest


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("disk")
@click.argument("name", required=False)
@output_option
@click.pass_obj
def create(road: Road, guest: str | None, disk: str, name: str | None, output: str) -> None:
    """
    Take a snapshot of a disk.

    What the guest writes from now on goes to a new file beside the active one, <volume>.<NAME>.
    Without NAME, the time of day (UTC) names it.
    """
    snapshot = name or default_name()
    with road.open(guest) as host:
        done = run.create(host, CreateRequest(disk=disk, new_file=None, snapshot=snapshot))
    _tell(f"snapshot {snapshot} of {done.disk.disk}", "create", done, output)


@click.command(cls=GuestCommand)
@click.argument("guest")
@click.argument("disk")
@click.argument("name")
@click.option(
    "--method",
    type=click.Choice(["auto", "commit", "pull"]),
    default="auto",
    show_default=True,
    help="commit: the newer data goes down into the older file. pull (newest snapshot only): the "
    "older data comes up into the active file. auto: commit.",
)
@click.option(
    "--remove-file",
    is_flag=True,
    help="Remove the files that left the chain, once QEMU and libvirt hold them no more. Those in "
    "another folder than the active file's are kept.",
)
@output_option
@click.pass_obj
def delete(
    road: Road,
    guest: str | None,
    disk: str,
    name: str,
    method: Method,
    remove_file: bool,
    output: str,
) -> None:
    """Delete a snapshot of a disk. The guest keeps what it sees."""
    request = NamedDeleteRequest(disk=disk, snapshot=name, method=method)
    with road.open(guest) as host, bar() as progress:
        done = run.delete(host, request, progress)
    _tell(f"deleted snapshot {name} of {done.disk.disk}", "delete", done, output)
    folder = folder_of(done.disk.layers[0])
    for path in done.dropped:
        if remove_file and tidy(os.path.dirname(path)) != folder:
            say(f"{path} is no longer used by this guest; it is not in {folder}, so it was kept")
        elif remove_file:
            try:
                os.unlink(path)
            except OSError as error:
                say(f"{path} is no longer used by this guest, but: {error}")
            else:
                say(f"removed {path}")
        else:
            say(f"{path} is no longer used by this guest; it was kept")
    for path in done.held:
        say(f"{path} left the chain, but a node of this guest still has it open; it was kept")


def default_name() -> str:
    """A name from the clock, sortable: `20261122-231500`."""
    return datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%d-%H%M%S")


def _tell(headline: str, operation: str, done: run.Result, output: str) -> None:
    for note in done.notes:
        say(f"note: {note}")
    formats = ", ".join(f"{file}: {format_}" for file, format_ in done.file_format.items())
    show(
        documents.result(operation, done),
        output,
        lambda: Group(printable(f"{headline} (changed: {formats})"), views.chain((done.disk,))),
    )
