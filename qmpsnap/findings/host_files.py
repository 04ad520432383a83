"""
What is known of the files of a report on this host: a `stat`, and a few KiB of each.

A header is read of what is stated to be qcow2, and the first bytes of what is stated to be raw.
No name that stands in a file is looked up or opened.
"""

from __future__ import annotations

import os
import stat

from qmpsnap.findings.facts import FileFacts
from qmpsnap.findings.image_headers import READ_SIZE, looks_like
from qmpsnap.formats.layers import Disks
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import identity_of


def file_facts(report: Disks) -> dict[str, FileFacts]:
    """Look at every file that a guest's disks have open under an absolute name, by path."""
    stated = report.readable()
    paths = {layer.path for disk in report.disks for layer in disk.layers}
    paths |= {file.path for disk in report.disks for file in disk.files}
    return {
        path: _facts(path, stated.get(path))
        for path in paths
        if path is not None and os.path.isabs(path)
    }


def _facts(path: str, stated: str | None) -> FileFacts:
    header, like, bad_header, problem = None, None, None, None
    identity, real_path, real_folder = None, None, None
    try:
        real_path = os.path.realpath(path)
        real_folder = os.path.realpath(os.path.dirname(path))
        identity = identity_of(os.stat(path))
        if stated == "qcow2":
            header = read_header(path)
        elif stated == "raw":
            like = looks_like(_first_bytes(path))
    except BadHeader as error:
        bad_header = error.reason
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        problem = str(error)
    return FileFacts(
        identity=identity,
        real_path=real_path,
        real_folder=real_folder,
        header=header,
        looks_like=like,
        bad_header=bad_header,
        problem=problem,
    )


def _first_bytes(path: str) -> bytes:
    """Read the beginning of a file or block device; nothing of what else may carry the name."""
    # O_NONBLOCK: opening a FIFO must not hang.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            return b""
        return os.pread(descriptor, READ_SIZE, 0)
    finally:
        os.close(descriptor)
