"""
Options of a node that QMP does not tell: whether it passes on discards, and how it does its I/O.

The command line tells them of the nodes that a QEMU was started with. Of those that were added later,
nobody does.

Source: qapi/block-core.json, BlockdevOptionsBase; block.c, bdrv_inherited_options(): a child that is
described within its parent passes on discards unless it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from qmpsnap.graph.command_line import pairs

_YES: Final = frozenset(["on", "unmap"])
_AIO: Final = frozenset(["threads", "native", "io_uring"])
_DEPTH: Final = 64
"""More nodes than lie between a format and its file; no line may lead in a circle."""

Options = Mapping[str, Any]


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """With which options a layer was opened."""

    discard: bool = False
    """Its format node passes on what the guest discards."""
    passed_on: bool = True
    """So do the nodes below it, down to the file. Discards reach the file when both hold."""
    aio: str | None = None
    """BlockdevAioOptions; None for QEMU's default."""


def opening(
    arguments: Sequence[str], *, node: str, drive: str | None = None, path: str | None = None
) -> Opening | None:
    """
    Find how a layer was opened on a command line of QEMU; None where it was not.

    Args:
        arguments: The command line, split as in `/proc/PID/cmdline`.
        node: Name of its format node.
        drive: Id of the `-drive`, where the device has one.
        path: Its host file, by which a `-drive` without an id is found.
    """
    nodes: dict[str, Options] = {}
    for option, value in pairwise(arguments):
        match option.removeprefix("-"):
            case "-blockdev" | "blockdev":
                nodes |= named(described(value))
            case "-drive" | "drive":
                given = dict(pairs(value))
                name = given.get("id")
                if node == given.get("node-name") or (
                    name == drive if name else path is not None and path == given.get("file")
                ):
                    return _drive(given)
            case _:
                pass
    return _followed(nodes[node], nodes) if node in nodes else None


def described(value: str) -> dict[str, Any]:
    """Parse a `-blockdev`: it takes JSON, or `key=value,…` with dots for what lies within."""
    if value.startswith("{"):
        try:
            told: dict[str, Any] = json.loads(value)
        except (ValueError, RecursionError):
            return {}
        return told
    found: dict[str, Any] = {}
    for key, text in pairs(value):
        *places, last = key.split(".")
        inner = found
        for place in places:
            inner = inner.setdefault(place, {})
            if not isinstance(inner, dict):
                return {}
        inner[last] = text
    return found


def named(options: Options) -> dict[str, Options]:
    """Return the nodes that an object describes, by the names that it gives them."""
    found: dict[str, Options] = {}
    described: list[Options] = [options]
    while described:
        one = described.pop()
        if isinstance(name := one.get("node-name"), str):
            found[name] = one
        described += (_within(child) for child in one.values() if isinstance(child, dict))
    return found


def _within(child: Options) -> Options:
    return {"discard": "unmap", **child}


def _followed(options: Options, nodes: Mapping[str, Options]) -> Opening:
    below = [*_below(options, nodes)] or [options]  # raw without a node for the format
    aio = below[-1].get("aio")
    return Opening(
        discard=options.get("discard") in _YES,
        passed_on=all(one.get("discard") in _YES for one in below),
        aio=aio if aio in _AIO else None,
    )


def _below(options: Options, nodes: Mapping[str, Options]) -> Iterator[Options]:
    for _ in range(_DEPTH):
        child = options.get("file")
        if isinstance(child, str):
            options = nodes.get(child, {})
        elif isinstance(child, dict):
            options = _within(child)
        else:
            return
        yield options


def _drive(given: Mapping[str, str]) -> Opening:
    aio = given.get("aio")
    return Opening(
        discard=given.get("discard") in _YES,
        passed_on=given.get("file.discard", "unmap") in _YES,
        aio=aio if aio in _AIO else None,
    )
