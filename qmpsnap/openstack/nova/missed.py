"""
Calls that have died with an earlier process of this service, before they were written down.

oslo.messaging acknowledges a cast before it calls the manager, and Nova's API has answered long
before that. A process that is killed then, and until the journal has its entry, leaves Cinder with
an operation that nobody works on and nobody here knows of. So Cinder is told, when the service has
started, which volumes its guests have and which operations it knows; what is missing, our volume
side asks for once more, with the same token. A stock Cinder answers 404, and waits until its time
is up.

Source: oslo_messaging/rpc/server.py, RPCServer._process_incoming (18.3.1).
"""

from __future__ import annotations

from nova import context as nova_context
from nova import objects
from oslo_log import log as logging

from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import OPEN
from qmpsnap.openstack.nova.parts import parts
from qmpsnap.openstack.nova.reports import NovasCinder, has_identity

LOG = logging.getLogger(__name__)


def tell_started(journal: Journal, cinder: NovasCinder, host: str) -> bool:
    """
    Tell Cinder that this service has started, and what it knows of.

    Returns:
        Whether that is done; False: it is to be tried again.

    Raises:
        JournalUnusable: The journal cannot be read.
        Exception: Nova's database, or conductor, does not answer.
    """
    if not has_identity():
        return True  # said at the start; nothing is sent then without a user
    admin = nova_context.get_admin_context()
    instances = objects.InstanceList.get_by_host(admin, host, expected_attrs=[])
    uuids = [one.uuid for one in instances]
    mappings = objects.BlockDeviceMappingList.get_by_instance_uuids(admin, uuids) if uuids else []
    volumes = [one.volume_id for one in mappings if one.volume_id]
    for part in parts(volumes, _known(journal)):
        said = {
            "started": {
                "host": host,
                "volumes": list(part.volumes),
                "operations": list(part.operations),
            }
        }
        answer = cinder.started(said, instances[0].project_id)
        if answer.status == 404:  # a stock Cinder's, or a proxy's with nobody behind it
            answer = cinder.knows_us()
            if answer.status == 404:
                return True
        if answer.status != 202:
            LOG.warning(
                "Cinder cannot be asked which calls have died with an earlier process: %s %s",
                *(answer.status or "no answer", answer.text),
            )
            return False
    return True


def _known(journal: Journal) -> dict[str, list[str]]:
    """Tokens of the operations that this service works on, or has an update of, by volume."""
    store = journal.looked_into()
    if store is None:
        return {}
    known: dict[str, list[str]] = {}
    with store:
        for one in store.letters.find(OPEN):
            tokens = known.setdefault(one.due.addressee.volume, [])
            if one.due.token is not None and one.due.token not in tokens:
                tokens.append(one.due.token)
    return known
