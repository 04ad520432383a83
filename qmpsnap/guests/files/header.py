"""Reading qcow2 headers from disk: a few KiB, of files that somebody states to be qcow2."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping

from qmpsnap.formats.qcow2 import READ_SIZE, BadHeader, Header, parse
from qmpsnap.guests.files.helper import instead_of

log = logging.getLogger(__name__)


def read_header(path: str, *, follow: bool = True) -> Header:
    """
    Read the header of a file that somebody states to be qcow2.

    Args:
        path: The file.
        follow: Whether `path` may be a symbolic link.

    Raises:
        BadHeader: It is not what was stated, or not a file with a header at all.
        OSError: It cannot be opened or read.
    """
    return parse(_beginning(path, follow), path)


def beginning(path: str) -> bytes:
    """
    The first bytes of an image, where headers of all formats are.

    Raises:
        OSError: It cannot be opened or read, or is no image.
    """
    try:
        return _beginning(path, follow=True)
    except BadHeader as error:
        raise OSError(str(error)) from error


def _beginning(path: str, follow: bool) -> bytes:
    # O_NONBLOCK: opening a FIFO must not hang.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except PermissionError as error:
        data = instead_of(error).header(path)
        if not data:  # the helper gives no other file's
            raise BadHeader(path, "it does not begin as a qcow2 file") from error
        return data
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise BadHeader(path, "it is neither a file nor a block device")
        return os.pread(descriptor, READ_SIZE, 0)
    finally:
        os.close(descriptor)


def open_to_sync(path: str) -> int:
    """
    Open a file that others write into, QEMU for one, to have it brought to its disk.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read_headers(paths: Mapping[str, str]) -> dict[str, Header]:
    """
    Read the headers of files by host path, where they can be read.

    Args:
        paths: Stated format by path; only qcow2 files are read.
    """
    headers = {}
    for path, stated in paths.items():
        if stated != "qcow2" or not os.path.isabs(path):
            continue
        try:
            headers[path] = read_header(path)
        except (OSError, BadHeader) as error:
            # The header is one witness of several; without it QEMU's own view of it is used.
            log.info("no header witness from %s: %s", path, error)
    return headers
