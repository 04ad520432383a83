"""Images and jobs of the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final, Literal

from qmpsnap.operations.job.states import JobStatus

CLUSTERS: Final = 4
FOREIGN: Final = "foreign"
"""In the name of an overlay that somebody else has made."""
Type = Literal["commit", "stream", "mirror"]
UNFINISHED: Final = (JobStatus.RUNNING, JobStatus.READY, JobStatus.PENDING)


@dataclass
class File:
    """An image."""

    format: str
    header: str | None = None
    """The backing file that it names."""
    memory: dict[int, int] = field(default_factory=dict)
    disk: dict[int, int] = field(default_factory=dict)
    written: int = 0
    """When it was, in nanoseconds after 1970, as its host tells."""

    def write(self, cluster: int, value: int) -> None:
        """QEMU writes."""
        self.memory[cluster], self.written = value, time.time_ns()

    def flush(self) -> None:
        """All that was written is on the disk."""
        self.disk = dict(self.memory)


@dataclass
class Job:
    """A block job."""

    id: str
    type: Type
    disk: str
    top: str
    """Node."""
    base: str | None
    header: str | None
    """What the layer above is to name."""
    nodes: tuple[str, ...]
    """From the top to the base; a stream keeps them until it is dismissed."""
    finalizes: bool
    """Whether it changes the graph by itself."""
    status: JobStatus = JobStatus.RUNNING
    error: str | None = None
    completes: bool = False
    """Whether the mirror was told to pivot."""
