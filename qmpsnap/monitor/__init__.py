"""Talk to one running QEMU: commands out, replies and events in."""

from qmpsnap.monitor.base import (
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    Monitor,
)

__all__ = [
    "CommandFailed",
    "CommandTimedOut",
    "ConnectionLost",
    "Event",
    "LostInMidCommand",
    "Monitor",
]
