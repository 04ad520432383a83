"""
Cinder, over a session of keystoneauth1.

    POST …/snapshots/ID/action       the update
    GET  …/snapshots/ID              how the snapshot is
    GET  …/extensions/os-qmpsnap     whether the service knows the spec dialect
    POST …/os-qmpsnap                that a compute service has started, and what it knows of

A 401 makes the session fetch a new token and ask once more by itself. Redirects are followed.

Source: api-ref block-storage v3; cinder/api/contrib/snapshot_actions.py; keystoneauth1/session.py.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from qmpsnap.delivery import machine
from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.journal.letter import Letter

SERVICE_TYPE: Final = "block-storage"
TIMEOUT_S: Final = 60.0
"""To connect, and again between two pieces of an answer."""
_PROJECT: Final = "%(project_id)s"
_TEXT: Final = 300
"""Characters that are kept of an answer."""


class Session(Protocol):
    """`keystoneauth1.session.Session`, or an adapter of one."""

    def request(self, url: str, method: str, **kwargs: Any) -> Any:
        """Make one request, with the token of its identity."""


class Cinder:
    """See `delivery.service.Service`."""

    def __init__(
        self,
        session: Session,
        *,
        endpoint: str | None = None,
        interface: str | Sequence[str] = "public",
        region: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """
        Ask nothing yet.

        Args:
            session: With the identity by which letters are sent: one of a service, since no token
                of a user is kept. To see the snapshots of every project it needs the role that
                Cinder's `context_is_admin` names (`admin`, as shipped).
            endpoint: In place of the catalog's: `http://HOST:8776/v3/%(project_id)s`, as in
                `[cinder] endpoint_template` of Nova.
            interface: Of the endpoint in the catalog; several: the first that there is.
            region: The same.
            timeout_s: For each request.
        """
        self._session, self._endpoint, self._timeout_s = session, endpoint, timeout_s
        self._filter = {
            "service_type": SERVICE_TYPE,
            "interface": interface,
            "region_name": region,
        }

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        """See `Service.ask`."""
        to = letter.due.addressee
        snapshot = f"/snapshots/{quote(to.snapshot, safe='')}"
        match ask.what:
            case "dialect":
                return self._request(to.project, f"/extensions/{machine.EXTENSION}")
            case "row":
                return self._request(to.project, snapshot)
            case "update":
                body = machine.body_of(letter, ask.dialect)
                return self._request(to.project, f"{snapshot}/action", body)

    def started(self, said: Mapping[str, object], project: str) -> Answer:
        """
        Tell that a compute service has started.

        Args:
            said: `{"started": {"host": NAME, "volumes": [ID, …], "operations": [TOKEN, …]}}`: the
                volumes that its guests have, and the operations that it knows of.
            project: Of one of them, for an identity without a project.

        Returns:
            202: what it does not know of will be asked for once more. 404: a stock service.
        """
        return self._request(project, f"/{machine.EXTENSION}", said, is_stocks=False)

    def _request(
        self,
        project: str | None,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        is_stocks: bool = True,
    ) -> Answer:
        """
        Ask, and give no answer where none is Cinder's.

        Args:
            project: For an identity without one.
            path: Below the endpoint.
            body: Of a POST; None: a GET.
            is_stocks: Whether a stock service knows the path. Of another it says 404 in plain text.
        """
        from keystoneauth1.exceptions import ClientException

        more: dict[str, Any] = {} if body is None else {"json": body}
        try:
            if self._endpoint is None:
                more["endpoint_filter"] = self._filter
                url = path
            else:
                url = self._url(project) + path
            answer = self._session.request(
                url,
                "GET" if body is None else "POST",
                raise_exc=False,
                timeout=self._timeout_s,
                headers={"Accept": "application/json"},
                **more,
            )
        except ClientException as error:
            return Answer(status=None, text=_short(f"{type(error).__name__}: {error}"))
        return _answer(answer, is_stocks=is_stocks)

    def _url(self, project: str | None) -> str:
        """
        The endpoint that was given, with the project of whoever asks.

        Cinder answers 400 where the project of the path is not that of the token
        (cinder/api/openstack/wsgi.py); an identity without one (noauth) takes the volume's.
        """
        assert self._endpoint is not None
        if _PROJECT not in self._endpoint:
            return self._endpoint.rstrip("/")
        own = getattr(self._session, "get_project_id", lambda: None)()
        return self._endpoint.replace(_PROJECT, quote(own or project or "", safe="")).rstrip("/")


def _answer(answer: Any, *, is_stocks: bool = True) -> Answer:
    status = int(answer.status_code)
    if status == 404 and is_stocks and _said(answer) is None:  # a proxy's, with nobody behind it
        return Answer(status=None, text=_short(f"404, and not Cinder's: {answer.text}"))
    row, seen = _row(answer) if status == 200 else (None, None)
    return Answer(
        status=status,
        text="" if status < 400 else _short(_message(answer)),
        retry_after_s=_retry_after(answer.headers.get("Retry-After")),
        row=row,
        seen=seen,
    )


def _row(answer: Any) -> tuple[str | None, str | None]:
    """Status of a snapshot, and when it was last changed; nothing of another answer."""
    try:
        snapshot = json.loads(answer.content)["snapshot"]
        return str(snapshot["status"]), str(snapshot.get("updated_at"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None


def _message(answer: Any) -> str:
    said = _said(answer)
    return str(answer.text) if said is None else said


def _said(answer: Any) -> str | None:
    """What an error of Cinder says: `{"badRequest": {"code": 400, "message": …}}`; None: not its words."""
    try:
        (inner,) = json.loads(answer.content).values()
        return str(inner["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _retry_after(text: str | None) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    try:
        return max(float(int(text)), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _short(text: str) -> str:
    return " ".join(text.split())[:_TEXT]
