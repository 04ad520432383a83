"""The shape of the graph: deep, shared, cut off, replaced, and what hangs on no disk."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from tests.layouts.layout import (
    SHARE,
    Chain,
    Corrupt,
    Flags,
    Image,
    Json,
    Layout,
    base,
    disk,
    do,
    file,
    opened,
)

_BASE: Final = Image("base", "raw")
_TOP: Final = Image("top", "qcow2", "base", "raw")
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
        f"chain-{depth}",
        f"A chain of {depth} layers",
        files=(Chain(depth),),
        arguments=(*nodes, *disk(names[-1])),
        truth={"vda": (*((name, "qcow2") for name in reversed(names[1:])), (names[0], "raw"))},
        is_recorded=depth <= 40,
    )


def _json_name(name: str, about: str, described: str, flags: Flags | None = None) -> Layout:
    return Layout(
        name,
        about,
        files=(_BASE, Image("top", "qcow2", described, "raw", size=131072)),
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
        "json-backing-flat",
        "A header that describes in JSON, with dotted keys",
        files=(
            _BASE,
            Image(
                "top",
                "qcow2",
                f'json:{{"driver":"raw","file.driver":"file","file.filename":"{SHARE}/base"}}',
                "raw",
            ),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        "header-lies",
        "A header that says qcow2 of a base that QEMU was told to open as raw",
        files=(_BASE, Image("top", "qcow2", "base", "qcow2")),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        "header-names-another",
        "A header that names another file than the one QEMU was given",
        files=(_BASE, Image("other", "qcow2"), Image("top", "qcow2", "other", "qcow2")),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        "header-silent",
        "An overlay whose header names nothing, over a base that QEMU was given",
        files=(_BASE, Image("top", "qcow2")),
        arguments=(*_CHAIN, *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        "backing-cut-off",
        "An overlay opened without what its header names (`backing: null`)",
        files=(_BASE, _TOP),
        arguments=(opened("qcow2", "top", backing=None), *disk("top")),
        truth={"vda": (("top", "qcow2"),)},
    ),
    Layout(
        "snapshot-taken",
        "A snapshot by `blockdev-snapshot`, over a disk on `-blockdev`",
        files=(_BASE, _TOP),
        arguments=(opened("raw", "base"), *disk("base")),
        then=(
            do("blockdev-add", driver="qcow2", node_name="top", backing=None, file=file("top")),
            do("blockdev-snapshot", node="base", overlay="top"),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "snapshot-sync-taken",
        "A snapshot by `blockdev-snapshot-sync`, over a disk on `-drive`",
        files=(_BASE,),
        arguments=("-drive", f"if=none,id=old,format=raw,file={SHARE}/base", *disk("old")),
        then=(
            do(
                "blockdev-snapshot-sync", device="old", snapshot_file=f"{SHARE}/top", format="qcow2"
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "snapshot-over-protocol",
        "A snapshot over a raw file without a raw node: QEMU records `file`",
        files=(_BASE,),
        arguments=(file("base", "base"), *disk("base")),
        then=(
            do(
                "blockdev-snapshot-sync",
                node_name="base",
                snapshot_node_name="top",
                snapshot_file=f"{SHARE}/top",
                format="qcow2",
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "shared-base",
        "Two disks on one base, each with nodes of its own",
        files=(_BASE, *(Image(name, "qcow2", "base", "raw") for name in ("one", "two"))),
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
        "shared-node",
        "Three disks over one and the same node",
        files=(_BASE, *(Image(name, "qcow2", "base", "raw") for name in ("one", "two", "three"))),
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
        "mixed-disks",
        "A chain, a raw disk without a raw node, and a vmdk, on three buses",
        files=(_BASE, _TOP, Image("plain", "raw"), Image("other.vmdk", "vmdk")),
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
        truth={**_TRUTH, "sda": (("plain", "raw"),), "sdb": (("other.vmdk", "vmdk"),)},
    ),
    Layout(
        "names-alike",
        "Two disks whose files are called alike but for the last letter",
        files=(Image("disk", "raw"), Image("disk2", "qcow2")),
        arguments=(
            opened("raw", "disk"),
            opened("qcow2", "disk2"),
            *disk("disk", "vda"),
            *disk("disk2", "vdb"),
        ),
        truth={"vda": (("disk", "raw"),), "vdb": (("disk2", "qcow2"),)},
    ),
    Layout(
        "node-on-no-disk",
        "A node that nothing uses, beside a disk",
        files=(_BASE, _TOP, Image("spare", "qcow2")),
        arguments=(*_CHAIN, *disk("top"), opened("qcow2", "spare")),
        truth=_TRUTH,
    ),
    Layout(
        "exported-node",
        "A node that is on no disk, and given out over NBD",
        files=(_BASE, _TOP, Image("spare", "qcow2")),
        arguments=(*_CHAIN, *disk("top"), opened("qcow2", "spare")),
        then=(
            do("nbd-server-start", addr={"type": "unix", "data": {"path": f"{SHARE}/out.sock"}}),
            do("block-export-add", type="nbd", id="out", node_name="spare", writable=True),
        ),
        commands=("block-export-add",),
        truth=_TRUTH,
    ),
    Layout(
        "exported-disk",
        "A disk that is also given out over NBD",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            do("nbd-server-start", addr={"type": "unix", "data": {"path": f"{SHARE}/out.sock"}}),
            do("block-export-add", type="nbd", id="out", node_name="top"),
        ),
        commands=("block-export-add",),
        truth=_TRUTH,
    ),
    Layout(
        "bitmaps",
        "A disk with a persistent dirty bitmap and one in memory",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            do("block-dirty-bitmap-add", node="top", name="kept", persistent=True),
            do("block-dirty-bitmap-add", node="top", name="lost"),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "reopened",
        "A throttle filter put under a running disk by `blockdev-reopen`",
        files=(_BASE, _TOP),
        arguments=("-object", "throttle-group,id=tg0", *_CHAIN, *disk("top")),
        then=(
            do(
                "blockdev-add",
                driver="throttle",
                node_name="slow",
                throttle_group="tg0",
                read_only=True,
                file="base",
            ),
            do(
                "blockdev-reopen",
                options=[
                    {"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "slow"}
                ],
            ),
        ),
        commands=("blockdev-reopen",),
        truth=_TRUTH,
    ),
    Layout(
        "renamed-header",
        "A header rewritten under a running disk by `change-backing-file`",
        files=(_BASE, _TOP),
        arguments=(*_CHAIN, *disk("top")),
        then=(
            do(
                "change-backing-file", device="top", image_node_name="top", backing_file="elsewhere"
            ),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "corrupt",
        "Two disks, one of which QEMU found corrupt and shut",
        files=(Corrupt("bad"), _BASE, _TOP),
        arguments=(opened("qcow2", "bad"), *disk("bad", "vdb"), *_CHAIN, *disk("top")),
        then=(
            do(
                "human-monitor-command",
                command_line='qemu-io -d /machine/peripheral/vdb/virtio-backend "write 0 4k"',
            ),
        ),
        truth={**_TRUTH, "vdb": (("file:", None),)},
    ),
)
