"""
nova-compute's part in volume snapshots: HTTP in front, Nova's own code behind.

Real are the driver that `compute_driver` names, on a real libvirtd; Nova's client for Cinder; and
the instance and its block device mapping in a database (SQLite), so that connection_info is
refreshed by Nova's own code.

    POST   /v2.1/…/os-assisted-volume-snapshots            as Nova's API: answered before it is done
    DELETE /v2.1/…/os-assisted-volume-snapshots/ID
    POST   /rig/register                                   see records.py
    POST   /rig/unregister {"volume": ID}                  it is detached
    POST   /rig/rescue {"volume": ID}                      its guest's definition is kept
    POST   /rig/unrescue {"volume": ID}                    its guest starts from that
    POST   /rig/delay {"create": S, "delete": S}           compute begins late
    POST   /rig/release                                    what is late begins now
    GET    /rig/log                                        what came in, and how each call ended
    GET    /rig/connection_info/VOLUME                     what Nova's database holds
    GET    /rig/start/VOLUME                               file and format that a start would take,
                                                           and what of an encrypted disk is besides
"""

import faulthandler
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import libvirt
from lxml import etree
from nova import config, exception, objects, utils
from nova.api.openstack.compute.schemas import assisted_volume_snapshots as schemas
from nova.db.main import api as db
from nova.db.main import models
from nova.virt import driver, fake
from nova.virt.libvirt import utils as libvirt_utils
from oslo_privsep import priv_context

from tests.openstack.rig.layout import layout_of
from tests.openstack.rig.records import admin, instance_of, mapping, register, unregister

faulthandler.register(signal.SIGUSR1)  # for told.py
LAYOUT = layout_of(Path(os.environ["RIG"]))
config.parse_args(["compute", *sys.argv[1:]])
priv_context.init(root_helper=shlex.split(utils.get_root_helper()))  # as nova.cmd.compute
objects.register_all()
models.BASE.metadata.create_all(db.get_engine())
compute = driver.load_compute_driver(fake.FakeVirtAPI())
libvirt.registerErrorHandler(lambda *_: None, None)
said: list[object] = []
delay = {"create": 0.0, "delete": 0.0}
late: list[threading.Event] = []
"""Of the calls that wait to begin."""


def keep_secret(volume: str) -> None:
    """
    Have Nova's own code fetch the key of an encrypted volume, and keep it as a secret of libvirt.

    Without a device path, of which Nova would see with cryptsetup whether it is LUKS. (It is qcow2,
    and would be formatted.)
    """
    compute._attach_encryptor(admin(), json.loads(mapping(volume).connection_info), None)


def started_from(volume: str) -> dict[str, object]:
    """What Nova's own code makes of connection_info when it starts a guest; the share is mounted."""
    info: Any = json.loads(mapping(volume).connection_info)
    device = {"dev": "vda", "bus": "virtio", "type": "disk"}
    info["data"]["device_path"] = compute._get_volume_driver(info)._get_device_path(info)
    try:
        config = compute._get_volume_config(info, device)
    except exception.NovaException as error:
        return {"error": str(error)}
    inside = [one for one in config.format_dom() if one.tag in ("encryption", "backingStore")]
    return {
        "path": config.source_path,
        "format": config.driver_format,
        "inside": "".join(etree.tostring(one, encoding="unicode") for one in inside),
    }


def keep_definition(instance: Any) -> None:
    """What a rescue does at first; the disk that the guest would be rescued with is left out."""
    path = Path(libvirt_utils.get_instance_path(instance))
    path.mkdir(parents=True, exist_ok=True)
    (path / "unrescue.xml").write_text(compute._get_existing_domain_xml(instance, None))


def work(
    what: str,
    released: threading.Event,
    late_s: float,
    call: Callable[..., object],
    *arguments: object,
) -> None:
    """As ComputeManager.volume_snapshot_*: the caller has its answer long since."""
    released.wait(late_s)
    at, begun, error = time.time(), time.perf_counter(), None
    try:
        call(*arguments)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
        traceback.print_exc()
    said.append([what, round(time.perf_counter() - begun, 4), error, at])


def begin(what: str, call: Callable[..., object], volume: str, *arguments: object) -> None:
    """Start on a thread of its own, as late as is wanted now."""
    released = threading.Event()
    late.append(released)
    whole = (what, released, delay[what], call, admin(), instance_of(volume), volume, *arguments)
    threading.Thread(target=work, args=whole).start()


class Handler(BaseHTTPRequestHandler):
    """What is asked by HTTP."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: object = None) -> None:
        """Send a reply."""
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body: Any = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path == "/rig/register":
            register(body)
            keep_secret(body["volume"])
        elif self.path == "/rig/unregister":
            unregister(body["volume"])
        elif self.path == "/rig/rescue":
            keep_definition(instance_of(body["volume"]))
        elif self.path == "/rig/unrescue":
            compute.unrescue(admin(), instance_of(body["volume"]))
        elif self.path == "/rig/delay":
            delay.update(body)
        elif self.path == "/rig/release":
            while late:
                late.pop().set()
        elif self.path.endswith("/os-assisted-volume-snapshots"):
            try:
                jsonschema.validate(body, schemas.create)
            except jsonschema.ValidationError as error:
                return self.answer(400, {"badRequest": {"code": 400, "message": error.message}})
            volume, info = body["snapshot"]["volume_id"], body["snapshot"]["create_info"]
            begin("create", compute.volume_snapshot_create, volume, info)
            said.append(["POST", info])
            return self.answer(200, {"snapshot": {"id": info.get("id"), "volumeId": volume}})
        return self.answer(200, {})

    def do_DELETE(self) -> None:
        url = urlsplit(self.path)
        info = json.loads(parse_qs(url.query)["delete_info"][0])
        snapshot = url.path.rsplit("/", 1)[1]
        begin("delete", compute.volume_snapshot_delete, info["volume_id"], snapshot, info)
        said.append(["DELETE", info])
        return self.answer(204)

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[1]
        if self.path == "/rig/log":
            # Others append meanwhile.
            return self.answer(200, [said.pop(0) for _ in range(len(said))])
        if self.path.startswith("/rig/connection_info/"):
            return self.answer(200, json.loads(mapping(name).connection_info))
        if self.path.startswith("/rig/start/"):
            return self.answer(200, started_from(name))
        if "/servers/" in self.path:  # Cinder asks before it lets an attachment go (CVE-2023-2088)
            return self.answer(404, {"itemNotFound": {"code": 404, "message": "no such server"}})
        link = {"rel": "self", "href": f"{LAYOUT.compute}/v2.1/"}
        version = {"id": "v2.1", "version": "2.96", "min_version": "2.1", "status": "CURRENT"}
        return self.answer(200, {"version": {**version, "links": [link]}})

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


# It listens before it is there: Cinder calls again at once, what a dead one has missed.
server = ThreadingHTTPServer(("127.0.0.1", LAYOUT.compute_port), Handler)
compute.init_host("rig")
server.serve_forever()
