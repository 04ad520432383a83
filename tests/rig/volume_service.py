"""
A volume service over HTTP that answers an update as Cinder 29 does, and has faults on demand.

The same tests run on it and on the real one (`tests/rig/update_contract.py`).

Source: cinder/api/contrib/snapshot_actions.py, api/schemas/snapshot_actions.py.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, Self

Fault = Literal[
    "500 before", "500 after", "silent after", "cut", "gone", "401", "403", "409", "413", "429"
]
FAULTS: Final[tuple[Fault, ...]] = (
    "500 before",
    "500 after",
    "silent after",
    "cut",
    "gone",
    "401",
    "403",
    "409",
    "413",
    "429",
)
_CHANGES: Final = itertools.count(1)
_ALLOWED: Final = {
    "creating": ("creating", "available", "error"),
    "deleting": ("deleting", "error_deleting"),
}
_PATH: Final = re.compile(
    r"/v3/(?P<project>[^/]+)/(?P<kind>snapshots|extensions)/(?P<id>[^/]+)(?P<action>/action)?"
)
_PROGRESS: Final = re.compile(r"(?:\d|[1-9]\d|100)%")


@dataclass
class Row:
    """A snapshot, and the wait of the driver for it."""

    status: str
    progress: str = "0%"
    token: str | None = None
    """Of the operation that is waited for."""
    is_there: bool = True
    changed: int = field(default_factory=lambda: next(_CHANGES))
    """Another number each time it is changed, for `updated_at`."""

    def set(self, status: str, progress: str) -> None:
        """Change it."""
        self.status, self.progress = status, progress
        self.changed = next(_CHANGES)


@dataclass
class Effect:
    """One wait that was ended, and by what."""

    snapshot: str
    status: str
    progress: str
    token: str | None
    file_format: dict[str, str] | None


@dataclass
class VolumeService:
    """The service; a context in which it listens."""

    is_spec: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    fault: Callable[[str], Fault | None] = lambda _what: None
    """What goes wrong with a request: `dialect`, `update` or `row`."""
    is_quick: bool = True
    """Whether the driver sees at once that its wait is over; else when `notice` is called."""
    token: str | None = None
    """The only one that is let in; None: anybody."""
    is_let_in: Callable[[str], bool] = lambda _token: True
    """What else is asked about a token."""
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen nowhere yet."""
        self._lock = threading.RLock()
        self._ends = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    # --- the service

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.stop()

    @property
    def endpoint(self) -> str:
        """As in a catalog, for any project."""
        return f"http://127.0.0.1:{self.port}/v3/%(project_id)s"

    def start(self) -> None:
        """Listen; again: at the same port as before."""
        service = self

        class Handler(_Handler):
            volumes = service

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def is_down(self) -> bool:
        """Whether it refuses every connection."""
        return self._server is None

    def stop(self) -> None:
        """Refuse every connection, until it is started again."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # --- what a driver does

    def wait_for(self, snapshot: str, status: str, token: str | None = None) -> None:
        """Begin an operation: the snapshot is `creating`, or `deleting`."""
        with self._lock:
            self.rows[snapshot] = Row(status, "0%", token)

    def notice(self) -> None:
        """The drivers look at the rows, and end the waits that are over."""
        with self._lock:
            for snapshot, row in self.rows.items():
                self._notice(snapshot, row)

    def _notice(self, snapshot: str, row: Row) -> None:
        if row.status == "creating" and row.progress == "90%":
            row.set("available", "100%")
        elif row.status == "deleting" and row.progress == "90%":
            row.is_there = False
        del snapshot

    # --- what the API does

    def update(self, snapshot: str, body: Any) -> tuple[int, str]:
        """Carry an update out as Cinder does."""
        with self._lock:
            return self._update(snapshot, body)

    def _update(self, snapshot: str, body: Any) -> tuple[int, str]:
        if not isinstance(body, dict) or list(body) != ["os-update_snapshot_status"]:
            return 400, "Malformed request body"
        given = body["os-update_snapshot_status"]
        known = {"status", "progress"} | ({"file_format", "operation"} if self.is_spec else set())
        foreign = sorted(set(given) - known)
        if foreign:
            names = ", ".join(repr(name) for name in foreign)
            were = "was" if len(foreign) == 1 else "were"
            return 400, (
                "Invalid input for field/attribute os-update_snapshot_status. Value: "
                f"{given}. Additional properties are not allowed ({names} {were} unexpected)"
            )
        progress = given.get("progress")
        if progress and not (isinstance(progress, str) and _PROGRESS.fullmatch(progress)):
            return 400, f"Invalid input for field/attribute progress. Value: {progress}."
        row = self.rows.get(snapshot)
        if row is None or not row.is_there:
            return 404, f"Snapshot {snapshot} could not be found."
        status = given["status"]
        if self.is_spec:
            status = status.removesuffix("_compute_complete")
        allowed = _ALLOWED.get(row.status)
        if allowed is None:
            return 400, f"Snapshot status {row.status} not allowed for update_snapshot_status"
        if status not in allowed:
            return 400, (
                f"Provided snapshot status {given['status']} not allowed for snapshot with status "
                f"{row.status}."
            )
        token = given.get("operation")
        if self.is_spec and row.token is not None and token not in (None, row.token):
            return 409, "another operation is waited for"
        is_new = (row.status, row.progress) != (status, progress or row.progress)
        row.set(status, progress or row.progress)
        if is_new and (progress == "90%" or status.startswith("error") or status == "available"):
            self.effects.append(
                Effect(snapshot, given["status"], row.progress, token, given.get("file_format"))
            )
        if self.is_quick:
            self._notice(snapshot, row)
        return 202, ""

    def row(self, snapshot: str) -> tuple[int, Any]:
        """The snapshot, as `GET /snapshots/ID` has it."""
        with self._lock:
            row = self.rows.get(snapshot)
            if row is None or not row.is_there:
                return 404, f"Snapshot {snapshot} could not be found."
            return 200, {
                "snapshot": {"id": snapshot, "status": row.status, "updated_at": str(row.changed)}
            }

    def hold(self) -> None:
        """Keep a request waiting until the service ends."""
        self._ends.wait()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that go away are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    volumes: VolumeService
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(text)
        except ValueError:
            self._say(400, "Malformed request body")
        else:
            self._handle(body)

    def _handle(self, body: Any) -> None:
        service = self.volumes
        if service.is_down:  # of a connection from before
            return self._cut(b"")
        service.headers.append({name.lower(): value for name, value in self.headers.items()})
        found = _PATH.fullmatch(self.path)
        if found is None:
            return self._say(404, "The resource could not be found.")
        what = "update" if body is not None else "row"
        if found["kind"] == "extensions":
            what = "dialect"
        fault = service.fault(what)
        if fault in ("401", "403", "409", "413", "429", "500 before"):
            return self._say(int(fault[:3]), "a fault", {"Retry-After": "1"})
        if fault == "gone":
            return self._cut(b"")
        if service.token not in (None, self.headers.get("X-Auth-Token")):
            return self._say(401, "The request you have made requires authentication.")
        if not service.is_let_in(self.headers.get("X-Auth-Token") or ""):
            return self._say(401, "The request you have made requires authentication.")
        status, said = self._answer(what, found["id"], body)
        if fault == "silent after":
            service.hold()
            return self._cut(b"")
        if fault == "500 after":
            return self._say(500, "a fault")
        if fault == "cut":
            return self._cut(f"HTTP/1.1 {status} OK\r\nContent-Length: 500\r\n\r\nhal".encode())
        return self._say(status, said)

    def _answer(self, what: str, id_: str, body: Any) -> tuple[int, Any]:
        service = self.volumes
        if what == "dialect":
            if service.is_spec:
                return 200, {"extension": {"alias": id_}}
            return 404, "The resource could not be found."
        return service.row(id_) if what == "row" else service.update(id_, body)

    def _say(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
        names = {400: "badRequest", 404: "itemNotFound"}
        body = (
            said
            if isinstance(said, dict)
            else {names.get(status, "computeFault"): {"code": status, "message": said}}
        )
        text = b"" if status == 202 else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _cut(self, text: bytes) -> None:
        self.wfile.write(text)
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
