"""
`volume-snapshot-create` and `volume-snapshot-delete`: the same engine with Nova's arguments.

stdout gets exactly one line, the status body that is (or would be) sent, on success and on
failure alike: the caller is always told. With `--report` the update is stored as well, and sent.
"""

from __future__ import annotations

import json
from typing import Final

import click

from qmpsnap import service
from qmpsnap.cli import plans, quiescing
from qmpsnap.cli.command import Changing
from qmpsnap.cli.connection import Road
from qmpsnap.cli.interruptible import expecting
from qmpsnap.cli.journaling import journal_option
from qmpsnap.cli.options import (
    allow_option,
    force_option,
    guards,
    merge_options,
    plan_as,
    verify_option,
)
from qmpsnap.cli.output import say, warn, write
from qmpsnap.cli.progress import shown
from qmpsnap.cli.quiescing import quiesce_options
from qmpsnap.cli.reporting import STDOUT, Reports, outbox, report_option, sent
from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.file import Journal
from qmpsnap.journal.knowing import known_by
from qmpsnap.journal.letter import Addressee
from qmpsnap.operations.forecast import forecast_create, forecast_delete
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.planned import Asked
from qmpsnap.operations.requests import BadRequest, create_request
from qmpsnap.service import Update
from qmpsnap.status import Dialect, Operation

_STANDS: Final = (
    "note: the guest writes to the new file, so the status is not an error: the volume service would "
    "go on with the old one. See to what follows, then tell it that the snapshot is there."
)

_report_option = report_option(
    "Where the update is sent, besides standard output; it is stored until it is accepted. The "
    "identity for Cinder comes from OS_CLOUD or OS_*."
)
dialect_option = click.option(
    "--dialect",
    type=click.Choice([one.value for one in Dialect]),
    default=Dialect.SPEC.value,
    show_default=True,
    help="spec: with *_compute_complete and file_format. legacy: what an unmodified Cinder takes.",
)


@click.command(
    "volume-snapshot-create",
    cls=Changing,
    examples=(
        'volume-snapshot-create web1 VOLUME_ID \'{"type": "qcow2", "new_file": "volume-1.snap", "snapshot_id": "1"}\'',
    ),
)
@click.argument("guest")
@click.argument("volume_id")
@click.argument("create_info")
@quiesce_options
@dialect_option
@allow_option
@_report_option
@journal_option
@plan_as
@click.pass_obj
def volume_snapshot_create(
    road: Road,
    guest: str | None,
    volume_id: str,
    create_info: str,
    quiesce: str,
    freeze_timeout: float,
    dialect: str,
    allow: tuple[str, ...],
    report: str,
    journal: Journal | None,
    plan: str | None,
) -> None:
    """
    Take a snapshot with Nova's arguments; print the status body for Cinder.

    CREATE_INFO is JSON: {"type": "qcow2", "new_file": NAME, "snapshot_id": ID}. With --plan, the
    plan is printed instead: nothing happens, so no status is sent.
    """
    quiescence, allowed = quiescing.quiesce(quiesce, freeze_timeout), guards(allow)
    if plan is not None:
        request = create_request(volume_id, _dictionary("create_info", create_info))
        with expecting(road, guest) as host:
            forecasts = forecast_create(host, [request], quiescence, allow=allowed)
            way = plans.way_to(road, host)
        asked = Asked(create=(request,), quiesce=quiescence, allow=tuple(allowed), way=way)
        plans.show_plans("create", forecasts, plan, asked)
        return
    info = _or_refused(Operation.CREATE, "create_info", create_info)
    snapshot_id = info.get("snapshot_id")
    post = _Post(Operation.CREATE, report, journal, volume_id, snapshot_id)
    update = service.volume_snapshot_create(
        lambda: expecting(road, guest),
        volume_id,
        info,
        quiesce=quiescence,
        allow=allowed,
        dialect=dialect,
        tell=_print,
        journal=journal,
        addressee=post.addressee,
    )
    post.send(update)
    _end(update)


