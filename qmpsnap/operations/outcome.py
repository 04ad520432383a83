"""What an operation came to: its result, or the way in which it went wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

from qmpsnap.errors import Failed, QmpsnapError, Unknown
from qmpsnap.formats.layers import NOT_SEEN, REPLACED, Disk, Identity
from qmpsnap.formats.verdict import Witness
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.job.states import JobFailed, copied


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, as a fresh reading shows it."""

    disk: Disk
    """The disk afterwards."""
    file_format: Mapping[str, str]
    """Format by bare name of every changed file."""
    dropped: tuple[str, ...] = ()
    """Paths of files that left the chain, and that nobody on this host has open any more. They are
    still there, but for those in `removed`; another host may read them."""
    removed: tuple[str, ...] = ()
    """Paths of those that were removed, where that was asked for."""
    held: tuple[str, ...] = ()
    """Paths of files that left the chain, and that this guest or somebody else reads, or may."""
    kept: tuple[str, ...] = ()
    """Paths of what a revert took out of the chain, active layer first: with what they lie over they
    are the disk as it was before."""
    repaired: tuple[str, ...] = ()
    """Headers that were wrong and have been written anew, in words."""
    notes: tuple[str, ...] = ()
    consistency: Literal["filesystem", "crash"] | None = None
    """What the snapshot holds, of a create: frozen filesystems, or what a power cut would leave."""
    frozen_s: float | None = None
    """How long the guest was frozen for it."""
    guest_state: str | None = None
    """In which state the guest was: at a create, and at the end of a delete; RunState,
    qapi/run-state.json, or `off`. None where nobody tells."""
    operation: str | None = None
    """Its id in the journal; None where none was kept."""


class Interrupted(Unknown):
    """Ctrl-C while a job was running. The job goes on in QEMU."""

    msg = "interrupted; the {self.kind} of {self.file} goes on in the guest"
    remedy = (
        "Give the same command again: it takes up the running job and finishes it. Under libvirt "
        "the job may end by itself first; when {self.file} is not in the chain any more, or has "
        "nothing below it, the merge is done."
    )

    kind: str
    file: str


class GivenUp(Failed):
    """Ctrl-C while a job of a guest that is off was running: QEMU ends with the call, and its job."""

    msg = (
        "interrupted; the {self.kind} of {self.file} was given up, and the chain is as it was: "
        "{self.chain}"
    )
    remedy = "Give the same command again: it begins anew. {self.copied}"
    exit_code = 6
    changed = "no"

    kind: str
    file: str
    chain: str

    @property
    def copied(self) -> str:
        """What becomes of what was copied."""
        return copied(self.kind)


class TimedOut(Failed):
    """The time limit had passed, and the job was cancelled. The chain is as it was before."""

    msg = (
        "the {self.kind} of {self.file} did not end within {self.seconds:g} s, and was cancelled. "
        "The chain is as it was: {self.chain}"
    )
    remedy = "Give it more time or bandwidth. {self.copied}"
    exit_code = 5
    changed = "no"

    kind: str
    file: str
    seconds: float
    chain: str

    @property
    def copied(self) -> str:
        """What becomes of what was copied."""
        return copied(self.kind)


class StoppedByChange(Failed):
    """Somebody changed the chain while the job ran; the job was cancelled before it changed the chain."""

    msg = (
        "the {self.kind} of {self.file} was cancelled before it changed the chain, because "
        "somebody else had: {self.difference}. The chain is {self.chain}"
    )
    remedy = (
        "Look at `qmpsnap chain`, then give the same command again if it is still what you want. "
        "{self.copied}"
    )
    exit_code = 5
    changed = "no"

    kind: str
    file: str
    difference: str
    chain: str

    @property
    def copied(self) -> str:
        """What becomes of what was copied."""
        return copied(self.kind)


class LeftRunning(Unknown):
    """A job that this call has not started would have been cancelled, if it were ours."""

    msg = (
        "the {self.kind} of {self.file} goes on: {self.reason}, and it was not cancelled, because "
        "somebody else may have begun it"
    )
    remedy = (
        "Give the same command again to see it through, or end it (`qmpsnap job cancel`). Remove no "
        "file before that."
    )

    kind: str
    file: str
    reason: str


class StillRunning(Unknown):
    """The time limit has passed, and the job should have ended but has not."""

    msg = "the {self.kind} of {self.file} has not ended {self.seconds:g} s after its time was up"
    remedy = (
        "It may end at any moment, either way. Give the same command again to see it through; "
        "remove no file before that."
    )

    kind: str
    file: str
    seconds: float


class OutcomeUnknown(Unknown):
    """Something was changed, and how it ended could not be determined."""

    msg = "the {self.kind} of {self.file} could not be followed to its end: {self.reason}"
    remedy = (
        "Look at the guest with `qmpsnap chain`. If it still runs, give the same command again: "
        "it takes up a job that goes on. Remove no file before that. {self.if_ended}"
    )

    kind: str
    file: str
    reason: str

    @property
    def if_ended(self) -> str:
        """What to start the guest from, when QEMU is gone."""
        return _IF_ENDED.get(self.kind, "").format(file=self.file)


