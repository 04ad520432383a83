"""`cinder check`: what of the volume side is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click
import msgspec
from msgspec.structs import asdict

from qmpsnap.cli.command import Command
from qmpsnap.cli.findings import FINDINGS
from qmpsnap.cli.output import rows_option, show
from qmpsnap.cli.tables import Table
from qmpsnap.errors import QmpsnapError
from qmpsnap.ledger.chain import ChainUnknown, chain_of
from qmpsnap.ledger.named import words
from qmpsnap.ledger.values import Place
from qmpsnap.openstack.cinder.cli.deployment import (
    Backend,
    Deployment,
    Row,
    config_option,
    folder_of,
)
from qmpsnap.openstack.cinder.cli.gathered import Beside, stated_of, undecided, unheard
from qmpsnap.openstack.cinder.cli.import_ import AGAIN, INFO, UNMADE

if TYPE_CHECKING:
    from qmpsnap.ledger.ledger import Ledger
    from qmpsnap.ledger.store import Store
    from qmpsnap.ledger.values import File, Statement

TOLD: Final = timedelta(days=2)
"""How long a refused update is shown after it last came: long enough for a daily look."""
LONG: Final = timedelta(hours=2)
"""An operation that is open for longer: stock waits as long for a merge."""
_EXTENSION: Final = "qmpsnap.openstack.cinder.Extension"
_STANDARD: Final = "cinder.api.contrib.standard_extensions"


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it should be, and the way out."""

    kind: str
    about: str
    message: str
    remedy: str


@click.command("check", cls=Command, examples=("cinder check", "cinder check -o json"))
@config_option
@rows_option
def check(config_files: tuple[str, ...], output: str) -> None:
    """
    Look for what is not as it should be; exit code 3 when there is something.

    Whether the extension and the drivers are configured and have started; whether every volume is
    known, with the format of every file, and whether its files are those that the ledger knows;
    reports of compute that contradict the ledger; operations that are open for hours. An extension
    that does not load is only a warning in Cinder's own log.
    """
    deployment = Deployment(config_files)
    found = [*_configured(deployment)]
    try:
        store = deployment.store()
        with store.reading() as ledger:
            found += [*_started(ledger, deployment), *_known(ledger, deployment), *_open(ledger)]
        found += _differing(store, deployment)
    except QmpsnapError as error:
        found.append(Problem("no-ledger", "ledger", str(error), error.way_out))
    document = {"schema": "qmpsnap.cinder-check/1", "findings": [asdict(one) for one in found]}
    show(document, output, lambda _: _view(found))
    if found:
        click.get_current_context().exit(FINDINGS)


def _view(found: list[Problem]) -> Iterator[str | Table]:
    if not found:
        yield "nothing found"
        return
    yield Table(("FINDING", "ABOUT", "WHAT"), [(x.kind, x.about, x.message) for x in found])
    for remedy in dict.fromkeys(one.remedy for one in found):
        yield f"-> {remedy}"


def _configured(deployment: Deployment) -> Iterator[Problem]:
    loaded = deployment.extensions
    ours = [one for one in deployment.backends if one.is_ours]
    if ours and _EXTENSION not in loaded:
        yield Problem(
            "no-extension", "cinder.conf",
            "the API does not load the extension: compute's formats are not heard, and inferred",
            f"osapi_volume_extension = {_EXTENSION}, behind {_STANDARD}",
        )  # fmt: skip
    elif _EXTENSION in loaded and _STANDARD in loaded[loaded.index(_EXTENSION) :]:
        yield Problem(
            "extension-order", "cinder.conf", "standard_extensions come last, and take over again",
            f"name {_STANDARD} first",
        )  # fmt: skip
    for one in deployment.backends:
        if not one.is_ours:
            yield Problem(
                "stock-driver", one.name, f"its driver is {one.driver}, which probes formats",
                f"volume_driver = qmpsnap.openstack.cinder.{one.driver.rpartition('.')[2]}",
            )  # fmt: skip


def _started(ledger: Ledger, deployment: Deployment) -> Iterator[Problem]:
    there = ledger.presences()
    if not any(one.kind == "api" for one in there):
        yield Problem(
            "api-not-seen", "cinder-api", "no API with the extension has ever started",
            "restart cinder-api, and look for `Failed to load extension` in its log",
        )  # fmt: skip
    volumes = {one.host for one in there if one.kind == "volume"}
    for backend in deployment.backends:
        if backend.is_ours and backend.host not in volumes:
            yield Problem(
                "volume-not-seen", backend.name, "its service has never started with our driver",
                "restart cinder-volume, and look for errors of its driver in its log",
            )  # fmt: skip
    versions = {one.version for one in there}
    if len(versions) > 1:
        yield Problem(
            "versions", "services", f"they run different versions: {', '.join(sorted(versions))}",
            "finish the upgrade; what has not been restarted runs the old one",
        )  # fmt: skip


