"""
The helper of nova-compute: what runs as root, with three capabilities, for one that runs as `nova`.

    guests/files ─► nova/helper ─► oslo.privsep ═ sudo, rootwrap ═► here ─► nova/confined ─► guests/files

Every function that is an `entry` can be called by nova-compute, with any arguments, and nothing else
can. Each does one look or one change. None runs a command, and none hands out what a guest has
written: of an image it gives the header, and the whole only of a qcow2 file that is as small as an
overlay without data. The work itself is done by the functions that a nova-compute of root's would use.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from typing import Final, TypeVar

from oslo_privsep import capabilities, priv_context

from qmpsnap.formats.layers import Identity
from qmpsnap.formats.qcow2 import MAGIC, READ_SIZE, BadHeader, differ_in_format_alone, parse
from qmpsnap.guests.files import bytes as locked_bytes
from qmpsnap.guests.files import markers as marker_files
from qmpsnap.guests.files import neighbours, opened
from qmpsnap.openstack.nova.confined import (
    bases_of,
    check_roots_own,
    folder_of,
    parts_of,
    qemu,
    refused,
    regular,
)
from qmpsnap.openstack.nova.options import PRIVILEGED

WHOLE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of an overlay that is given whole. One without data has 200,000, for a disk of a TiB."""
WANTED_LIMIT: Final = 4096
HELD_LIMIT: Final = 1024
"""Files that are locked or watched at once."""
ANSWER_S: Final = 60.0
"""How long an answer may take: a share may hang."""
_MARKER: Final = re.compile(r"\.qmpsnap-[0-9a-f]{1,64}")
_MARKER_LIMIT: Final = 16 * 1024 * 1024
_FORMATS: Final = ("raw", "qcow2")
_LOCKS: Final = ((locked_bytes.BYTE, 1), *locked_bytes.QEMU)

context = priv_context.PrivContext(
    "qmpsnap.openstack.nova",
    cfg_section=PRIVILEGED,
    pypath=f"{__name__}.context",
    capabilities=[
        capabilities.CAP_SYS_PTRACE,
        capabilities.CAP_DAC_READ_SEARCH,
        capabilities.CAP_DAC_OVERRIDE,
    ],
    timeout=ANSWER_S,
)
F = TypeVar("F", bound=Callable[..., object])


def entry(function: F) -> F:
    """Let a function be called by nova-compute, to be carried out here."""
    wrapped: F = context.entrypoint(function)
    return wrapped


@cache
def _bases() -> tuple[str, ...]:
    """
    By the files of configuration that the helper was started with, which have to be root's.

    oslo.rootwrap lets privsep-helper through with any arguments (load_filters(), wrapper.py), so whoever
    asks may have started the helper with a file of his own.
    """
    import nova.conf

    conf = nova.conf.CONF
    folders = [str(one) for one in conf.config_dir or ()]
    inside = [os.path.join(folder, name) for folder in folders for name in os.listdir(folder)]
    for path in (*conf.config_file, *folders, *inside):
        check_roots_own(path)
    return bases_of(conf)


# --- images


@entry
def header(path: str) -> bytes:
    """See `Helper.header`."""
    with regular(path, _bases(), os.O_RDONLY) as file:
        data = os.pread(file, READ_SIZE, 0)
    return data if data.startswith(MAGIC) else b""


@entry
def whole(path: str) -> bytes:
    """See `Helper.whole`."""
    with regular(path, _bases(), os.O_RDONLY) as file:
        size = os.fstat(file).st_size
        if size > WHOLE_LIMIT:
            raise refused(path, f"it has {size} bytes, more than an overlay without data")
        with open(os.dup(file), "rb") as copied:
            data = copied.read(size)
    if not data.startswith(MAGIC):
        raise refused(path, "it does not begin as a qcow2 file")
    return data


@entry
def mend(path: str, before: bytes, after: bytes) -> None:
    """See `Helper.mend`."""
    try:
        if not differ_in_format_alone(before, after) or len(before) != len(after):
            raise refused(path, "more would change than the backing format")
        if (format_ := parse(after, path).backing_format) not in _FORMATS:
            raise refused(path, f"{format_!r} is no format of a volume")
    except BadHeader as error:
        raise refused(path, str(error)) from None
    with regular(path, _bases(), os.O_RDWR) as file:
        locked_bytes.keep_from_qemu(file)
        if locked_bytes.qemu_has(file):
            raise refused(path, "a QEMU has it open")
        if os.pread(file, len(before), 0) != before:
            raise refused(path, "its header is another one by now")
        if os.pwrite(file, after, 0) != len(after):
            raise OSError(errno.EIO, "the header was not written whole")
        os.fsync(file)


