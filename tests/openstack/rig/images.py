"""As much of an image service as Cinder needs to upload a volume to it (Glance, version 2)."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PLAIN = (
    *("id", "name", "status", "visibility", "container_format", "disk_format", "created_at"),
    *("updated_at", "min_disk", "min_ram", "tags"),
)
_SCHEMA = {
    "name": "image",
    "properties": {one: {"is_base": True} for one in _PLAIN},
    "additionalProperties": {},
}


class Images(ThreadingHTTPServer):
    """Keeps the data of each image in a file of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.known: dict[str, dict[str, Any]] = {}

    def data(self, image: str) -> Path:
        """What was uploaded."""
        return self.folder / image


class Handler(BaseHTTPRequestHandler):
    """What is asked by HTTP."""

    protocol_version = "HTTP/1.1"
    server: Images

    def _answer(self, status: int, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _read(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = []
        while size := int(self.rfile.readline(), 16):
            found.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(found)

    def do_GET(self) -> None:
        if self.path.startswith("/v2/schemas/"):
            return self._answer(200, _SCHEMA)
        image = self.server.known.get(self.path.rsplit("/", 1)[1])
        return self._answer(404) if image is None else self._answer(200, image)

    def do_POST(self) -> None:
        image = str(uuid.uuid4())
        asked = json.loads(self._read())
        now = "2026-11-26T00:00:00Z"
        plain = {"id": image, "status": "queued", "created_at": now, "updated_at": now}
        self.server.known[image] = plain | {"min_disk": 0, "min_ram": 0, "tags": []} | asked
        self._answer(201, self.server.known[image])

    def do_PUT(self) -> None:
        image = self.path.split("/")[3]
        self.server.data(image).write_bytes(self._read())
        self.server.known[image]["status"] = "active"
        self._answer(204)

    def do_PATCH(self) -> None:
        self._read()
        self._answer(200, self.server.known[self.path.rsplit("/", 1)[1]])

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def images_in(folder: Path) -> Iterator[Images]:
    """Serve until the end of the block."""
    with Images(folder) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            service.shutdown()
