"""Every format, alone and as what lies below a qcow2."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import MIB, SHARE, Filled, Forged, Image, Layout, base, disk, file, opened

_SECRET: Final = ("-object", "secret,id=s0,data=x")
_KEY: Final = {"key-secret": "s0"}
_FOR_IMG: Final = "secret,id=s0,data=x"
# With a shorter time qemu-img gives up more often: it cannot measure how fast it is.
_LUKS_BASE: Final = Image("base", "luks", options="iter-time=200,key-secret=s0", object=_FOR_IMG)


def _alone(
    format: str, about: str, *, options: str | None = None, drivers: tuple[str, ...] = ()
) -> Layout:
    also = ("disk-flat.vmdk",) if options and "Flat" in options else ()
    suffix = "-flat" if also else ""
    name = f"disk.{format}"
    return Layout(
        f"format-{format}{suffix}",
        about,
        files=(Image(name, format, options=options, also=also),),
        arguments=(opened(format, name), *disk(name)),
        drivers=drivers,
        truth={"vda": ((name, format),)},
    )


def _below(format: str) -> Layout:
    name = f"base.{format}"
    return Layout(
        f"below-{format}",
        f"A qcow2 over {format}",
        files=(Image(name, format), Image("top", "qcow2", name, format)),
        arguments=(base(format, name), opened("qcow2", "top", backing=name), *disk("top")),
        truth={"vda": (("top", "qcow2"), (name, format))},
    )


def _sliced(name: str) -> dict[str, object]:
    return {"driver": "raw", "node-name": name, "offset": 65536, "size": 131072, "file": file(name)}


LAYOUTS: Final = (
    _alone("raw", "A raw disk"),
    _alone("qcow2", "A qcow2 disk"),
    _alone("qed", "A qed disk"),
    _alone("vmdk", "A vmdk disk in one sparse file"),
    _alone(
        "vmdk", "A vmdk disk with its data in a second file", options="subformat=monolithicFlat"
    ),
    _alone("vdi", "A vdi disk"),
    _alone("vhdx", "A vhdx disk"),
    _alone("vpc", "A vpc (VHD) disk"),
    _alone("qcow", "A disk of qcow2's forerunner", drivers=("qcow",)),
    _alone("parallels", "A parallels disk", drivers=("parallels",)),
    Layout(
        "format-luks",
        "A LUKS disk",
        files=(_LUKS_BASE,),
        arguments=(*_SECRET, opened("luks", "base", **_KEY), *disk("base")),
        flags={"encrypted": frozenset({"base"})},
        truth={"vda": (("base", "luks"),)},
    ),
    *(_below(format) for format in ("raw", "qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc")),
    Layout(
        "below-luks",
        "A qcow2 over LUKS",
        files=(_LUKS_BASE, Image("top", "qcow2", "base", "luks")),
        arguments=(
            *_SECRET,
            base("luks", "base", **_KEY),
            opened("qcow2", "top", backing="base"),
            *disk("top"),
        ),
        flags={"encrypted": frozenset({"base"})},
        truth={"vda": (("top", "qcow2"), ("base", "luks"))},
    ),
    Layout(
        "qcow2-luks",
        "An encrypted qcow2 over LUKS",
        files=(
            _LUKS_BASE,
            Image(
                "top",
                "qcow2",
                "base",
                "luks",
                options="encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=200",
                object=_FOR_IMG,
            ),
        ),
        arguments=(
            *_SECRET,
            base("luks", "base", **_KEY),
            opened("qcow2", "top", backing="base", encrypt={"format": "luks", **_KEY}),
            *disk("top"),
        ),
        flags={"encrypted": frozenset({"base", "top"})},
        truth={"vda": (("top", "qcow2"), ("base", "luks"))},
    ),
    Layout(
        "raw-slice",
        "A part of a raw file (offset, size)",
        files=(Image("disk", "raw"),),
        arguments=(_sliced("disk"), *disk("disk")),
        flags={"slice": frozenset({"disk"})},
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "raw-slice-below",
        "A qcow2 over a part of a raw file",
        files=(Image("base", "raw"), Image("top", "qcow2", "base", "raw", size=131072)),
        arguments=(
            {**_sliced("base"), "read-only": True},
            opened("qcow2", "top", backing="base"),
            *disk("top"),
        ),
        flags={"slice": frozenset({"base"})},
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "raw-slice-holds-qcow2",
        "A qcow2 that lies in a part of a file",
        files=(Image("disk", "qcow2", options="preallocation=full"),),
        arguments=(
            {
                "driver": "qcow2",
                "node-name": "disk",
                "file": {
                    "driver": "raw",
                    "node-name": "part",
                    "offset": 0,
                    "size": MIB,
                    "file": file("disk"),
                },
            },
            *disk("disk"),
        ),
        flags={"slice": frozenset({"disk"})},
        truth={"vda": (("disk", "qcow2"),)},
    ),
    Layout(
        "raw-over-raw",
        "Two raw nodes over one file",
        files=(Image("disk", "raw"),),
        arguments=(
            {"driver": "raw", "node-name": "outer", "file": opened("raw", "disk")},
            *disk("outer"),
        ),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "raw-over-slice",
        "A raw node over a part of a raw file",
        files=(Image("disk", "raw"),),
        arguments=(
            {"driver": "raw", "node-name": "outer", "file": _sliced("disk")},
            *disk("outer"),
        ),
        flags={"slice": frozenset({"disk"})},
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "raw-without-node",
        "A raw disk whose protocol node stands in the format's place",
        files=(Image("disk", "raw"),),
        arguments=(file("disk"), *disk("disk-file")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "raw-without-node-below",
        "A qcow2 over a raw file without a raw node",
        files=(Image("base", "raw"), Image("top", "qcow2", "base", "raw")),
        arguments=(
            file("base", read_only=True),
            opened("qcow2", "top", backing="base-file"),
            *disk("top"),
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "forged-raw",
        "A raw disk in which the guest has written a qcow2 header",
        files=(Forged("disk", backing="/etc/hostname"),),
        arguments=(opened("raw", "disk"), *disk("disk")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "forged-raw-below",
        "A qcow2 over a raw file in which the guest has written a qcow2 header",
        files=(Forged("base", backing="/etc/hostname"), Image("top", "qcow2", "base", "raw")),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "raw-holds-qcow2",
        "A raw disk that holds a qcow2 as data, opened as the raw it is",
        files=(Image("disk", "qcow2"),),
        arguments=(opened("raw", "disk"), *disk("disk")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "qcow2-data-file",
        "A qcow2 with an external data file",
        files=(Image("disk", "qcow2", options=f"data_file={SHARE}/disk.data"),),
        arguments=(opened("qcow2", "disk", data_file=file("disk.data", "data")), *disk("disk")),
        flags={"data-file": frozenset({"disk"})},
        truth={"vda": (("disk", "qcow2"),)},
    ),
    Layout(
        "qcow2-data-file-raw",
        "A qcow2 with an external data file that is raw, opened by the header",
        files=(Image("disk", "qcow2", options=f"data_file={SHARE}/disk.data,data_file_raw=on"),),
        arguments=(opened("qcow2", "disk"), *disk("disk")),
        flags={"data-file": frozenset({"disk"})},
        truth={"vda": (("disk", "qcow2"),)},
    ),
    Layout(
        "qcow2-data-file-below",
        "A qcow2 over a qcow2 with an external data file",
        files=(
            Image("base", "qcow2", options=f"data_file={SHARE}/base.data"),
            Image("top", "qcow2", "base", "qcow2"),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        flags={"data-file": frozenset({"base"})},
        truth={"vda": (("top", "qcow2"), ("base", "qcow2"))},
    ),
    Layout(
        "qcow2-extended-l2",
        "A qcow2 with extended L2 entries, over raw",
        files=(
            Image("base", "raw"),
            Image("top", "qcow2", "base", "raw", options="extended_l2=on,cluster_size=131072"),
        ),
        arguments=(base("raw", "base"), opened("qcow2", "top", backing="base"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "qcow2-v2",
        "A qcow2 of version 2 over a qcow2 of version 2",
        files=(
            Image("base", "qcow2", options="compat=0.10"),
            Image("top", "qcow2", "base", "qcow2", options="compat=0.10"),
        ),
        arguments=(base("qcow2", "base"), opened("qcow2", "top", backing="base"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("base", "qcow2"))},
    ),
    Layout(
        "qcow2-larger",
        "An overlay larger than what it lies over",
        files=(Filled("base"), Image("top", "qcow2", "base", "raw", size=2 * MIB)),
        arguments=(base("raw", "base"), opened("qcow2", "top", backing="base"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
)