@click.command(
    "volume-snapshot-delete",
    cls=Changing,
    examples=(
        'volume-snapshot-delete web1 VOLUME_ID SNAPSHOT_ID \'{"type": "qcow2", "file_to_merge": "volume-1.snap", "merge_target_file": "volume-1"}\'',
    ),
)
@click.argument("guest")
@click.argument("volume_id")
@click.argument("snapshot_id")
@click.argument("delete_info")
@dialect_option
@allow_option
@force_option
@verify_option
@plan_as
@merge_options
@_report_option
@journal_option
@click.pass_obj
def volume_snapshot_delete(
    road: Road,
    guest: str | None,
    volume_id: str,
    snapshot_id: str,
    delete_info: str,
    dialect: str,
    allow: tuple[str, ...],
    force: bool,
    verify: bool,
    plan: str | None,
    options: MergeOptions,
    report: str,
    journal: Journal | None,
) -> None:
    """
    Delete a snapshot with Nova's arguments; print the status body for Cinder.

    DELETE_INFO is JSON: {"type": "qcow2", "file_to_merge": NAME|null, "merge_target_file":
    NAME|null}. With a merge target, the file is committed into it; without, the active file pulls
    what lies above file_to_merge (null: everything). With --plan, the plan is printed instead:
    nothing happens, so no status is sent.
    """
    allowed = guards(allow, force=force)
    if plan is not None:
        info = _dictionary("delete_info", delete_info)
        request = service.delete_asked(volume_id, snapshot_id, info)
        with expecting(road, guest) as host:
            forecast = forecast_delete(
                known_by(host, journal), request, options=options, allow=allowed
            )
            way = plans.way_to(road, host)
        asked = Asked(
            delete=request,
            options=options,
            allow=tuple(allowed),
            verify=verify,
            way=way,
        )
        plans.show_plans("delete", (forecast,), plan, asked)
        return
    info = _or_refused(Operation.DELETE, "delete_info", delete_info)
    post = _Post(Operation.DELETE, report, journal, volume_id, snapshot_id)
    told: list[Update] = []
    try:
        with shown() as screen:
            update = service.volume_snapshot_delete(
                lambda: expecting(road, guest),
                volume_id,
                snapshot_id,
                info,
                options=options,
                allow=allowed,
                verify=verify,
                dialect=dialect,
                tell=told.append,
                progress=screen.progress,
                notices=screen.tell,
                journal=journal,
                addressee=post.addressee,
            )
    finally:  # when nothing moves on the terminal any more
        for one in told:
            _print(one)
    post.send(update)
    _end(update)


class _Post:
    """Where the update of one call goes."""

    def __init__(
        self,
        operation: Operation,
        report: str,
        journal: Journal | None,
        volume_id: str,
        snapshot_id: object,
    ) -> None:
        """
        Find out whether it can be sent, before anything is touched.

        Raises:
            click.UsageError: Nothing can be stored without a journal.
            IdentityUnusable: There is nobody as whom to send to Cinder; the one line is printed.
        """
        self.addressee: Addressee | None = None
        if report == STDOUT:
            return
        if journal is None:
            raise click.UsageError(
                "--report stores the update in the journal: leave --no-journal out"
            )
        self._journal, self._reports = journal, Reports()
        try:
            self._reports(report)
        except QmpsnapError as error:
            _print(service.refused(operation, error))
            raise
        if isinstance(snapshot_id, str) and snapshot_id:
            self.addressee = Addressee(snapshot=snapshot_id, volume=volume_id, to=report)

    def send(self, update: Update) -> None:
        """Send the update once; what the service does not accept stays stored."""
        if update.letter is not None:
            sent(self._journal, self._reports, (update.letter,))
        elif update.unstored is not None:
            end = outbox(self._journal, self._reports).send_unstored(update.unstored)
            warn(f"note: the update is not stored; it was sent once, and is {end.state}: {end.why}")


def _dictionary(where: str, text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotJson(where, str(error)) from error
    if not isinstance(value, dict):
        raise NotJson(where, "it is not an object")
    return value


class NotJson(BadRequest):
    """An argument that must be a JSON object is not one: a mistake in the call."""

    exit_code = 2

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, f"not a JSON object: {reason}", "a JSON object")


def _or_refused(operation: Operation, where: str, text: str) -> dict[str, object]:
    """Parse an argument; print the one line when it cannot be."""
    try:
        return _dictionary(where, text)
    except NotJson as error:
        _print(service.refused(operation, error))
        raise


def _print(update: Update) -> None:
    write(json.dumps(update.body))


def _end(update: Update) -> None:
    """Say what there is to say beside the update; an error becomes the message and exit code."""
    if isinstance(update.error, QmpsnapError) and update.error.stands:
        say(_STANDS)
    if update.error is not None:
        raise update.error
    if update.result is not None:
        for repair in update.result.repaired:
            say(f"repaired: {repair}")
        for note in update.result.notes:
            say(f"note: {note}")
