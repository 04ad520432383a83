"""`create` and `delete`: snapshots, for people."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec.structs import replace

from qmpsnap import by_name
from qmpsnap.cli import documents, plans, quiescing, views
from qmpsnap.cli.command import Changing
from qmpsnap.cli.connection import Road
from qmpsnap.cli.interruptible import expecting
from qmpsnap.cli.journaling import journal_option
from qmpsnap.cli.no_wait import Leaving, check_runs, show_started
from qmpsnap.cli.options import (
    allow_option,
    force_option,
    guards,
    merge_options,
    plan_option,
    verify_option,
)
from qmpsnap.cli.output import output_option, say, show
from qmpsnap.cli.progress import shown
from qmpsnap.cli.quiescing import quiesce_options
from qmpsnap.cli.text import fold, printable
from qmpsnap.formats.layers import Disks
from qmpsnap.journal.file import Journal
from qmpsnap.journal.knowing import known_by
from qmpsnap.operations.forecast import forecast_create, forecast_delete
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import Interrupted, Result
from qmpsnap.operations.planned import Asked
from qmpsnap.operations.requests import Method, NamedDeleteRequest


@click.command(
    cls=Changing,
    examples=(
        "create web1 vda",
        "create web1 vda monday --also vdb --quiesce try",
        "create web1 --all-disks monday",
        "create web1 vda monday --into /var/lib/libvirt/images",
    ),
)
@click.argument("guest")
@click.argument("disk", required=False)
@click.argument("name", required=False)
@plan_option
@allow_option
@click.option(
    "--also",
    metavar="DISK",
    multiple=True,
    help="One more disk, at the same moment; may be given again. All of them, or none.",
)
@click.option(
    "--all-disks",
    is_flag=True,
    help="All disks that the guest can write, at the same moment; leave DISK out.",
)
@click.option(
    "--into", metavar="DIR", help="Folder for the new files.  [default: the active file's]"
)
@click.option("--file", metavar="PATH", help="The new file, of one disk: its folder and its name.")
@quiesce_options
@journal_option
@output_option
@click.pass_obj
def create(
    road: Road,
    guest: str | None,
    disk: str | None,
    name: str | None,
    also: tuple[str, ...],
    all_disks: bool,
    into: str | None,
    file: str | None,
    quiesce: str,
    freeze_timeout: float,
    allow: tuple[str, ...],
    only_plan: bool,
    journal: Journal | None,
    output: str,
) -> None:
    """
    Take a snapshot of a disk, or of several at one moment.

    What the guest writes from now on goes to a new file beside the active one, <volume>.<NAME>.
    Without NAME, the time of day (UTC) names it. Of a block device, say where it is to lie (--into
    or --file): a file in /dev would be gone at the next boot.
    """
    if file is not None and (also or into is not None):
        raise click.UsageError("--file goes neither with --into nor with --also")
    if all_disks and (also or file is not None or name is not None):
        raise click.UsageError("--all-disks takes NAME alone: neither DISK, --also nor --file")
    if all_disks:
        disk, name = None, disk
    elif disk is None:
        raise click.UsageError("name a DISK, or give --all-disks")
    snapshot = name if name is not None else by_name.default_name()
    quiescence = quiescing.quiesce(quiesce, freeze_timeout)
    with expecting(road, guest) as host:
        disk, *others = (disk, *also) if disk is not None else _all_disks(host.read())
        if only_plan:
            requests = by_name.create_requests([disk, *others], snapshot, into=into, file=file)
            forecasts = forecast_create(host, requests, quiescence, allow=guards(allow))
            asked = Asked(
                create=tuple(requests),
                quiesce=quiescence,
                allow=tuple(guards(allow)),
                way=plans.way_to(road, host),
            )
            plans.show_plans("create", forecasts, output, asked)
            return
        done = by_name.create(
            host,
            disk,
            snapshot,
            also=others,
            into=into,
            file=file,
            quiesce=quiescence,
            allow=guards(allow),
            journal=journal,
        )
    tell(
        f"snapshot {snapshot} of {', '.join(one.disk.disk for one in done)}", "create", done, output
    )


def _all_disks(guest: Disks) -> tuple[str, ...]:
    """Those that are meant by `--all-disks`; says which are not, where the guest can write them."""
    chosen = by_name.writable(guest)
    left = [
        f"{one.disk} ({one.kind})"
        for one in guest.disks
        if one.layers and not one.read_only and one.disk not in chosen
    ]
    if left:
        say(f"note: not part of the snapshot: {', '.join(left)}")
    return chosen


@click.command(
    cls=Changing, examples=("delete web1 vda monday", "delete web1 vda monday --remove-file --plan")
)
@click.argument("guest")
@click.argument("disk")
@click.argument("name")
@click.option(
    "--method",
    type=click.Choice(["auto", "commit", "pull"]),
    default="auto",
    show_default=True,
    help="commit: the newer data goes down into the older file. pull (the last one left only): the "
    "older data comes up into the active file. auto: commit, unless a pull moves much less.",
)
@click.option(
    "--remove-file",
    is_flag=True,
    help="Remove the files that left the chain, once QEMU and libvirt hold them no more. Those in "
    "another folder than the active file's are kept, and those on a share without locks.",
)
@click.option(
    "--force-remove",
    is_flag=True,
    help="As --remove-file, also on a share without locks, where no guest of another host is seen.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Start the job and leave it to QEMU; the same command without this option finishes it. What "
    "is nearly done is seen to its end, and so is a pull under libvirt.",
)
@allow_option
@force_option
@verify_option
@plan_option
@merge_options
@journal_option
@output_option
@click.pass_obj
def delete(
    road: Road,
    guest: str | None,
    disk: str,
    name: str,
    method: Method,
    remove_file: bool,
    force_remove: bool,
    allow: tuple[str, ...],
    force: bool,
    verify: bool,
    no_wait: bool,
    only_plan: bool,
    options: MergeOptions,
    journal: Journal | None,
    output: str,
) -> None:
    """
    Delete a snapshot of a disk. The guest keeps what it sees.

    NAME is a snapshot's name, as `qmpsnap list` shows it, or the name of its overlay.
    """
    options = replace(options, force_remove=force_remove)
    remove_file = remove_file or force_remove
    if no_wait and (verify or remove_file or options.timeout_s is not None):
        raise click.UsageError("--verify, --remove-file and --timeout need somebody who waits")
    allowed = guards(allow, force=force)
    if only_plan:
        request = NamedDeleteRequest(disk=disk, snapshot=name, method=method)
        with expecting(road, guest) as host:
            forecast = forecast_delete(
                known_by(host, journal),
                request,
                options=options,
                allow=allowed,
                remove=remove_file,
            )
            way = plans.way_to(road, host)
        asked = Asked(
            delete_by_name=request,
            options=options,
            allow=tuple(allowed),
            remove=remove_file,
            verify=verify,
            way=way,
        )
        plans.show_plans("delete", (forecast,), output, asked)
        return
    leaving = Leaving(leaves_pulls=road.qmp is not None)
    with expecting(road, guest) as host, shown() as screen:
        if no_wait:
            check_runs(host)
        try:
            done = by_name.delete(
                host,
                disk,
                name,
                method=method,
                remove_file=remove_file,
                options=options,
                allow=allowed,
                verify=verify,
                progress=leaving.progress if no_wait else screen.progress,
                notices=screen.tell,
                journal=journal,
            )
        except Interrupted:
            if not leaving.left:
                raise
            show_started(*leaving.left[0], output)
            return
    tell(f"deleted snapshot {name} of {done.disk.disk}", "delete", (done,), output)
    for path in done.removed:
        say(f"removed {path}")
    for path in done.dropped:
        if not remove_file:  # else it was removed, or a note says why not
            say(f"{path} is no longer used by this guest; it was kept")
    for path in done.held:
        say(f"{path} left the chain, but it is or may be in use; it was kept")


def tell(headline: str, operation: str, done: Sequence[Result], output: str) -> None:
    """Say what was done, and show the disks as they are now."""
    for repair in dict.fromkeys(repair for one in done for repair in one.repaired):
        say(f"repaired: {repair}")
    for note in dict.fromkeys(note for one in done for note in one.notes):
        say(f"note: {note}")
    changed = [f"{file}: {format_}" for one in done for file, format_ in one.file_format.items()]
    text = f"{headline} (changed: {', '.join(changed)})"
    if done[0].frozen_s is not None:
        text += f"; {done[0].consistency}-consistent, frozen for {done[0].frozen_s:.3f} s"
    show(
        documents.result(operation, done),
        output,
        lambda here: (
            *fold(printable(text), here.width),
            *views.chain([one.disk for one in done], here),
        ),
    )