# --- markers


@entry
def write_marker(path: str, text: str) -> None:
    """See `Helper.write_marker`."""
    if len(text) > _MARKER_LIMIT:
        raise refused(path, "the marker is too long")
    with folder_of(path, _bases()) as (folder, name):
        _check_marker(path, name)
        marker_files.write_marker(f"{folder}/{name}", text)


@entry
def remove_marker(path: str) -> None:
    """See `Helper.remove_marker`."""
    with folder_of(path, _bases()) as (folder, name):
        _check_marker(path, name)
        marker_files.remove_marker(f"{folder}/{name}")


def _check_marker(path: str, name: str) -> None:
    if not _MARKER.fullmatch(name):
        raise refused(path, "that is no name of a marker")


@entry
def markers(folder: str) -> list[tuple[str, int | None, str | None, str]]:
    """See `Helper.markers`."""
    with folder_of(f"{folder}/{marker_files.PREFIX}", _bases()) as (held, _):
        found = marker_files.markers_in(held)
    return [(os.path.basename(one.path), one.owner, one.text, one.problem) for one in found]


# --- processes


@entry
def held(pid: int, started: int) -> tuple[list[tuple[Identity, tuple[str, ...]]], list[str], bool]:
    """See `Helper.held`."""
    with qemu(pid, started) as process:
        files = opened.files_of(process)
        numbers = (number for found in files.values() for number in found)
        writable = [number for number in numbers if opened.may_write(process, number)]
        return list(files.items()), writable, opened.is_elsewhere(process)


@entry
def in_root(pid: int, started: int, path: str) -> Identity | None:
    """See `Helper.in_root`; of volumes, and of block devices, of which libvirt makes nodes."""
    parts_of(path, (*_bases(), "/dev"))
    with qemu(pid, started) as process:
        return opened.in_root(f"{process}/root", path)


@entry
def opened_by(
    wanted: Collection[Identity], own: Identity | None, but: Collection[int]
) -> tuple[list[tuple[Identity, list[str]]], int, int]:
    """See `Helper.opened_by`."""
    if len(wanted) > WANTED_LIMIT:
        raise refused("all processes", f"more than {WANTED_LIMIT} files are asked for")
    found, seen, hidden = neighbours.processes_with(wanted, own, but=but)
    return list(found.items()), seen, hidden


# --- locks, and files that are synced later

_held: Final[dict[int, int]] = {}


@entry
def is_locked(path: str, start: int, length: int) -> bool:
    """See `Helper.is_locked`: of QEMU's bytes, and ours."""
    if (start, length) not in _LOCKS:
        raise refused(path, "that is no byte which is locked here")
    with regular(path, _bases(), os.O_RDONLY) as file:
        return locked_bytes.is_locked(file, start, length)


@entry
def lock(path: str) -> int:
    """See `Helper.lock`."""
    with regular(path, _bases(), os.O_RDWR) as file:
        try:
            locked_bytes.lock_byte(file)
        except PermissionError as error:  # EACCES, which means the same as EAGAIN: fcntl(2)
            raise BlockingIOError(errno.EAGAIN, error.strerror) from None
        return _keep(path, file)


@entry
def watch(path: str) -> int:
    """See `Helper.watch`."""
    with regular(path, _bases(), os.O_RDONLY) as file:
        return _keep(path, file)


@entry
def sync(number: int) -> None:
    """See `Helper.sync`."""
    descriptor = _held.get(number)
    if descriptor is None:
        raise OSError(errno.EBADF, "the helper was started again since, and does not have it open")
    os.fsync(descriptor)


@entry
def release(number: int) -> None:
    """See `Helper.release`."""
    with suppress(KeyError):
        os.close(_held.pop(number))


def _keep(path: str, descriptor: int) -> int:
    if len(_held) >= HELD_LIMIT:
        raise refused(path, f"{HELD_LIMIT} files are held already")
    number = secrets.randbits(48)
    _held[number] = os.dup(descriptor)  # the lock belongs to both
    return number


@entry
def ready() -> tuple[str, ...]:
    """The folders below which it works."""
    return _bases()
