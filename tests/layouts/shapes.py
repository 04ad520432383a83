"""The shape of the graph: deep, shared, cut off, replaced, and what hangs on no disk."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from tests.layouts.layout import (
    SHARE,
    Chain,
    Corrupt,
    Do,
    Flags,
    Image,
    Json,
    Layout,
    base,
    disk,
    file,
    opened,
)

_BASE: Final = Image(name="base", format="raw")
_TOP: Final = Image(name="top", format="qcow2", backing="base", backing_format="raw")
_CHAIN: Final = (base("raw", "base"), opened("qcow2", "top", backing="base"))
_TRUTH: Final = {"vda": (("top", "qcow2"), ("base", "raw"))}


def _deep(depth: int) -> Layout:
    """By node names where that is still readable, by the headers alone for the deepest."""
    names = [f"layer-{number:03}" for number in range(depth)]
    nodes: list[Json] = [opened("qcow2", names[-1])]
    if depth <= 40:
        nodes = [base("raw", names[0])]
        for below, name in pairwise(names[:-1]):
            nodes.append(base("qcow2", name, backing=below))
        nodes.append(opened("qcow2", names[-1], backing=names[-2]))
    return Layout(
        name=f"chain-{depth}",
        about=f"A chain of {depth} layers",
        files=(Chain(depth=depth),),
        arguments=(*nodes, *disk(names[-1])),
        truth={
            "vda": (*((name, "qcow2") for name in reversed(names[1:])), (names[0], "raw")),
        },
        is_recorded=depth <= 40,
    )


def _json_name(name: str, about: str, described: str, flags: Flags | None = None) -> Layout:
    return Layout(
        name=name,
        about=about,
        files=(
            _BASE,
            Image(name="top", format="qcow2", size=131072, backing=described, backing_format="raw"),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth=_TRUTH,
        flags=flags or {},
    )


_FILE_IN_JSON: Final = f'"file":{{"driver":"file","filename":"{SHARE}/base"}}'

LAYOUTS: Final = (
    *(_deep(depth) for depth in (2, 3, 8, 40, 200)),
    _json_name(
        "json-backing",
        "A header that describes what lies below in JSON",
        f'json:{{"driver":"raw",{_FILE_IN_JSON}}}',
    ),
    _json_name(
        "json-backing-slice",
        "A header that describes in JSON a part of a raw file",
        f'json:{{"driver":"raw","offset":65536,"size":131072,{_FILE_IN_JSON}}}',
        {"slice": frozenset({"base"})},
    ),
    Layout(
        name="json-backing-flat",
        about="A header that describes in JSON, with dotted keys",
        files=(
            _BASE,
            Image(
                name="top",
                format="qcow2",
                backing=f'json:{{"driver":"raw","file.driver":"file",'
                f'"file.filename":"{SHARE}/base"}}',
                backing_format="raw",
            ),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        name="header-lies",
        about="A header that says qcow2 of a base that QEMU was told to open as raw",
        files=(_BASE, Image(name="top", format="qcow2", backing="base", backing_format="qcow2")),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        name="header-names-another",
        about="A header that names another file than the one QEMU was given",
        files=(
            _BASE,
            Image(name="other", format="qcow2"),
            Image(name="top", format="qcow2", backing="other", backing_format="qcow2"),
        ),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        name="header-silent",
        about="An overlay whose header names nothing, over a base that QEMU was given",
        files=(_BASE, Image(name="top", format="qcow2")),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        name="backing-cut-off",
        about="An overlay opened without what its header names (`backing: null`)",
        files=(_BASE, _TOP),
        arguments=(opened("qcow2", "top", backing=None), *disk("top")),
        truth={"vda": (("top", "qcow2"),)},
    ),
    Layout(
        name="snapshot-taken",
        about="A snapshot by `blockdev-snapshot`, over a disk on `-blockdev`",
        files=(_BASE, _TOP),
        arguments=(opened("raw", "base"), *disk("base")),
        then=(
            Do(
                command="blockdev-add",
                arguments={
                    "driver": "qcow2",
                    "node-name": "top",
                    "backing": None,
                    "file": file("top"),
                },
            ),
            Do(command="blockdev-snapshot", arguments={"node": "base", "overlay": "top"}),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="snapshot-sync-taken",
        about="A snapshot by `blockdev-snapshot-sync`, over a disk on `-drive`",
        files=(_BASE,),
        arguments=("-drive", f"if=none,id=old,format=raw,file={SHARE}/base", *disk("old")),
        then=(
            Do(
                command="blockdev-snapshot-sync",
                arguments={
                    "device": "old",
                    "snapshot-file": f"{SHARE}/top",
                    "format": "qcow2",
                },
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="snapshot-over-protocol",
        about="A snapshot over a raw file without a raw node: QEMU records `file`",
        files=(_BASE,),
        arguments=(file("base", "base"), *disk("base")),
        then=(
            Do(
                command="blockdev-snapshot-sync",
                arguments={
                    "node-name": "base",
                    "snapshot-node-name": "top",
                    "snapshot-file": f"{SHARE}/top",
                    "format": "qcow2",
                },
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="shared-base",
        about="Two disks on one base, each with nodes of its own",
        files=(
            _BASE,
            *(
                Image(name=name, format="qcow2", backing="base", backing_format="raw")
                for name in ("one", "two")
            ),
        ),
        arguments=(
            opened("qcow2", "one"),
            opened("qcow2", "two"),
            *disk("one", "vda"),
            *disk("two", "vdb"),
        ),
        truth={
            "vda": (("one", "qcow2"), ("base", "raw")),
            "vdb": (("two", "qcow2"), ("base", "raw")),
        },
    ),
    Layout(
        name="shared-node",
        about="Three disks over one and the same node",
        files=(
            _BASE,
            *(
                Image(name=name, format="qcow2", backing="base", backing_format="raw")
                for name in ("one", "two", "three")
            ),
        ),
        arguments=(
            base("raw", "base"),
            *(opened("qcow2", name, backing="base") for name in ("one", "two", "three")),
            *disk("one", "vda"),
            *disk("two", "vdb"),
            *disk("three", "vdc"),
        ),
        truth={
            "vda": (("one", "qcow2"), ("base", "raw")),
            "vdb": (("two", "qcow2"), ("base", "raw")),
            "vdc": (("three", "qcow2"), ("base", "raw")),
        },
    ),
    Layout(
        name="mixed-disks",
        about="A chain, a raw disk without a raw node, and a vmdk, on three buses",
        files=(
            _BASE,
            _TOP,
            Image(name="plain", format="raw"),
            Image(name="other.vmdk", format="vmdk"),
        ),
        arguments=(
            *_CHAIN,
            *disk("top", serial="volume-1"),
            file("plain"),
            *("-device", "ide-hd,id=sda,drive=plain-file,serial=volume-2"),
            "-drive",
            f"if=none,id=old,format=vmdk,file={SHARE}/other.vmdk",
            *("-device", "virtio-scsi-pci"),
            *("-device", "scsi-hd,id=sdb,drive=old"),
        ),
        truth={
            **_TRUTH,
            "sda": (("plain", "raw"),),
            "sdb": (("other.vmdk", "vmdk"),),
        },
    ),
    Layout(
        name="names-alike",
        about="Two disks whose files are called alike but for the last letter",
        files=(
            Image(name="disk", format="raw"),
            Image(name="disk2", format="qcow2"),
        ),
        arguments=(
            opened("raw", "disk"),
            opened("qcow2", "disk2"),
            *disk("disk", "vda"),
            *disk("disk2", "vdb"),
        ),
        truth={"vda": (("disk", "raw"),), "vdb": (("disk2", "qcow2"),)},
    ),
    Layout(
        name="node-on-no-disk",
        about="A node that nothing uses, beside a disk",
        files=(_BASE, _TOP, Image(name="spare", format="qcow2")),
        arguments=(*_CHAIN, *disk("top"), opened("qcow2", "spare")),
        truth=_TRUTH,
    ),
    Layout(
        name="exported-node",
        about="A node that is on no disk, and given out over NBD",
        files=(_BASE, _TOP, Image(name="spare", format="qcow2")),
        arguments=(*_CHAIN, *disk("top"), opened("qcow2", "spare")),
        then=(
            Do(
                command="nbd-server-start",
                arguments={"addr": {"type": "unix", "data": {"path": f"{SHARE}/out.sock"}}},
            ),
            Do(
                command="block-export-add",
                arguments={
                    "type": "nbd",
                    "id": "out",
                    "node-name": "spare",
                    "writable": True,
                },
            ),
        ),
        commands=("block-export-add",),
        truth=_TRUTH,
    ),
    Layout(
        name="exported-disk",
        about="A disk that is also given out over NBD",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            Do(
                command="nbd-server-start",
                arguments={"addr": {"type": "unix", "data": {"path": f"{SHARE}/out.sock"}}},
            ),
            Do(
                command="block-export-add",
                arguments={"type": "nbd", "id": "out", "node-name": "top"},
            ),
        ),
        commands=("block-export-add",),
        truth=_TRUTH,
    ),
    Layout(
        name="bitmaps",
        about="A disk with a persistent dirty bitmap and one in memory",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            Do(
                command="block-dirty-bitmap-add",
                arguments={"node": "top", "name": "kept", "persistent": True},
            ),
            Do(
                command="block-dirty-bitmap-add",
                arguments={"node": "top", "name": "lost"},
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="reopened",
        about="A throttle filter put under a running disk by `blockdev-reopen`",
        files=(_BASE, _TOP),
        arguments=("-object", "throttle-group,id=tg0", *_CHAIN, *disk("top")),
        then=(
            Do(
                command="blockdev-add",
                arguments={
                    "driver": "throttle",
                    "node-name": "slow",
                    "throttle-group": "tg0",
                    "read-only": True,
                    "file": "base",
                },
            ),
            Do(
                command="blockdev-reopen",
                arguments={
                    "options": [
                        {
                            "driver": "qcow2",
                            "node-name": "top",
                            "file": "top-file",
                            "backing": "slow",
                        }
                    ]
                },
            ),
        ),
        commands=("blockdev-reopen",),
        truth=_TRUTH,
    ),
    Layout(
        name="renamed-header",
        about="A header rewritten under a running disk by `change-backing-file`",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            Do(
                command="change-backing-file",
                arguments={
                    "device": "top",
                    "image-node-name": "top",
                    "backing-file": "elsewhere",
                },
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="corrupt",
        about="Two disks, one of which QEMU found corrupt and shut",
        files=(
            Corrupt(name="bad"),
            _BASE,
            _TOP,
        ),
        arguments=(
            opened("qcow2", "bad"),
            *disk("bad", "vdb"),
            *_CHAIN,
            *disk("top"),
        ),
        then=(
            Do(
                command="human-monitor-command",
                arguments={
                    "command-line": 'qemu-io -d /machine/peripheral/vdb/virtio-backend "write 0 4k"'
                },
            ),
        ),
        truth={**_TRUTH, "vdb": (("file:", None),)},
    ),
)
