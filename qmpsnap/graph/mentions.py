"""
Every local file that a name in a header, or an argument for QEMU, leads to. Pure.

QEMU takes more than paths there: `file:`, filters that stand before a name (`blkdebug:`,
`blkverify:`), and `json:` trees of any depth, with quorums, parts of files and backing files of
their own. Whoever asks who uses a file wants all of them. One too many does no harm: such a name
can only keep a file from being written or removed.

Source: bdrv_parse_filename of each driver, block/*.c; parse_json_filename(), block.c.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from qmpsnap.graph.command_line import pairs
from qmpsnap.graph.drivers import DriverKind, kind_of

_JSON: Final = "json:"
_COLONS: Final = 8
"""How many filters may stand before a name."""
_NO_FILES: Final = frozenset(["driver", "node-name"])
NOBODY: Final = ""
"""In the place of a format: it is not stated."""


class Mention(NamedTuple):
    """One name that may be that of a file."""

    name: str
    format: str
    """What it is opened as, as far as that is stated."""
    is_plain: bool = False
    """Whether it is certainly a file's, to be looked for beside the file that names it."""


def mentions(name: str, stated: str | None = None) -> Iterator[Mention]:
    """
    The files that a name of QEMU's leads to.

    Args:
        name: As it stands in a header, for example.
        stated: The format that is stated of it.
    """
    before, colon, rest = name.partition(":")
    if name.startswith(_JSON):
        yield from _in_json(rest, stated)
    elif not colon or "/" in before:
        yield Mention(name, stated or NOBODY, is_plain=True)
    elif before == "file":
        yield Mention(rest, stated or NOBODY)
    else:
        yield from _behind_colons(rest, stated or NOBODY)


def mentioned_in(argument: str) -> Iterator[Mention]:
    """The files that an argument for QEMU names: an object, options, or a name alone."""
    if argument.startswith("{"):
        yield from _in_json(argument)
        return
    for key, value in pairs(argument):
        name = value or key.replace(",,", ",")
        yield Mention(name, NOBODY)
        yield from mentions(name)


def _behind_colons(name: str, stated: str) -> Iterator[Mention]:
    for _ in range(_COLONS):
        if name.startswith(_JSON):
            yield from _in_json(name.removeprefix(_JSON))
            return
        yield Mention(name, stated)
        _, colon, name = name.partition(":")
        if not colon:
            return


def _in_json(text: str, stated: str | None = None) -> Iterator[Mention]:
    """What a header states besides comes before the tree's own (bdrv_open_backing_file(), block.c)."""
    try:
        tree = json.loads(text)
        if stated and isinstance(tree, dict):
            tree = {**tree, "driver": stated}
        found = [*_in_tree(tree, NOBODY)]
    except (ValueError, RecursionError):
        return
    yield from found


def _in_tree(value: object, stated: str) -> Iterator[Mention]:
    """All names in a tree of options; an option of an option may be written `file.filename`."""
    if isinstance(value, list):
        for one in value:
            yield from _in_tree(one, NOBODY)
    elif isinstance(value, dict):
        opened = _opened_as(value, stated)
        for key, one in value.items():
            role = key.rpartition(".")[2]
            if role not in _NO_FILES:
                yield from _in_tree(one, opened if role in ("file", "filename") else NOBODY)
    elif isinstance(value, str):
        yield Mention(value, stated)
        if ":" in value:
            yield from _behind_colons(value, stated)


def _opened_as(options: dict[str, object], stated: str) -> str:
    """The format that these options state of the file in them."""
    given = [one for key, one in options.items() if key.rpartition(".")[2] == "driver"]
    formats = {str(one) for one in given if kind_of(str(one)) is not DriverKind.PROTOCOL}
    if "driver" not in options or str(options["driver"]) not in formats:
        formats |= {stated} - {NOBODY}
    return formats.pop() if len(formats) == 1 else NOBODY
