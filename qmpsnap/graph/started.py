"""
What a QEMU was started with that keeps a chain from being changed, and that QMP does not tell.

Source: block/copy-on-read.c, cor_open(): with `bottom` the links from the filter down to that node
are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

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
