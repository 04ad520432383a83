"""What holds the bytes: files, block devices, servers, descriptors, nothing at all."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import (
    LOOP,
    SHARE,
    WEB,
    Descriptor,
    Image,
    Layout,
    LoopDevice,
    NbdServer,
    WebServer,
    base,
    disk,
    file,
    opened,
)

_NBD: Final = {
    "driver": "nbd",
    "node-name": "net",
    "server": {"type": "unix", "path": f"{SHARE}/nbd.sock"},
}
_RAW: Final = Image("disk", "raw")
_QCOW2: Final = Image("disk", "qcow2")


def _web(scheme: str, format: str) -> Layout:
    options = {"sslverify": False} if scheme == "https" else {}
    return Layout(
        f"{scheme}-{format}",
        f"A {format} disk on a web server ({scheme}), read-only",
        files=(Image("disk", format),),
        helpers=(WebServer(tls=scheme == "https"),),
        arguments=(
            {
                "driver": format,
                "node-name": "disk",
                "read-only": True,
                "file": {
                    "driver": scheme,
                    "node-name": "net",
                    "url": f"{scheme}://{WEB}/disk",
                    "read-only": True,
                    **options,
                },
            },
            *("-device", "virtio-scsi-pci"),
            *("-device", "scsi-cd,id=vda,drive=disk"),
        ),
        drivers=(scheme,),
        truth={"vda": ((f"{scheme}:", format),)},
    )


LAYOUTS: Final = (
    Layout(
        "host-device",
        "A raw block device of the host",
        files=(_RAW,),
        helpers=(LoopDevice("disk"),),
        arguments=(
            {
                "driver": "raw",
                "node-name": "disk",
                "file": {"driver": "host_device", "node-name": "device", "filename": LOOP},
            },
            *disk("disk"),
        ),
        drivers=("host_device",),
        truth={"vda": (("loop0", "raw"),)},
    ),
    Layout(
        "host-device-without-node",
        "A raw block device of the host, without a raw node",
        files=(_RAW,),
        helpers=(LoopDevice("disk"),),
        arguments=(
            {"driver": "host_device", "node-name": "device", "filename": LOOP},
            *disk("device"),
        ),
        drivers=("host_device",),
        truth={"vda": (("loop0", "raw"),)},
    ),
    Layout(
        "host-device-qcow2",
        "A qcow2 on a block device of the host, over a raw file",
        files=(Image("base", "raw"), Image("disk", "qcow2", f"{SHARE}/base", "raw")),
        helpers=(LoopDevice("disk"),),
        arguments=(
            base("raw", "base"),
            {
                "driver": "qcow2",
                "node-name": "disk",
                "backing": "base",
                "file": {"driver": "host_device", "node-name": "device", "filename": LOOP},
            },
            *disk("disk"),
        ),
        drivers=("host_device",),
        truth={"vda": (("loop0", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "nbd-raw",
        "A raw disk of an NBD server",
        files=(_RAW,),
        helpers=(NbdServer("disk", "raw"),),
        arguments=({"driver": "raw", "node-name": "disk", "file": _NBD}, *disk("disk")),
        truth={"vda": (("nbd:", "raw"),)},
    ),
    Layout(
        "nbd-without-node",
        "A disk of an NBD server, which has a qcow2 there, without a raw node",
        files=(_QCOW2,),
        helpers=(NbdServer("disk", "qcow2"),),
        arguments=(_NBD, *disk("net")),
        truth={"vda": (("nbd:", "raw"),)},
    ),
    Layout(
        "nbd-qcow2",
        "A qcow2 that an NBD server gives out as raw bytes",
        files=(_QCOW2,),
        helpers=(NbdServer("disk", "raw"),),
        arguments=({"driver": "qcow2", "node-name": "disk", "file": _NBD}, *disk("disk")),
        truth={"vda": (("nbd:", "qcow2"),)},
    ),
    Layout(
        "nbd-below",
        "A local qcow2 over a raw disk of an NBD server",
        files=(_RAW, Image("top", "qcow2", f"nbd+unix:///?socket={SHARE}/nbd.sock", "raw")),
        helpers=(NbdServer("disk", "raw"),),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("nbd:", "raw"))},
    ),
    Layout(
        "null-co",
        "Nothing but zeros",
        arguments=(
            {
                "driver": "raw",
                "node-name": "disk",
                "file": {
                    "driver": "null-co",
                    "node-name": "nothing",
                    "size": 1048576,
                    "read-zeroes": True,
                },
            },
            *disk("disk"),
        ),
        truth={"vda": (("null-co:", "raw"),)},
    ),
    Layout(
        "null-aio-below",
        "A qcow2 over nothing",
        files=(Image("top", "qcow2"),),
        arguments=(
            {"driver": "null-aio", "node-name": "nothing", "size": 1048576, "read-only": True},
            opened("qcow2", "top", backing="nothing"),
            *disk("top"),
        ),
        truth={"vda": (("top", "qcow2"), ("null-aio:", "raw"))},
    ),
    *(_web(scheme, format) for scheme in ("http", "https") for format in ("raw", "qcow2")),
    Layout(
        "http-below",
        "A local qcow2 over a raw disk on a web server, as in its header",
        files=(_RAW, Image("top", "qcow2", f"http://{WEB}/disk", "raw")),
        helpers=(WebServer(),),
        arguments=(
            {
                "driver": "raw",
                "node-name": "below",
                "read-only": True,
                "file": {
                    "driver": "http",
                    "node-name": "net",
                    "url": f"http://{WEB}/disk",
                    "read-only": True,
                },
            },
            opened("qcow2", "top", backing="below"),
            *disk("top"),
        ),
        drivers=("http",),
        truth={"vda": (("top", "qcow2"), ("http:", "raw"))},
    ),
    Layout(
        "fdset",
        "A raw disk handed over as an open file: QEMU does not know its name",
        files=(_RAW,),
        helpers=(Descriptor("disk"),),
        arguments=(
            {
                "driver": "raw",
                "node-name": "disk",
                "file": {"driver": "file", "node-name": "passed", "filename": "/dev/fdset/1"},
            },
            *disk("disk"),
        ),
        truth={"vda": (("file:", "raw"),)},
    ),
    Layout(
        "fdset-qcow2",
        "A qcow2 handed over as an open file, over a raw file",
        files=(Image("base", "raw"), Image("disk", "qcow2", f"{SHARE}/base", "raw")),
        helpers=(Descriptor("disk"),),
        arguments=(
            base("raw", "base"),
            {
                "driver": "qcow2",
                "node-name": "disk",
                "backing": "base",
                "file": {"driver": "file", "node-name": "passed", "filename": "/dev/fdset/1"},
            },
            *disk("disk"),
        ),
        truth={"vda": (("file:", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "relative-name",
        "A chain by relative names: QEMU's argument, and in the header",
        files=(Image("base", "raw"), Image("top", "qcow2", "base", "raw")),
        arguments=(
            {
                "driver": "qcow2",
                "node-name": "top",
                "file": {
                    "driver": "file",
                    "node-name": "top-file",
                    "filename": f"relative:{SHARE}/top",
                },
            },
            *disk("top"),
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "name-with-colon",
        "A file whose name has a colon, a comma, a quote and a blank",
        files=(Image('a:b,c" d', "raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file('a:b,c" d', "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (('a:b,c" d', "raw"),)},
    ),
    Layout(
        "json-like-name",
        "A file whose name begins like a description in JSON",
        files=(Image("json:{}", "raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file("json:{}", "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (("json:{}", "raw"),)},
    ),
    Layout(
        "protocol-like-name",
        "A file whose name begins like a protocol",
        files=(Image("nbd:disk", "raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file("nbd:disk", "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (("nbd:disk", "raw"),)},
    ),
)
