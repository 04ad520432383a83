"""A QEMU with one layout, for as long as a context is open. Everything in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from qmpsnap.errors import QmpsnapError
from qmpsnap.graph.qmp import jobs_from
from qmpsnap.monitor.socket import SocketMonitor
from tests.layouts.layout import (
    LOOP,
    MIB,
    SHARE,
    WEB,
    Chain,
    Corrupt,
    Descriptor,
    Do,
    File,
    Filled,
    Forged,
    Helper,
    Image,
    Json,
    Layout,
    LoopDevice,
    NbdServer,
    Until,
    WebServer,
)
from tests.rig.beside import Refusal, loop_device, nbd_server, run
from tests.rig.headers import without_format
from tests.rig.images import foreign_qcow2_header
from tests.rig.waiting import HANG_S, until

_MACHINE: Final = (
    *("-M", "pc", "-accel", "tcg", "-m", "32"),
    *("-S", "-nodefaults", "-no-user-config", "-display", "none"),
)
_CLUSTER_BITS: Final = 12


class Kept:
    """
    Images that are copied and not made again, by the arguments that make them.

    A copy costs a hundredth of a qemu-img, and of an encrypted one a ten thousandth (PBKDF2).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folders: dict[Image, Path] = {}

    def put(self, image: Image, folder: Path) -> None:
        """Copy an image into a folder; also the first time, so that each has as many holes."""
        there = self._folders.get(image)
        if there is None:
            there = Path(tempfile.mkdtemp(dir=self._folder))
            _create(image, there)
            self._folders[image] = there
        for name in (image.name, *image.also):
            shutil.copyfile(there / name, folder / name)


