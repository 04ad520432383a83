"""
In which state a guest is, and what follows from it. Pure.

Block jobs and snapshots work in every state in which QEMU's images are its own. What differs is
whether the guest can answer, whether it may write, and what the operator has to know.

Source: RunState, qapi/run-state.json; virDomainState, libvirt-domain.h.
"""

from __future__ import annotations

from typing import Final

RUNNING: Final = "running"
SUSPENDED: Final = "suspended"
OFF: Final = "off"
"""No word of QEMU's, which is not there."""

STILL: Final = frozenset(
    {
        "paused",
        "prelaunch",
        "shutdown",
        "guest-panicked",
        "io-error",
        "watchdog",
        "internal-error",
    }
)
"""States that only a command ends. A guest that sleeps (`suspended`) is woken by its own clock."""

_RESUMABLE: Final = frozenset({"paused", "prelaunch", "io-error", "watchdog"})
"""States that end by a command to go on."""

_REMARKS: Final = {
    "io-error": "is stopped by an input/output error of one of its disks, and goes on by QMP `cont` "
    "or `virsh resume`",
    "watchdog": "is stopped by its watchdog",
    "internal-error": "is stopped by an internal error of QEMU",
    "guest-panicked": "has crashed",
    "shutdown": "has shut down, and its QEMU is still there",
    SUSPENDED: "sleeps (suspend to RAM)",
}


def remarks(state: str | None) -> tuple[str, ...]:
    """What an operator should know of a guest in this state."""
    what = _REMARKS.get(state or "")
    return (f"the guest {what} ({state})",) if what else ()


def why_silent(state: str | None) -> str | None:
    """Say why nobody in a guest in this state can answer; None where somebody may."""
    if state is None or state == RUNNING:
        return None
    if state == OFF:
        return "the guest is off"
    return f"the guest does not run ({state}), so its agent cannot answer"


def how_to_be_heard(state: str | None) -> str:
    """What to do where `why_silent` says why nobody in the guest can answer."""
    if state == OFF:
        return "A guest that is off needs no freeze: leave `--quiesce` out."
    if state == SUSPENDED:
        how = "Wake it (`virsh dompmwakeup`; QMP `system_wakeup`), or do"
    elif state in _RESUMABLE:
        how = "Let it run (`virsh resume`; QMP `cont`), or do"
    else:
        how = "Do"
    return f"{how} without: `--quiesce try`."
