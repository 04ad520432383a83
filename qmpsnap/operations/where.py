"""How a guest was reached, and can be reached again: a value. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The way to one guest."""

    road: Literal["qmp", "libvirt", "offline", "unknown"]
    at: str = ""
    """Path of the QMP socket, or libvirt's URI."""
    guest: str | None = None
    """Its UUID, under libvirt."""
    process: tuple[int, int] | None = None
    """The QEMU, where it can be seen from here: its number, and when it began, in clock ticks after
    the start of the host."""

    @property
    def is_offline(self) -> bool:
        """Whether the guest was off."""
        return self.road == "offline"


NOWHERE: Final = Where(road="unknown")


def where_of(guest: object) -> Where:
    """The way to a guest; unknown for one that somebody else has made."""
    found = getattr(guest, "where", NOWHERE)
    return found if isinstance(found, Where) else NOWHERE
