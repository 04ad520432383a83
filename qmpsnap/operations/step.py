"""
One act that changes something: a value that is shown, counted and taken through one door.

What `--plan` prints, what a test counts and what is sent are the same value. There is no second
description of it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from qmpsnap.errors import Failed


class Does(StrEnum):
    """What an act is for."""

    HOLD = "hold"
    """Open the chain of a guest that is off, with QEMU's locks on its files."""
    RELEASE = "release"
    MAKE = "make"
    """Make an overlay file, or correct the header of one that was handed over."""
    DISCARD = "discard"
    """Remove an overlay file that was made and is not used."""
    OPEN = "open"
    FREEZE = "freeze"
    THAW = "thaw"
    SWITCH = "switch"
    """Put overlays on their disks."""
    FORGET = "forget"
    """Let the definition of a guest that is off end above what a job takes out."""
    START = "start"
    FLUSH = "flush"
    COMMIT = "commit"
    """Let a job change the graph: finalize, complete, pivot."""
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SPEED = "speed"
    DISMISS = "dismiss"
    CLOSE = "close"
    """Delete a node that nothing reads any more."""
    REOPEN = "reopen"
    REDEFINE = "redefine"
    MARK = "mark"
    """Put a marker beside the images, or take it away: they are in a state that no file tells."""
    REMOVE = "remove"
    """Remove a file that has left the chain."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A QMP command, a call of libvirt's API, a command to the guest agent, or a file that changes."""

    does: Does
    by: Literal["qmp", "libvirt", "agent", "file"]
    what: str
    """`block-commit`, `virDomainBlockJobAbort`, `guest-fsfreeze-freeze`, `make-overlay`, …"""
    arguments: Mapping[str, object] = msgspec.field(default_factory=dict)
    """By name: of the command as in QAPI, of the function as in libvirt's API, of the file act."""
    again: bool = True
    """May be taken a second time when the reply to the first was lost."""


class Door(Protocol):
    """The one way in which anything is changed."""

    def take(self, step: Step) -> object:
        """
        Carry out one act; returns what it answered.

        Raises:
            NotNow: Nothing has happened: the job or the node is not in the state it was meant for.
            CommandFailed: It was refused; nothing has happened.
            Unknown: The connection broke before the answer came.
        """


class NotNow(Failed):
    """An act came too early or too late; nothing has happened, so look again."""

    msg = "{self.what} was not possible now: {self.reason}"
    changed = "no"

    what: str
    reason: str
