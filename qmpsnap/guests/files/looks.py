"""Looks at files on this host, the same on every road."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.content import digest_of
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.locks import Claim
from qmpsnap.guests.files.neighbours import room_of
from qmpsnap.guests.files.overlay import look_at_overlay
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.volume import VolumeLayer


class LocalFiles:
    """See `operations.guest.Files`."""

    def __init__(self) -> None:
        self.claimed: Claim | None = None
        """The locks of the operation that is at work."""

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """See `Files.claim`."""
        outer = self.claimed
        with closing(Claim()) as self.claimed:
            try:
                yield self.claimed
            finally:
                self.claimed = outer

    def overlay(self, plan: CreatePlan) -> Overlay:
        """See `Files.overlay`."""
        return look_at_overlay(plan)

    def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
        """See `Files.digest`."""
        return digest_of([(layer.path, layer.format) for layer in layers])

    def identity(self, path: str) -> Identity | None:
        """See `Files.identity`."""
        return identity(path)

    def room(self, path: str) -> Room | None:
        """See `Files.room`."""
        return room_of(path)
