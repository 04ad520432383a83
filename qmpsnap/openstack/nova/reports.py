"""
Cinder, over Nova's own session.

What is stored is sent by the identity of the service, the section `[cinder]` of nova.conf: no token
of a user is kept. Where there is none, the user's token serves as long as the call is in this
process, and what has to be sent again waits for an operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import nova.conf
from keystoneauth1.adapter import Adapter
from nova import context, service_auth
from nova.volume import cinder as nova_cinder

from qmpsnap.delivery.cinder import Cinder
from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.journal.letter import CINDER, Addressee, Due, Letter

NO_IDENTITY: Final = (
    "nova.conf has no identity in [cinder] (auth_type, or auth_section): an update that Cinder does "
    "not take at once is not sent again"
)


def has_identity() -> bool:
    """Whether the service can ask Cinder without a user."""
    section = nova.conf.CONF.cinder
    return bool(section.auth_type or section.auth_section)


class NovasCinder:
    """See `delivery.service.Service`."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._contexts: dict[str, Any] = {}

    @contextmanager
    def lent(self, snapshot: str, user: Any) -> Iterator[None]:
        """Let the letters of a snapshot be sent by a user, where the service has no identity."""
        self._contexts[snapshot] = user
        try:
            yield
        finally:
            self._contexts.pop(snapshot, None)

    def user_of(self, snapshot: str) -> Any:
        """The user whose call about a snapshot is in this process; None: there is none."""
        return self._contexts.get(snapshot)

    def service_context(self, project: str | None) -> Any:
        """A context with the identity of the service."""
        found = context.get_admin_context()
        group = nova.conf.cinder.cinder_group.name
        # `endpoint_template` has the project in it, and Cinder answers 400 where it is not the token's.
        session, auth = service_auth.get_service_auth_session(group), nova_cinder._get_auth(found)
        found.project_id = auth.get_project_id(session) or project
        return found

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        """See `Service.ask`."""
        to = letter.due.addressee
        user = None if has_identity() else self.user_of(to.snapshot)
        if user is None and not has_identity():
            return Answer(status=401, text=NO_IDENTITY)
        return _cinder(user or context.get_admin_context()).ask(letter, ask)

    def started(self, said: Mapping[str, object], project: str) -> Answer:
        """Tell by the service's identity that this compute service has started: see `Cinder`."""
        if not has_identity():
            return Answer(status=401, text=NO_IDENTITY)
        return _cinder(context.get_admin_context()).started(said, project)

    def knows_us(self) -> Answer:
        """Ask Cinder by the service's identity whether it has the extension: 200, or 404."""
        nobody = Due(kind="create", addressee=Addressee(snapshot="", volume=""), since=0.0)
        letter = Letter(number=0, id="", due=nobody, state="due", changed=0.0)
        return self.ask(letter, Ask(what="dialect"))

    def services(self, to: str) -> NovasCinder | None:
        """See `delivery.outbox.Services`."""
        return self if to == CINDER else None


def _cinder(who: Any) -> Cinder:
    section = nova.conf.CONF.cinder
    group = nova.conf.cinder.cinder_group.name
    auth = nova_cinder._get_auth(who)
    return Cinder(
        Adapter(session=service_auth.get_service_auth_session(group), auth=auth),
        endpoint=section.endpoint_template,
        interface=section.catalog_info.split(":")[2],
        region=section.os_region_name,
    )