class Running:
    """A QEMU with a layout."""

    def __init__(self, monitor: SocketMonitor, places: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.places = places
        """What stands in this run for the names that the catalogue uses."""

    def do(self, command: str, arguments: Json | None = None) -> object:
        """Send a QMP command."""
        return self.monitor.execute(command, arguments)

    def until(self, wanted: Until) -> None:
        """Wait for a job; there is no event for every state."""

        def reached() -> bool:
            jobs = {job.id: job for job in jobs_from(self.do("query-jobs"))}
            job = jobs.get(wanted.job)
            return (job.status if job else None) == wanted.status

        until(reached, str(wanted))


@contextmanager
def running(layout: Layout, kept: Kept | None = None) -> Iterator[Running]:
    """
    Make the files, start QEMU, and carry out the layout's commands.

    Raises:
        NotHere: Something that the layout needs cannot be had here.
        Refusal: QEMU or qemu-img refused its arguments.
    """
    with ExitStack() as stack:
        # Not pytest's folder: the path of a UNIX socket has at most 107 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ly-", dir="/tmp")))
        places = {SHARE: str(folder)}
        for one in layout.files:
            _make(one, folder, kept)
        descriptors: list[int] = []
        for helper in layout.helpers:
            stack.enter_context(_help(helper, folder, places, descriptors))
        words: list[str] = []
        for argument in layout.arguments:
            words += (
                [argument] if isinstance(argument, str) else ["-blockdev", json.dumps(argument)]
            )
        words = [_placed(word, places) for word in words]
        if descriptors:
            words = ["-add-fd", f"fd={descriptors[0]},set=1", *words]
        monitor = stack.enter_context(_qemu(words, folder, descriptors))
        guest = Running(monitor, places)
        for step in layout.then:
            match step:
                case Do():
                    arguments = json.loads(_placed(json.dumps(step.arguments), places))
                    guest.do(step.command, arguments)
                case Until():
                    guest.until(step)
        yield guest


def _placed(text: str, places: Mapping[str, str]) -> str:
    for name, real in places.items():
        # A relative name counts from /, QEMU's folder in these tests.
        text = text.replace(name, real).replace(f"relative:{real}/", f"{real[1:]}/")
    return text


# Files.


def _make(wanted: File, folder: Path, kept: Kept | None) -> None:
    match wanted:
        case Image() if kept is not None and SHARE not in f"{wanted.backing} {wanted.options}":
            kept.put(wanted, folder)
        case Image():
            _create(wanted, folder)
        case Filled():
            _fill(wanted, folder)
        case Chain():
            _chain(wanted.depth, folder)
        case Forged():
            header = foreign_qcow2_header(MIB, wanted.backing.encode(), None)
            (folder / wanted.name).write_bytes(header.ljust(MIB, b"\0"))
        case Corrupt():
            _corrupt(folder / wanted.name)


def _create(image: Image, folder: Path) -> None:
    words = ["qemu-img", "create", "-q"]
    if image.object is not None:
        words += ["--object", image.object]
    words += ["-f", image.format]
    if image.backing is not None:
        words += ["-u", "-b", image.backing, "-F", image.backing_format or "raw"]
    if image.options is not None:
        words += ["-o", image.options]
    path = folder / image.name
    run(*(word.replace(SHARE, str(folder)) for word in words), str(path), str(image.size))
    if image.forgets_format:
        without_format(path)


def _fill(wanted: Filled, folder: Path) -> None:
    path = folder / wanted.name
    content = (bytes(range(1, 256)) * (wanted.size // 255 + 1))[: wanted.size]
    if wanted.format == "raw":
        path.write_bytes(content)
        return
    # Turned by one, so that no sector is as in the file below, which convert would leave out.
    source = folder / f"{wanted.name}.in"
    source.write_bytes(content[1:] + content[:1] if wanted.backing else content)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    if wanted.backing:
        below = folder / wanted.backing
        words += ["-o", f"backing_file={below},backing_fmt={wanted.backing_format}"]
    run(*words, str(source), str(path))
    source.unlink()


def _chain(depth: int, folder: Path) -> None:
    (folder / "layer-000").write_bytes(bytes(MIB))
    first = Image("layer-001", "qcow2", "layer-000", "raw", options="cluster_size=4096")
    second = Image("layer-002", "qcow2", "layer-001", "qcow2", options="cluster_size=4096")
    _create(first, folder)
    _create(second, folder)
    content = (folder / "layer-002").read_bytes()
    assert content.count(b"layer-001") == 1
    for number in range(3, depth):
        below = b"layer-%03d" % (number - 1)
        (folder / f"layer-{number:03}").write_bytes(content.replace(b"layer-001", below))


def _corrupt(path: Path) -> None:
    """Source: docs/interop/qcow2.txt: L1 and L2 entries are offsets with flags in the top bits."""
    _create(Image(path.name, "qcow2", options=f"cluster_size={1 << _CLUSTER_BITS}"), path.parent)
    content = bytearray(path.read_bytes())
    (table,) = struct.unpack_from(">Q", content, 40)
    level2 = -(-len(content) // (1 << _CLUSTER_BITS)) << _CLUSTER_BITS
    content += bytes(level2 - len(content) + (1 << _CLUSTER_BITS))
    copied = 1 << 63
    struct.pack_into(">Q", content, table, level2 | copied)
    struct.pack_into(">Q", content, level2, table | copied)
    path.write_bytes(content)


# What stands beside QEMU.


@contextmanager
def _help(
    helper: Helper, folder: Path, places: dict[str, str], descriptors: list[int]
) -> Iterator[None]:
    match helper:
        case NbdServer():
            with nbd_server(folder / "nbd.sock", "-f", helper.format, str(folder / helper.file)):
                yield
        case WebServer():
            with _web(folder, helper.tls) as address:
                places[WEB] = address
                yield
        case LoopDevice():
            with loop_device(folder / helper.file) as device:
                places[LOOP] = device
                yield
        case Descriptor():
            number = os.open(folder / helper.file, os.O_RDWR | os.O_CLOEXEC)
            descriptors.append(number)
            try:
                yield
            finally:
                os.close(number)


class _Handler(SimpleHTTPRequestHandler):
    """With ranges of bytes, which QEMU asks for and Python's server does not know."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def _web(folder: Path, tls: bool) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        server.daemon_threads = True
        if tls:
            key, certificate = str(folder / "tls.key"), str(folder / "tls.pem")
            run(
                *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-keyout", key, "-out", certificate),
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


# QEMU.


@contextmanager
def _qemu(
    words: Sequence[str], folder: Path, descriptors: Sequence[int]
) -> Iterator[SocketMonitor]:
    output = folder / "qemu.log"
    with ExitStack() as stack:
        with ExitStack() as handed:
            # Listened on before QEMU starts: a client waits for the greeting, and never finds
            # that there is no socket.
            listener = handed.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(folder / "qmp.sock"))
            listener.listen()
            log = handed.enter_context(output.open("ab"))
            process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", *_MACHINE),
                    *("-chardev", f"socket,id=m,fd={listener.fileno()},server=on,wait=off"),
                    *("-mon", "chardev=m,mode=control", *words),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno(), *descriptors],
                cwd="/",
                # QEMU's temporary overlay (snapshot=on) goes here.
                env={**os.environ, "TMPDIR": str(folder)},
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        try:
            monitor = SocketMonitor.connect(str(folder / "qmp.sock"), timeout=HANG_S)
        except QmpsnapError as error:
            process.kill()
            process.wait()
            raise Refusal(output.read_text(errors="replace").strip() or str(error)) from error
        # The socket is ours, so by itself the monitor would take this process for QEMU.
        monitor.pid = process.pid
        stack.callback(monitor.close)
        yield monitor
