"""
How fast a job goes, and whether it gets anywhere. Pure.

A mirror (active commit) counts what the guest writes meanwhile into `total`, so over a while
`current` grows by what was copied and `total` by what the guest wrote over. Both move in bursts:
a mirror under a bandwidth limit copies 16 MiB at once and then sleeps, and while it sleeps it
does not look at what the guest wrote (seen on 7.2: 16 s of standstill with 1 MiB/s). So a
judgement takes several changes, not only a time.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.operations.job.states import JobView

WINDOW_S: Final = 10.0
"""How far back a pace looks, at least."""
CHANGES: Final = 3
"""How many times the progress must have changed within it."""


class Sample(msgspec.Struct, frozen=True):
    """Progress at one moment."""

    at: float
    current: int
    total: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a second, over a while."""

    copying: float
    writing: float
    """What the guest writes over, as the mirror counts it: whole blocks of 64 KiB, mostly."""
    left: int

    @property
    def converges(self) -> bool:
        """Whether less is left at the end of the while than at its beginning."""
        return self.writing == 0 or self.copying > self.writing

    @property
    def left_s(self) -> float | None:
        """Seconds until nothing is left at this pace; None when there is no end in sight."""
        gain = self.copying - self.writing
        return self.left / gain if gain > 0 else None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a job's progress within a window of time."""

    window_s: float = WINDOW_S
    samples: tuple[Sample, ...] = ()

    def seen(self, view: JobView, now: float) -> Pace:
        """Take a look into account; the same progress as before is no news."""
        if view.total == 0:
            return self
        if self.samples and view.current < self.samples[-1].current:
            return replace(self, samples=(Sample(now, view.current, view.total),))
        if self.samples and (view.current, view.total) == (
            self.samples[-1].current,
            self.samples[-1].total,
        ):
            return self
        samples = (*self.samples, Sample(now, view.current, view.total))
        while len(samples) > CHANGES + 1 and samples[1].at <= now - self.window_s:
            samples = samples[1:]
        return replace(self, samples=samples)

    def restarted(self) -> Pace:
        """Forget what was seen: the job was paused, or got another bandwidth."""
        return replace(self, samples=())

    @property
    def is_telling(self) -> bool:
        """Whether enough was seen for a judgement."""
        return (
            len(self.samples) > CHANGES
            and self.samples[-1].at - self.samples[0].at >= self.window_s
        )

    @property
    def rates(self) -> Rates | None:
        """Rates over what was seen; None when it is too little for any."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[0], self.samples[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return None
        return Rates(
            copying=(last.current - first.current) / seconds,
            writing=max(0, last.total - first.total) / seconds,
            left=max(0, last.total - last.current),
        )
