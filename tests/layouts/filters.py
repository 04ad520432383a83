"""Filter nodes that the administrator put in: on top, between layers, and below a format."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import Image, Json, Layout, base, disk, file, opened

_GROUP: Final = ("-object", "throttle-group,id=tg0")
_FILES: Final = (Image("base", "raw"), Image("top", "qcow2", "base", "raw"))
_THREE: Final = (
    Image("base", "raw"),
    Image("mid", "qcow2", "base", "raw"),
    Image("top", "qcow2", "mid", "qcow2"),
)
_TRUTH: Final = {"vda": (("top", "qcow2"), ("base", "raw"))}
_TRUTH_OF_THREE: Final = {"vda": (("top", "qcow2"), ("mid", "qcow2"), ("base", "raw"))}
_THROTTLE: Final = {"driver": "throttle", "node-name": "filter", "throttle-group": "tg0"}


def _on_top(name: str, about: str, node: Json, *extra: str | Json, **more: object) -> Layout:
    return Layout(
        f"{name}-on-top",
        about,
        files=(*_FILES, Image("second", "raw")),
        arguments=(
            *_GROUP,
            base("raw", "base"),
            opened("qcow2", "top", backing="base"),
            *extra,
            {"node-name": "filter", **node},
            *disk("filter"),
        ),
        truth=_TRUTH,
        **more,  # type: ignore[arg-type]
    )


def _between(name: str, about: str, node: Json, *extra: str | Json, **more: object) -> Layout:
    return Layout(
        f"{name}-between",
        about,
        files=(*_THREE, Image("second", "raw")),
        arguments=(
            *_GROUP,
            base("raw", "base"),
            base("qcow2", "mid", backing="base"),
            *extra,
            {"node-name": "filter", "read-only": True, **node},
            opened("qcow2", "top", backing="filter"),
            *disk("top"),
        ),
        truth=_TRUTH_OF_THREE,
        **more,  # type: ignore[arg-type]
    )


def _under(name: str, about: str, node: Json, *extra: str | Json, **more: object) -> Layout:
    return Layout(
        f"{name}-under",
        about,
        files=(*_FILES, Image("second", "raw")),
        arguments=(
            *_GROUP,
            base("raw", "base"),
            *extra,
            {
                "driver": "qcow2",
                "node-name": "top",
                "backing": "base",
                "file": {"node-name": "filter", **node},
            },
            *disk("top"),
        ),
        truth=_TRUTH,
        **more,  # type: ignore[arg-type]
    )


_SECOND: Final = opened("raw", "second")

LAYOUTS: Final = (
    _on_top("throttle", "A throttle filter on a disk", {**_THROTTLE, "file": "top"}),
    _between("throttle", "A throttle filter between two layers", {**_THROTTLE, "file": "mid"}),
    _under(
        "throttle",
        "A throttle filter between a format and its file",
        {**_THROTTLE, "file": file("top")},
    ),
    _on_top(
        "copy-on-read", "A copy-on-read filter on a disk", {"driver": "copy-on-read", "file": "top"}
    ),
    Layout(
        "copy-on-read-between",
        "A copy-on-read filter between two layers",
        files=_THREE,
        arguments=(
            base("raw", "base"),
            opened("qcow2", "mid", backing="base"),
            {"driver": "copy-on-read", "node-name": "filter", "file": "mid"},
            opened("qcow2", "top", backing="filter"),
            *disk("top"),
        ),
        truth=_TRUTH_OF_THREE,
    ),
    _on_top("compress", "A compress filter on a disk", {"driver": "compress", "file": "top"}),
    _on_top("blkdebug", "A blkdebug filter on a disk", {"driver": "blkdebug", "image": "top"}),
    _between(
        "blkdebug", "A blkdebug filter between two layers", {"driver": "blkdebug", "image": "mid"}
    ),
    _under(
        "blkdebug",
        "A blkdebug filter between a format and its file",
        {"driver": "blkdebug", "image": file("top")},
    ),
    _on_top(
        "blklogwrites",
        "A filter that logs writes into a second file",
        {"driver": "blklogwrites", "file": "top", "log": "second"},
        _SECOND,
        drivers=("blklogwrites",),
    ),
    Layout(
        "blkverify",
        "A node that compares a qcow2 with a raw copy: no single truth",
        files=(*_FILES, Image("second", "raw")),
        arguments=(
            base("raw", "base"),
            opened("qcow2", "top", backing="base"),
            _SECOND,
            {"driver": "blkverify", "node-name": "both", "test": "top", "raw": "second"},
            *disk("both"),
        ),
        drivers=("blkverify",),
        truth={"vda": (("?", None),)},
    ),
    _on_top(
        "blkreplay",
        "A filter that makes requests repeatable",
        {"driver": "blkreplay", "image": "top"},
        drivers=("blkreplay",),
    ),
    _under(
        "preallocate",
        "A preallocate filter between a format and its file",
        {"driver": "preallocate", "file": file("top")},
        drivers=("preallocate",),
    ),
    _on_top(
        "copy-before-write",
        "A copy-before-write filter on a disk, with its target",
        {"driver": "copy-before-write", "file": "top", "target": "second"},
        _SECOND,
        drivers=("copy-before-write",),
    ),
    Layout(
        "two-filters",
        "A throttle filter on a copy-on-read filter",
        files=_FILES,
        arguments=(
            *_GROUP,
            base("raw", "base"),
            opened("qcow2", "top", backing="base"),
            {"driver": "copy-on-read", "node-name": "cor", "file": "top"},
            {**_THROTTLE, "file": "cor"},
            *disk("filter"),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "filters-everywhere",
        "A filter on top, between all layers, and under each format",
        files=_THREE,
        arguments=(
            *_GROUP,
            {
                "driver": "raw",
                "node-name": "base",
                "read-only": True,
                "file": {
                    **_THROTTLE,
                    "node-name": "f0",
                    "read-only": True,
                    "file": file("base", read_only=True),
                },
            },
            {**_THROTTLE, "node-name": "f1", "read-only": True, "file": "base"},
            {
                "driver": "qcow2",
                "node-name": "mid",
                "read-only": True,
                "backing": "f1",
                "file": {
                    **_THROTTLE,
                    "node-name": "f2",
                    "read-only": True,
                    "file": file("mid", read_only=True),
                },
            },
            {**_THROTTLE, "node-name": "f3", "read-only": True, "file": "mid"},
            {
                "driver": "qcow2",
                "node-name": "top",
                "backing": "f3",
                "file": {**_THROTTLE, "node-name": "f4", "file": file("top")},
            },
            {**_THROTTLE, "node-name": "f5", "file": "top"},
            *disk("f5"),
        ),
        truth=_TRUTH_OF_THREE,
    ),
    Layout(
        "filter-over-protocol",
        "A throttle filter on a raw file without a raw node",
        files=(Image("disk", "raw"),),
        arguments=(*_GROUP, {**_THROTTLE, "file": file("disk")}, *disk("filter")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "quorum",
        "A quorum of two raw files: no single truth",
        files=(Image("a", "raw"), Image("b", "raw")),
        arguments=(
            {
                "driver": "quorum",
                "node-name": "vote",
                "vote-threshold": 2,
                "children": [opened("raw", "a"), opened("raw", "b")],
            },
            *disk("vote"),
        ),
        drivers=("quorum",),
        truth={"vda": (("?", None),)},
    ),
    Layout(
        "quorum-below",
        "A qcow2 over a quorum of two raw files",
        files=(Image("a", "raw"), Image("b", "raw"), Image("top", "qcow2")),
        arguments=(
            {
                "driver": "quorum",
                "node-name": "vote",
                "vote-threshold": 1,
                "read-only": True,
                "children": [
                    opened("raw", "a", read_only=True),
                    opened("raw", "b", read_only=True),
                ],
            },
            opened("qcow2", "top", backing="vote"),
            *disk("top"),
        ),
        drivers=("quorum",),
        truth={"vda": (("top", "qcow2"), ("?", None))},
    ),
)
