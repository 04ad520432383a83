"""What is known of the files on this host beside a guest's report; looked up by `findings/host_files`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from qmpsnap.formats.layers import Disks, Identity
from qmpsnap.formats.qcow2 import Header


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a chain, as it lies on this host."""

    identity: Identity | None = None
    """None when it cannot be stat-ed."""
    real_path: str | None = None
    """Its name without symbolic links."""
    real_folder: str | None = None
    """The folder that its name stands in, without symbolic links; the file itself may be one."""
    header: Header | None = None
    """Of a file that is stated to be qcow2."""
    looks_like: str | None = None
    """Of a file that is stated to be raw: the format whose header its first bytes would be. A
    warning, never evidence."""
    bad_header: str | None = None
    """Why a file that is stated to be qcow2 has no header that QEMU would accept."""
    problem: str | None = None
    """Why the file could not be read, if it could not."""


NOTHING = FileFacts()
"""For a file that was not looked at."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One guest as it was read, and its files."""

    guest: str | None
    """What to call it in findings."""
    report: Disks
    files: Mapping[str, FileFacts] = msgspec.field(default_factory=dict)
    """By path; empty where files cannot be looked at: a recording, a guest on another host."""
    host: str = ""
    """What tells the files of one host from those of another; empty for this host."""

    def facts(self, path: str | None) -> FileFacts:
        """What is known of a file; nothing is where it was not looked at."""
        return self.files.get(path or "", NOTHING)

    def key(self, path: str) -> tuple[object, ...]:
        """Equal for two names of the same file."""
        facts = self.facts(path)
        if facts.identity is not None:
            return facts.identity
        return (self.host, facts.real_path or os.path.normpath(path))