def _known(ledger: Ledger, deployment: Deployment) -> Iterator[Problem]:
    files = ledger.files()
    known = {one.volume for one in files}
    missing = [
        row.id
        for backend in deployment.backends
        for row in deployment.volumes(backend)
        if row.share and row.key not in known and row.status not in UNMADE
    ]
    if missing:
        some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        yield Problem(
            "not-imported", f"{len(missing)} volumes", f"the ledger does not know {some}",
            "qmpsnap cinder import",
        )  # fmt: skip
    for file in files:
        for kind, said, remedy in undecided(file.volume, file):
            yield Problem(kind, file.volume, said, remedy)
    for one in ledger.differences():
        kind = "raw-became-qcow2" if one.is_alarm else "contradiction"
        yield Problem(
            kind, one.known.volume,
            f"{one.said.file} is {one.known.format}, and {one.said.witness} said {one.said.format}",
            f"`qmpsnap ledger history {one.known.volume}{words()}`",
        )  # fmt: skip


def _differing(store: Store, deployment: Deployment) -> Iterator[Problem]:
    """
    Volumes whose `.info` and headers tell of another chain than the ledger.

    A volume that the driver has changed in the meantime is not reported: the ledger is read again after
    the files.
    """
    with store.reading() as ledger:
        known: dict[str, list[File]] = {}
        for one in ledger.files():
            known.setdefault(one.volume, []).append(one)
    beside = Beside()
    unread: dict[str, OSError] = {}
    for backend in deployment.backends:
        for row in deployment.volumes(backend):
            before = known.get(row.key, [])
            try:
                problem = _differs(backend, row, before, beside) if before and row.share else None
            except OSError as error:  # mostly the share is not mounted here
                unread.setdefault(row.share, error)
                continue
            if problem is None:
                continue
            with store.reading() as ledger:
                is_quiet = not ledger.open_operations(volume=row.key)
                if is_quiet and list(ledger.files(row.key)) == before:
                    yield problem
    for share, reason in unread.items():
        yield Problem(
            "files-not-read", share, str(reason),
            "run it where the share is mounted, as the user of cinder-volume",
        )  # fmt: skip


def _differs(backend: Backend, row: Row, files: list[File], beside: Beside) -> Problem | None:
    """
    What is wrong with the files of one volume.

    Raises:
        OSError: They cannot be read.
    """
    try:
        known = chain_of(row.key, files).layers
    except ChainUnknown:
        return None  # `unsure`, which is told
    held = [one.file for one in known]
    try:
        stated = stated_of(folder_of(backend, row.share), row, {}, beside, held)
    except QmpsnapError as error:
        return Problem("other-files", row.id, str(error), error.way_out)
    except ValueError as error:
        return Problem("files-not-read", row.id, str(error), INFO)
    found = unheard(stated, files)
    if [one.file for one in found] == held:
        return None
    return Problem(
        "other-files", row.id, f"its files are {_told(found)}, and the ledger knows {_told(known)}",
        f"{AGAIN}, if stock drivers were at work on it",
    )  # fmt: skip


def _told(files: Sequence[Statement]) -> str:
    """A chain in words, and what lies beside it."""
    chain = " on ".join(one.file for one in files if one.place is Place.CHAIN)
    return " beside ".join([chain, *(one.file for one in files if one.place is not Place.CHAIN)])


def _open(ledger: Ledger) -> Iterator[Problem]:
    now = datetime.now(UTC)
    for one in ledger.open_operations():
        if now - one.begun > LONG:
            yield Problem(
                "open-operation", one.volume,
                f"the {one.kind} of snapshot {one.snapshot} is open since {one.begun:%F %R}Z",
                "is compute at work on it? If not: "
                f"`qmpsnap ledger settle {one.token} --why REASON{words()}`",
            )  # fmt: skip
    for refused in ledger.refusals():
        if now - refused.last <= TOLD:
            yield Problem(
                "refused-updates", refused.snapshot,
                f"{refused.times} times {refused.reason}, last {refused.last:%F %R}Z: "
                f"{refused.detail}",
                "somebody sent updates that do not belong to an operation; see Cinder's log. This is "
                f"told for {TOLD.days} days",
            )  # fmt: skip
