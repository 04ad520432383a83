"""
What one QEMU can do, asked of the QEMU itself, without any effect. Never from its version number.

Distributions backport: Debian's 7.2 is not upstream's 7.2. `query-qmp-schema` would tell it all,
but stops the guest's main loop for 45 ms (7.2.22). So the thing itself is asked for in a way in
which it cannot be done: an argument has the wrong type, and QEMU checks the types of all arguments
before it begins to carry a command out. Where the command would change something, it names a
device that cannot exist besides.

    query-block   flat=7             Parameter 'flat' is unexpected                          no
                                     Invalid parameter type for 'flat', expected: boolean    yes
    block-commit  device=: mask=7    Parameter 'backing-mask-protocol' is unexpected         no
    block-stream                     Invalid parameter type for 'backing-mask-protocol', …   yes

Tried on 7.2.22 and 10.0.13; with `mask=true` 10.0.13 says DeviceNotFound, or `Cannot find device`.

Source: qapi/qapi-visit-core.c, qapi/qobject-input-visitor.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from qmpsnap.monitor import memory
from qmpsnap.monitor.base import CommandFailed, Monitor, Query
from qmpsnap.monitor.memory import Process

NOWHERE: Final = ":"
"""No device, drive or node can be called so: QEMU takes letters, digits and `-._` (id_wellformed(),
util/id.c), and makes names with a `#` itself."""


class Ability(StrEnum):
    """One thing that not every QEMU can do."""

    FLAT_DEVICES = "query-block flat"
    """List the devices without the images below them. QEMU 11.1."""
    MANY_PROPERTIES = "qom-list-get"
    """Tell the properties of many objects in one reply. QEMU 10.1; not probed but tried."""
    MASKED_COMMIT = "block-commit backing-mask-protocol"
    """Write `raw`, not `file`, into a header over a base without a raw node. QEMU 9.0."""
    MASKED_STREAM = "block-stream backing-mask-protocol"


_NO_BOOLEAN: Final = 7
PROBES: Final[Mapping[Ability, Query]] = {
    Ability.FLAT_DEVICES: ("query-block", {"flat": _NO_BOOLEAN}),
    Ability.MASKED_COMMIT: (
        "block-commit",
        {"device": NOWHERE, "backing-mask-protocol": _NO_BOOLEAN},
    ),
    Ability.MASKED_STREAM: (
        "block-stream",
        {"device": NOWHERE, "backing-mask-protocol": _NO_BOOLEAN},
    ),
}
"""Every probe that is ever sent: looks, whatever the command's name says."""

_YES: Final = ("Invalid parameter type for", "Cannot find device", "with other arguments only")
"""Of an error. The last one is a transcript's (`ReplayMonitor`)."""


class Abilities:
    """What the QEMU behind a monitor can do; each thing is asked once in the life of that QEMU."""

    def __init__(self, monitor: Monitor, process: Process | None = None) -> None:
        """
        Ask nothing yet.

        Args:
            monitor: The guest's.
            process: Its QEMU, where that is known: what was heard from it before is remembered.
        """
        self._monitor = monitor
        self._process = process
        self._known: dict[str, bool] = dict(memory.recall(process))

    def knows(self, ability: Ability) -> bool | None:
        """Whether this QEMU has it; None where it has not been asked."""
        return self._known.get(ability)

    def learn(self, asked: Iterable[Ability], replies: Iterable[object]) -> None:
        """Take in the replies to probes, or to the thing itself."""
        before = dict(self._known)
        for ability, reply in zip(asked, replies, strict=True):
            if _is_yes(reply):
                self._known[ability] = True
            elif _is_no(reply):
                self._known[ability] = False
        if self._known != before:
            memory.note(self._process, self._known)

    def has(self, ability: Ability) -> bool:
        """
        Whether this QEMU has it; asked now if it is not known.

        Raises:
            ConnectionLost, LostInMidCommand, CommandTimedOut: There was no answer.
        """
        if ability not in self._known:
            self.learn([ability], self._monitor.execute_all([PROBES[ability]]))
        # An answer that is neither yes nor no is not kept, and nothing is built on it.
        return self._known.get(ability, False)


def is_unexpected(reply: object, argument: str) -> bool:
    """Whether a QEMU has refused a command because it does not know one of its arguments."""
    words = f"Parameter '{argument}' is unexpected"
    return isinstance(reply, CommandFailed) and words in reply.description


def _is_yes(reply: object) -> bool:
    if not isinstance(reply, CommandFailed):
        return True
    return reply.error_class == "DeviceNotFound" or any(one in reply.description for one in _YES)


def _is_no(reply: object) -> bool:
    return isinstance(reply, CommandFailed) and (
        reply.error_class == "CommandNotFound" or "is unexpected" in reply.description
    )
