"""
Which files a QEMU was started with without saying their format.

QMP does not tell whether a format was given or probed: `drv` is the same. The command line does.
Only `-drive` and its short forms can leave the format out; `-blockdev` cannot.

Source: QEMU blockdev.c, drive_new(); qemu-options.hx. A comma in a value is doubled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

_SHORT: Final = frozenset(
    ["hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "mtdblock", "sd", "pflash"]
)


def probed_files(arguments: Sequence[str]) -> frozenset[str]:
    """
    Find the files of drives without a format on a command line of QEMU.

    Args:
        arguments: The command line, split as in `/proc/PID/cmdline`.
    """
    return frozenset(_files(arguments))


def _files(arguments: Sequence[str]) -> Iterator[str]:
    for option, value in pairwise(arguments):
        name = option.removeprefix("-").removeprefix("-")
        if name == option:
            continue
        if name in _SHORT:
            yield value
        elif name == "drive":
            given = dict(pairs(value))
            if "file" in given and not {"format", "driver"} & given.keys():
                yield given["file"]


def pairs(value: str) -> Iterator[tuple[str, str]]:
    """Split `key=value,…`; what has no `=` is a switch, or the value of an implied key."""
    start = 0
    while start < len(value):
        comma = _comma(value, start)
        key, _, text = value[start:comma].partition("=")
        yield key, text.replace(",,", ",")
        start = comma + 1


def _comma(value: str, start: int) -> int:
    """Position of the next comma that is not doubled, or the end."""
    while (comma := value.find(",", start)) >= 0:
        if value[comma : comma + 2] != ",,":
            return comma
        start = comma + 2
    return len(value)
