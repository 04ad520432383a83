"""
Hostile values, and mutations of JSON values. Pure: everything comes from the `random.Random`.

What `json.dumps` cannot write (nesting that is too deep for it, integers of thousands of digits)
is put in as a marked string and becomes real in `dumps()`.
"""

from __future__ import annotations

import json
import random
import re
from copy import deepcopy
from typing import Final

Json = object
Slot = tuple[dict[str, Json] | list[Json], str | int]
"""A container and a key in it: one place where a value stands."""

STRINGS: Final = (
    "",
    " ",
    ".",
    "..",
    "/",
    "\0",
    "a\nb",
    "a\r\tb",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\x85\u2028\u2029",
    "\u202eslaf\u202c",
    "\ud800",
    "\udc80\udcff",
    "\u0301\u200b\ufeff",
    "\U0001f4be",
    ":smile:",
    "[bold red]x[/bold red]",
    "{self.name} {0} %s",
    "file:",
    "file:/share/base",
    "../../etc/shadow",
    "/dev/fdset/3",
    "json:",
    "json:{",
    "json:[]",
    'json:{"filename": null}',
    'json:{"file": {"file": {"filename": "/x"}}}',
    'json:{"filename": "json:{\\"filename\\": \\"/x\\"}"}',
    'json:{"driver": "raw", "offset": 512, "file": {"filename": "/x"}}',
    "json:" + '{"file":' * 2000,
    "json:" + "9" * 5000,
    "nbd://host/export",
    "#block123",
    "libvirt-1-format",
    "libvirt-2-format",
    "libvirt-3-storage",
    "libvirt--format",
    "libvirt-\u0663-format",
    "libvirt-\u00b2-format",
    f"libvirt-{'9' * 5000}-format",
    "/machine/peripheral/vda/virtio-backend",
    "/machine/peripheral",
    "/machine/peripheral-anon/device[0]",
    "x" * 300,
    "y\n" * 6000,
    "\x1b" * 5000,
)
WORDS: Final = (
    *("raw", "qcow2", "qcow", "luks", "file", "host_device", "vmdk", "quorum", "throttle"),
    *("commit_top", "mirror_top", "copy-on-read", "nbd", "null-co", "blkdebug", "auto", "none"),
    *("backing", "image", "data-file", "root", "block-driver", "block-backend", "block-job"),
    *("stream", "commit", "concluded", "running", "off", "on", "unmap"),
)
INTEGERS: Final = (
    *(-1, 0, 1, 511, -(2**63), 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(-(2**64), 10**30, 10**400, -(10**400)),
)
ODD: Final[tuple[Json, ...]] = (
    None,
    True,
    False,
    0.0,
    -0.0,
    1.5,
    1e308,
    [],
    {},
    [[]],
    [{}],
    {"": 0},
)
NOT_JSON: Final = (float("nan"), float("inf"), float("-inf"))
"""Python writes and reads them, JSON has none."""

TOO_MANY: Final = 10_000
"""Places in a value that does not grow any more."""

_MARK: Final = "\ue000"
_MARKED: Final = re.compile(r'"\\ue000([a-z]+):([0-9]+)"')


def hostile(rng: random.Random) -> Json:
    """One value that no well-meaning QEMU sends."""
    kind = rng.randrange(20)
    if kind < 7:
        return rng.choice(STRINGS)
    if kind < 11:
        return rng.choice(WORDS)
    if kind < 15:
        return rng.choice(INTEGERS)
    if kind < 17:
        return deepcopy(rng.choice(ODD))  # it may be mutated further
    if kind < 18:
        return rng.choice(NOT_JSON)
    name, limit = rng.choice((("list", 5000), ("object", 5000), ("digits", 6000)))
    return f"{_MARK}{name}:{rng.randrange(1, limit)}"


def dumps(value: Json) -> str:
    """Write JSON, and whatever the marks stand for."""
    return _MARKED.sub(_unmarked, json.dumps(value))


def _unmarked(match: re.Match[str]) -> str:
    number = int(match[2])
    match match[1]:
        case "list":
            return "[" * number + "]" * number
        case "object":
            return '{"parent":' * number + "{}" + "}" * number
        case _:
            return "7" * number


def slots(value: Json) -> list[Slot]:
    """All places in a value, outermost first."""
    found: list[Slot] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found += [(one, key) for key in one]
            waiting += one.values()
        elif isinstance(one, list):
            found += [(one, index) for index in range(len(one))]
            waiting += one
    return found


def mutate(rng: random.Random, value: dict[str, Json]) -> None:
    """Change one thing in a value, in place."""
    places = slots(value)
    if not places:
        return
    container, key = rng.choice(places)
    match rng.randrange(10):
        case 0:
            _drop(container, key)
        case 1 if len(places) < TOO_MANY:
            _repeat(rng, container, key, TOO_MANY // len(places))
        case 2 | 3:
            _set(container, key, hostile(rng))
        case 4 if len(places) < TOO_MANY:
            inner = _get(container, key)
            _set(container, key, rng.choice(([inner], {"x": inner}, [inner, inner])))
        case 5:
            other, there = rng.choice(places)  # values change places, wherever they stand
            mine, theirs = _get(container, key), _get(other, there)
            if not _holds(mine, other) and not _holds(theirs, container):
                _set(container, key, theirs)
                _set(other, there, mine)
        case 6 | 7:
            _as_elsewhere(rng, places, container, key)
        case 8:
            if isinstance(container, dict):
                moved = container.pop(str(key))
                container[rng.choice((str(key).upper(), "", "x", str(key).replace("-", "_")))] = (
                    moved
                )
        case _:
            text = _get(container, key)
            if isinstance(text, str):
                at = rng.randrange(len(text) + 1)
                _set(container, key, text[:at] + rng.choice(STRINGS) + text[at:])
            else:
                _set(container, key, hostile(rng))


def _as_elsewhere(
    rng: random.Random, places: list[Slot], container: dict[str, Json] | list[Json], key: str | int
) -> None:
    """Give the place the value of the same key elsewhere: names that repeat, cyclic links."""
    same = [_get(other, there) for other, there in places if there == key]
    simple = [one for one in same if not isinstance(one, (dict, list))]
    _set(container, key, rng.choice(simple or [hostile(rng)]))


def _repeat(
    rng: random.Random, container: dict[str, Json] | list[Json], key: str | int, most: int
) -> None:
    if isinstance(container, list) and isinstance(key, int):
        copies = min(rng.choice((1, 1, 1, 2, 200)), most)
        container[key:key] = [container[key]] * copies
    elif isinstance(container, dict):
        container[f"{key}2"] = container[str(key)]


def _drop(container: dict[str, Json] | list[Json], key: str | int) -> None:
    if isinstance(container, dict):
        del container[str(key)]
    elif isinstance(key, int):
        del container[key]


def _get(container: dict[str, Json] | list[Json], key: str | int) -> Json:
    return container[str(key)] if isinstance(container, dict) else container[int(key)]


def _set(container: dict[str, Json] | list[Json], key: str | int, value: Json) -> None:
    if isinstance(container, dict):
        container[str(key)] = value
    else:
        container[int(key)] = value


def _holds(value: Json, wanted: object) -> bool:
    """Whether `wanted` is `value` or lies in it: putting it there would close a circle."""
    return value is wanted or any(_get(*place) is wanted for place in slots(value))
