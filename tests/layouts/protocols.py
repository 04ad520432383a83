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
_RAW: Final = Image(name="disk", format="raw")
_QCOW2: Final = Image(name="disk", format="qcow2")


def _web(scheme: str, format: str) -> Layout:
    options = {"sslverify": False} if scheme == "https" else {}
    return Layout(
        name=f"{scheme}-{format}",
        about=f"A {format} disk on a web server ({scheme}), read-only",
        files=(Image(name="disk", format=format),),
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
        name="host-device",
        about="A raw block device of the host",
        files=(_RAW,),
        helpers=(LoopDevice(file="disk"),),
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
        name="host-device-without-node",
        about="A raw block device of the host, without a raw node",
        files=(_RAW,),
        helpers=(LoopDevice(file="disk"),),
        arguments=(
            {"driver": "host_device", "node-name": "device", "filename": LOOP},
            *disk("device"),
        ),
        drivers=("host_device",),
        truth={"vda": (("loop0", "raw"),)},
    ),
    Layout(
        name="host-device-qcow2",
        about="A qcow2 on a block device of the host, over a raw file",
        files=(
            Image(name="base", format="raw"),
            Image(
                name="disk",
                format="qcow2",
                backing=f"{SHARE}/base",
                backing_format="raw",
            ),
        ),
        helpers=(LoopDevice(file="disk"),),
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
        name="nbd-raw",
        about="A raw disk of an NBD server",
        files=(_RAW,),
        helpers=(NbdServer(file="disk", format="raw"),),
        arguments=({"driver": "raw", "node-name": "disk", "file": _NBD}, *disk("disk")),
        truth={"vda": (("nbd:", "raw"),)},
    ),
    Layout(
        name="nbd-without-node",
        about="A disk of an NBD server, which has a qcow2 there, without a raw node",
        files=(_QCOW2,),
        helpers=(NbdServer(file="disk", format="qcow2"),),
        arguments=(_NBD, *disk("net")),
        truth={"vda": (("nbd:", "raw"),)},
    ),
    Layout(
        name="nbd-qcow2",
        about="A qcow2 that an NBD server gives out as raw bytes",
        files=(_QCOW2,),
        helpers=(NbdServer(file="disk", format="raw"),),
        arguments=({"driver": "qcow2", "node-name": "disk", "file": _NBD}, *disk("disk")),
        truth={"vda": (("nbd:", "qcow2"),)},
    ),
    Layout(
        name="nbd-below",
        about="A local qcow2 over a raw disk of an NBD server",
        files=(
            _RAW,
            Image(
                name="top",
                format="qcow2",
                backing=f"nbd+unix:///?socket={SHARE}/nbd.sock",
                backing_format="raw",
            ),
        ),
        helpers=(NbdServer(file="disk", format="raw"),),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("nbd:", "raw"))},
    ),
    Layout(
        name="null-co",
        about="Nothing but zeros",
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
        name="null-aio-below",
        about="A qcow2 over nothing",
        files=(Image(name="top", format="qcow2"),),
        arguments=(
            {"driver": "null-aio", "node-name": "nothing", "size": 1048576, "read-only": True},
            opened("qcow2", "top", backing="nothing"),
            *disk("top"),
        ),
        truth={"vda": (("top", "qcow2"), ("null-aio:", "raw"))},
    ),
    *(_web(scheme, format) for scheme in ("http", "https") for format in ("raw", "qcow2")),
    Layout(
        name="http-below",
        about="A local qcow2 over a raw disk on a web server, as in its header",
        files=(
            _RAW,
            Image(name="top", format="qcow2", backing=f"http://{WEB}/disk", backing_format="raw"),
        ),
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
        name="fdset",
        about="A raw disk handed over as an open file: QEMU does not know its name",
        files=(_RAW,),
        helpers=(Descriptor(file="disk"),),
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
        name="fdset-qcow2",
        about="A qcow2 handed over as an open file, over a raw file",
        files=(
            Image(name="base", format="raw"),
            Image(name="disk", format="qcow2", backing=f"{SHARE}/base", backing_format="raw"),
        ),
        helpers=(Descriptor(file="disk"),),
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
        name="relative-name",
        about="A chain by relative names: QEMU's argument, and in the header",
        files=(
            Image(name="base", format="raw"),
            Image(name="top", format="qcow2", backing="base", backing_format="raw"),
        ),
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
        name="name-with-colon",
        about="A file whose name has a colon, a comma, a quote and a blank",
        files=(Image(name='a:b,c" d', format="raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file('a:b,c" d', "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (('a:b,c" d', "raw"),)},
    ),
    Layout(
        name="json-like-name",
        about="A file whose name begins like a description in JSON",
        files=(Image(name="json:{}", format="raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file("json:{}", "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (("json:{}", "raw"),)},
    ),
    Layout(
        name="protocol-like-name",
        about="A file whose name begins like a protocol",
        files=(Image(name="nbd:disk", format="raw"),),
        arguments=(
            {"driver": "raw", "node-name": "disk", "file": file("nbd:disk", "disk-file")},
            *disk("disk"),
        ),
        truth={"vda": (("nbd:disk", "raw"),)},
    ),
)
