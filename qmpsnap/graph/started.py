"""
What a QEMU was started with that keeps a chain from being changed, and that QMP does not tell.

Source: block/copy-on-read.c, cor_open(): with `bottom` the links from the filter down to that node
are frozen; blockdev.c, drive_new(), and softmmu/vl.c: `-snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from qmpsnap.graph.command_line import pairs
from qmpsnap.graph.opening import described, named


def freezing_filters(arguments: Sequence[str]) -> frozenset[str]:
    """
    Names of the copy-on-read filters that reach down to a `bottom`.

    Args:
        arguments: The command line, split as in `/proc/PID/cmdline`.
    """
    return frozenset(_freezing(arguments))


def _freezing(arguments: Sequence[str]) -> Iterator[str]:
    for option, value in pairwise(arguments):
        if option in ("-blockdev", "--blockdev"):
            for name, options in named(described(value)).items():
                if options.get("driver") == "copy-on-read" and "bottom" in options:
                    yield name


def throws_away(arguments: Sequence[str]) -> bool:
    """Whether what some drive's guest writes goes to a temporary file (`-snapshot`, `snapshot=on`)."""
    if {"-snapshot", "--snapshot"} & {*arguments}:
        return True
    return any(
        option in ("-drive", "--drive") and dict(pairs(value)).get("snapshot") in ("on", "yes")
        for option, value in pairwise(arguments)
    )
