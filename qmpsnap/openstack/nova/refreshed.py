"""
Whether Nova's connection_info of a volume is the new one, after Cinder has accepted an update.

Cinder writes it when it concludes the snapshot, which may be later, or never. Until it is seen to name
the file that the guest has, a start goes by the journal: see `start`.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from nova import context as nova_context
from nova import exception, objects

from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Letter
from qmpsnap.openstack.nova.start import no_longer_active

_ASK_AT_FIRST_S: Final = 0.1
_ASK_S: Final = 0.5
"""Seconds until the next look at what Cinder has made of a snapshot: each time twice as many, until they
are as Nova's. Each costs 15 ms of the processor."""


class NotConcluded(Exception):
    """Cinder has not said what it has made of a snapshot; it is asked again."""


def await_conclusion(volumes: Any, context: Any, snapshot: str, limit_s: float) -> None:
    """
    Wait until Cinder has concluded a snapshot, or says that there is none.

    Args:
        volumes: nova.volume.cinder.API.
        context: By whom it is asked.
        snapshot: Its id.
        limit_s: Not longer than that.

    Raises:
        NotConcluded: It has not.
    """
    deadline = time.monotonic() + limit_s
    wait = _ASK_AT_FIRST_S
    try:
        while True:
            time.sleep(wait)  # a look at once would be too early: it has only just been told
            if volumes.get_snapshot(context, snapshot).get("status") != "creating":
                return
            if time.monotonic() > deadline:
                raise NotConcluded(f"Cinder has not concluded the snapshot {snapshot}")
            wait = min(2 * wait, _ASK_S)
    except exception.SnapshotNotFound:
        return


def check_refreshed(journal: Journal, letter: Letter, instance: Any, host: str) -> None:
    """
    See that connection_info names no file that the guest has left by the operation of a letter.

    What Cinder says of the snapshot is no proof of it: an admin resets a state, and to whom is no
    admin Cinder answers 404.

    Args:
        journal: Of this service.
        letter: That was accepted.
        instance: Of Nova's; one that has moved to another host is that one's.
        host: This one.

    Raises:
        NotConcluded: It does not.
        VolumeBDMNotFound: The volume is not attached any more.
        JournalUnusable: The journal cannot be read.
    """
    left = no_longer_active(journal, letter)
    if not left or instance.host != host:
        return
    volume = letter.due.addressee.volume
    mapping = objects.BlockDeviceMapping.get_by_volume_and_instance(
        nova_context.get_admin_context(), volume, instance.uuid
    )
    named = json.loads(mapping.connection_info or "{}").get("data", {}).get("name")
    if named in left:
        raise NotConcluded(
            f"Cinder's connection_info of the volume {volume} still names {named}. Either it has not "
            "concluded the snapshot, or [cinder] in nova.conf has an identity that is no admin to it"
        )