_IF_ENDED: Final = {
    "snapshot": "If it has ended, start it from {file} where that is there, otherwise from the "
    "file that was active before.",
    "commit": "If it has ended, start it from the file that was active before.",
    # Right whether the pull had ended or not: what the active file holds already stays on top.
    "pull": "If it has ended, what {file} holds may not be complete: name its old backing file in "
    "it again (`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT {file}`), then start from it.",
    "active-commit": "If it has ended, compare {file} with the file that it was committed into "
    "(`qemu-img compare -f qcow2 -F FORMAT`). Where they read the same, start from either; where "
    "not, {file} is right if the switch had not happened, and the other one if it had.",
}


class ChainUnexpected(Failed):
    """The operation ended without an error, but the chain is neither the old nor the planned one."""

    msg = "after the {self.kind} the chain is {self.found}, and should be {self.expected}"
    remedy = "Somebody else changed this guest at the same time. Remove no file; look at `qmpsnap chain`."

    kind: str
    found: str
    expected: str


class XmlBehind(Failed):
    """QEMU's graph has changed, but libvirt's XML has not followed."""

    msg = "QEMU's chain is {self.chain}, and libvirt's XML has not followed: {self.reason}"
    remedy = (
        "Remove no file, and do not restart the guest before `virsh dumpxml` shows the chain that "
        "QEMU has. Where it does not follow, name the uppermost file of that chain in the "
        "definition, with its format and without `<backingStore>` (`virsh edit`): the next start "
        "obeys it."
    )

    reason: str
    chain: str


class HeaderWrong(Failed):
    """The graph is right, but the header of the layer above would mislead the next start."""

    msg = "the chain is as it should be, but the header of {self.file} is not: {self.reason}"
    remedy = (
        "Remove no file. Mend it when the guest is off, before it is started again: "
        "`{self.command}`."
    )

    file: str
    reason: str
    command: str


class FormatUnknown(Failed):
    """The chain is as it should be, but no witness states the format of a file that was changed."""

    msg = "nobody states the format of {self.file} now; the chain is {self.chain}"
    remedy = "Look at `qmpsnap chain`. Nothing is reported of a format that is not known."

    file: str
    chain: str


class NamesAnother(Failed):
    """The graph is as it should be, but a name leads to another file than QEMU has open."""

    msg = (
        "the {self.kind} is done, but {self.path} is not the file that the guest had open: "
        "{self.reason}"
    )
    remedy = (
        "Remove no file, and keep the guest running: it still has its file. If that was renamed, "
        "give it its name back; otherwise copy the whole disk into a new file before the guest "
        "ends (`virsh blockcopy`, QMP `blockdev-mirror`)."
    )

    kind: str
    path: str
    reason: str


class OpenedAnother(Failed):
    """
    QEMU has a file that took the name of one of the chain, so the guest reads what lies in that.

    QEMU opens a file again by its name when it needs other permissions on it: a base when a commit
    into it begins and when it ends, whether it was done or cancelled; an active file that becomes a
    base.
    """

    msg = (
        "during the {self.kind} QEMU opened {self.path} again by its name, which led to another "
        "file by then. The chain is {self.chain}"
    )
    remedy = (
        "The guest reads what lies in the new file. Remove no file, and shut the guest down. If the "
        "file that was replaced still has another name, put the new one aside and give it its name "
        "back; then start the guest. If it has none, keep all files: what it held is only in those "
        "that lay above it."
    )

    kind: str
    path: str
    chain: str


def check_names(kind: str, before: Disk, after: Disk) -> None:
    """
    After an operation: whether all names of the chain still lead to what QEMU had and has open.

    Raises:
        OpenedAnother: QEMU has another file now than before.
        NamesAnother: QEMU has the same one, or that cannot be seen, and the name leads to another.
    """
    check_opened(kind, before, after)
    known = _identities(before)
    for layer in after.layers:
        if REPLACED in layer.flags:
            raise NamesAnother(kind, layer.path or layer.file, layer.sight or "")
        if layer.identity is not None and known.get(layer.path) not in (None, layer.identity):
            raise NamesAnother(kind, layer.path or layer.file, "its name leads to another file now")


def check_opened(kind: str, before: Disk, after: Disk) -> None:
    """
    After an operation that was done or not: whether QEMU has the files that it had, as far as is seen.

    Raises:
        OpenedAnother: It has another one.
    """
    known = _identities(before)
    for layer in after.layers:
        by_qemu = any(one.witness is Witness.QMP for one in layer.evidence)
        if not by_qemu or {REPLACED, NOT_SEEN} & {*layer.flags} or layer.identity is None:
            continue
        if known.get(layer.path) not in (None, layer.identity):
            raise OpenedAnother(kind, layer.path or layer.file, after.chain_text)


def _identities(disk: Disk) -> dict[str | None, Identity | None]:
    return {layer.path: layer.identity for layer in disk.layers}


_KNOWN: Final = (
    JobFailed,
    StillRunning,
    LeftRunning,
    ChainUnexpected,
    XmlBehind,
    HeaderWrong,
    FormatUnknown,
    NotFlushed,
    OutcomeUnknown,
    NamesAnother,
    OpenedAnother,
)
"""Errors that say themselves how the guest was left."""


@contextmanager
def changing(kind: str, file: str) -> Iterator[None]:
    """
    Mark a block after the first command that changes something.

    Raises:
        OutcomeUnknown: In the place of every error that does not say how the guest was left: a
            reading that fails now (the disk unplugged, the connection lost) is no refusal any
            more.
    """
    try:
        yield
    except _KNOWN:
        raise
    except QmpsnapError as error:
        raise OutcomeUnknown(kind, file, str(error)) from error
