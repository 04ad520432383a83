"""
What this QEMU can do, from the QEMU itself. Never from its version number.

Distributions backport: Debian's 7.2 is not upstream's 7.2. `query-qmp-schema` tells for every
command which arguments it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from qmpsnap.monitor.base import CommandFailed, Monitor


class Features(msgspec.Struct, frozen=True):
    """Commands and their arguments; empty when the schema could not be read."""

    arguments: Mapping[str, frozenset[str]]

    def has(self, command: str, argument: str | None = None) -> bool:
        """Whether the QEMU knows the command, and the argument if one is given."""
        known = self.arguments.get(command)
        return known is not None and (argument is None or argument in known)


class _Member(msgspec.Struct, frozen=True):
    name: str


class _Entity(msgspec.Struct, frozen=True, rename="kebab"):
    name: str
    meta_type: str
    arg_type: str | None = None
    members: list[_Member] = []


NO_FEATURES: Final = Features({})


def features_from(reply: object) -> Features:
    """
    Parse `query-qmp-schema`. A reply of another shape means that nothing is known.

    Source: SchemaInfo, qapi/introspect.json.
    """
    entities = []
    for item in reply if isinstance(reply, list) else []:
        try:
            entities.append(msgspec.convert(item, _Entity))
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue  # enums and alternates have members of another shape
    types = {
        entity.name: frozenset(member.name for member in entity.members)
        for entity in entities
        if entity.meta_type == "object"
    }
    return Features(
        {
            entity.name: types.get(entity.arg_type or "", frozenset())
            for entity in entities
            if entity.meta_type == "command"
        }
    )


def read_features(monitor: Monitor) -> Features:
    """Ask the QEMU; a QEMU (or a recording) without a schema has no features known."""
    try:
        return features_from(monitor.execute("query-qmp-schema"))
    except CommandFailed:
        return NO_FEATURES
