"""What `orphans` and `explain` share: who is asked, by which connection, and how it is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from qmpsnap.cli.connection import Road
from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.formats.layers import Disks
from qmpsnap.guests.census import Asked, layers_of
from qmpsnap.guests.connect import libvirt_uri
from qmpsnap.guests.files.census import Census, Use, together
from qmpsnap.guests.files.identity import Identity, identity
from qmpsnap.guests.libvirt.census import ask_libvirt
from qmpsnap.guests.replay import OnlyRecorded
from qmpsnap.journal.file import Journal
from qmpsnap.journal.folder import JournalUnusable
from qmpsnap.journal.kept import keeping
from qmpsnap.monitor.virt import host_of, open_connection

_KEPT = Use(by="record", who="a `revert` of qmpsnap, which has kept what was written until then")
NO_MANAGER = "guests that are off and belong to no libvirt cannot be asked"


class NotOnThisHost(Refused):
    """The files are on another host, where processes and headers cannot be looked at from here."""

    msg = "the files are on {self.host}, and can be looked at there alone"
    remedy = "Run the same command on that host."

    host: str


def check_local(road: Road, command: str) -> None:
    """
    Refuse what has no files here.

    Raises:
        OnlyRecorded, NotOnThisHost: A recording, or a libvirt elsewhere.
    """
    if road.replay is not None:
        raise OnlyRecorded(command)
    if road.qmp is None and (host := host_of(road.uri)):
        raise NotOnThisHost(host)


def guests_of(road: Road, report: Disks | None) -> Callable[[str], Census]:
    """Ask the guest that was read, and all that libvirt has; by a socket, the default libvirt's too."""

    def ask(folder: str) -> Census:
        answers = [_libvirt(road, folder), _journal()]
        if report is not None:
            who = f"guest {report.guest}" if report.guest else f"the guest at {road.source}"
            answers.append(layers_of(report, who))
        if road.qmp is not None:
            answers.append(Census(gaps=(NO_MANAGER,)))
        return together(answers)

    return ask


def _journal() -> Census:
    """What operations work on that `resume` has to settle, and what reverts have kept."""
    try:
        store = Journal().looked_into()
        if store is None:
            return Census()
        with store:
            entries, kept = store.open_entries(), keeping(store)
    except JournalUnusable as error:
        return Census(gaps=(str(error),))
    uses: dict[Identity, tuple[Use, ...]] = {}
    for one in entries:
        use = Use(by="record", who=f"the open operation {one.record.id} of qmpsnap")
        for path in one.record.paths:
            if (key := identity(path)) is not None:
                uses[key] = (*uses.get(key, ()), use)
    for path in (path for one in kept for path in one.files):
        if (key := identity(path)) is not None:
            uses[key] = (*uses.get(key, ()), _KEPT)
    return Census(uses=uses, asked={"open operations": len(entries), "reverts": len(kept)})


def _libvirt(road: Road, folder: str) -> Census:
    if road.qmp is None:
        with closing(road.connection()) as connection:
            return ask_libvirt(connection, road.uri, folder)
    uri = libvirt_uri()
    try:
        with closing(open_connection(uri, pump_events=False)) as connection:
            return ask_libvirt(connection, uri, folder)
    except QmpsnapError as error:
        return Census(gaps=(f"{uri} was not asked: {error}",))


def asked_text(asked: Asked) -> Iterator[str]:
    """Who was asked, and who could not be."""
    numbers = ", ".join(f"{number} {what}" for what, number in asked.asked.items())
    yield f"asked: {numbers}"
    yield from (f"not asked: {gap}" for gap in asked.gaps)


def asked_document(asked: Asked) -> Mapping[str, object]:
    """The same for programs."""
    return {
        "folder": asked.folder,
        "asked": [{"what": what, "number": number} for what, number in asked.asked.items()],
        "gaps": list(asked.gaps),
    }


def folder_of(path: str) -> str:
    """The folder of a file, links followed: also where the file itself is a link."""
    return os.path.dirname(os.path.realpath(path))
