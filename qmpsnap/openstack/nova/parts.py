"""
How a start is told to Cinder: in requests that it takes, each of which is whole in itself. Pure.

Cinder asks again for every open operation on the volumes of a request that the request does not
name. So the operations on a volume go with the volume, and are never divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

MOST: Final = 1000
"""Volumes, and operations, of one request: its schema allows no more. Both are below the 112 KiB
that Cinder takes (`osapi_max_request_body_size`)."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one request tells."""

    volumes: tuple[str, ...]
    operations: tuple[str, ...]
    """All that this service knows of on these volumes, by their tokens."""


def parts(volumes: Iterable[str], known: Mapping[str, Sequence[str]]) -> Iterator[Part]:
    """
    Divide what is to be told.

    A volume with more operations than one request holds is left out: nothing is asked again for
    it, and what has been lost there waits until Cinder's time is up.

    Args:
        volumes: All that guests of this service have.
        known: The operations on each volume; none of those that are not there.
    """
    some: list[str] = []
    tokens: list[str] = []
    for volume in dict.fromkeys(volumes):
        own = known.get(volume, ())
        if len(own) > MOST:
            continue
        if len(some) == MOST or len(tokens) + len(own) > MOST:
            yield Part(volumes=tuple(some), operations=tuple(tokens))
            some, tokens = [], []
        some.append(volume)
        tokens += own
    if some:
        yield Part(volumes=tuple(some), operations=tuple(tokens))
