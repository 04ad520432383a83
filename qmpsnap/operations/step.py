"""One step of a plan, as it is shown before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A QMP command, a call of libvirt's API, a command to the guest agent, or a file that is touched."""

    by: Literal["qmp", "libvirt", "agent", "file"]
    what: str
    """Command, function, or what happens to which file."""
    arguments: Mapping[str, object] = field(default_factory=dict)
