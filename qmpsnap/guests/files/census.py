"""
Who uses the files of a folder: everybody who can be asked is asked once, about all of them.

A file is its identity, whatever its name. What somebody names and cannot be looked at is a gap:
then nothing can be called unused, because nobody knows what it names.

To look for *names* every file beside a chain is read, also those whose format nobody states. That
concludes nothing about their formats: a header that a guest wrote into its raw disk can only keep
a file from being called unused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Literal

import msgspec

from qmpsnap.formats.layers import Identity
from qmpsnap.formats.qcow2 import MAGIC, READ_SIZE, BadHeader, parse
from qmpsnap.graph.mentions import Mention, mentions
from qmpsnap.guests.files.folders import is_incomplete
from qmpsnap.guests.files.helper import instead_of
from qmpsnap.guests.files.identity import identity, names_to
from qmpsnap.guests.files.markers import markers_in
from qmpsnap.guests.files.mounts import file_system
from qmpsnap.guests.files.neighbours import loop_devices, processes_with

_WORDS: Final = (re.compile(rb"[\0/\"'=\n]"), re.compile(rb"[\0/\"'=\s,;:]"))
"""What may stand around a name: the first of these leaves names with blanks whole."""
_IMAGES: Final = (MAGIC, b"QED\0", b"KDMV", b"# Disk DescriptorFile")
"""How images begin that can name others: qcow2 and qcow, qed, vmdk."""
_LOCAL: Final = frozenset(
    {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
)
"""File systems that one host alone has mounted; of any other one somebody else may use a file."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a file."""

    by: Literal["process", "device", "guest", "record", "header"]
    who: str
    """For people."""
    guest: str | None = None
    """Its name, where it is one of libvirt's."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody said who was asked."""

    uses: Mapping[Identity, tuple[Use, ...]] = msgspec.field(default_factory=dict)
    asked: Mapping[str, int] = msgspec.field(default_factory=dict)
    """How many of each kind were asked, in words for people."""
    gaps: tuple[str, ...] = ()
    """Who could not be asked, and why."""

    def of(self, path: str) -> tuple[Use, ...]:
        """The uses of a file that is there."""
        key = identity(path)
        return self.uses.get(key, ()) if key is not None else ()


def together(answers: Iterable[Census]) -> Census:
    """Several answers as one."""
    uses: dict[Identity, list[Use]] = {}
    asked: dict[str, int] = {}
    gaps: list[str] = []
    for one in answers:
        for key, found in one.uses.items():
            uses.setdefault(key, []).extend(found)
        for kind, number in one.asked.items():
            asked[kind] = asked.get(kind, 0) + number
        gaps += one.gaps
    return Census(
        uses={key: tuple(dict.fromkeys(found)) for key, found in uses.items()},
        asked=asked,
        gaps=tuple(dict.fromkeys(gaps)),
    )


def beside(folder: str) -> dict[str, os.stat_result]:
    """
    The regular files of a folder by path, in the order of their names.

    Raises:
        OSError: It cannot be listed.
    """
    found = {}
    with os.scandir(folder) as entries:
        for one in entries:
            with suppress(FileNotFoundError):  # removed in between
                status = one.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[one.path] = status
    return dict(sorted(found.items()))


def links_beside(folder: str) -> dict[str, os.stat_result]:
    """
    The symbolic links of a folder to files elsewhere and block devices, with what they lead to.

    QEMU looks for the names in such a file from the folder of the link (path_combine(), block.c).

    Args:
        folder: The folder, without symbolic links.

    Raises:
        OSError: It cannot be listed.
    """
    found = {}
    with os.scandir(folder) as entries:
        for one in entries:
            with suppress(FileNotFoundError, NotADirectoryError):  # it leads nowhere
                if not one.is_symlink() or os.path.dirname(os.path.realpath(one.path)) == folder:
                    continue
                try:
                    status = one.stat()
                    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                        continue
                except PermissionError:  # reading it will say so
                    status = one.stat(follow_symlinks=False)
                found[one.path] = status
    return dict(sorted(found.items()))


def ask_headers(
    folder: str, files: Collection[str], *, again: Collection[str] | None = None
) -> Census:
    """
    Whom the files of a folder name, each in its first bytes.

    Args:
        folder: The folder.
        files: Its regular files, and its links to others.
        again: Those to be read, which were counted before; None: all of them.
    """
    by_name = _by_name(files)
    uses: dict[Identity, list[Use]] = {}
    gaps = []
    for path in files if again is None else again:
        try:
            data = _beginning(path)
            named = {*_names(data, path, by_name)} - {path}
        except FileNotFoundError:
            continue  # removed in between
        except BadHeader as error:
            gaps.append(
                f"{path} begins like a qcow2 image, and what it names cannot be read: {error.reason}"
            )
            continue
        except OSError as error:
            gaps.append(f"{path} cannot be read, so what it names is not known: {error.strerror}")
            continue
        for target in named:
            key = identity(target)
            if key is not None and key != identity(path):
                uses.setdefault(key, []).append(Use(by="header", who=f"named in {path}"))
    return Census(
        uses={key: tuple(found) for key, found in uses.items()},
        asked={f"files in {folder}": len(files)} if again is None else {},
        gaps=tuple(gaps),
    )


def images_naming(path: str) -> tuple[str, ...]:
    """The images beside a file whose headers name it; what may not be read may name it too."""
    found, closed = images_resting_on([path])
    return (*found.get(path, ()), *(f"perhaps {one}, which may not be read" for one in closed))


def images_resting_on(paths: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    The images beside files whose headers name them.

    Returns:
        Them by the path of what they name; and what this user may not read.
    """
    paths = tuple(paths)
    found: dict[str, tuple[str, ...]] = {}
    closed: list[str] = []
    for folder, names in folders_of(paths).items():
        naming, unread = images_in(folder, names, paths)
        for path, images in naming.items():
            found[path] = (*found.get(path, ()), *images)
        closed += unread
    return found, tuple(closed)


def folders_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """
    The folders in which files have a name, with these names.

    A symbolic link gives a file a name in the folder of the link, in that of its target, and in that
    of each link in between. An image that rests on the file may be in any of them.
    """
    found: dict[str, list[str]] = {}
    spelled: dict[str, str] = {}
    for path in paths:
        for name in names_to(path):
            folder = os.path.dirname(name) or "/"
            folder = spelled.setdefault(os.path.realpath(folder), folder)
            found.setdefault(folder, []).append(name)
    return found


def images_in(
    folder: str, names: Collection[str], paths: Iterable[str]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    The images of one folder whose headers name files.

    Only what begins as an image does: another file may have a name in it for any reason.

    Args:
        folder: The folder.
        names: What lies in it, of the files.
        paths: The files.

    Returns:
        As `images_resting_on`.
    """
    wanted = {key: path for path in paths if (key := identity(path)) is not None}
    by_name = _by_name(names)
    found: dict[str, tuple[str, ...]] = {}
    closed = []
    try:
        others = {**beside(folder), **links_beside(os.path.realpath(folder))}
    except PermissionError:
        return {}, (folder,)
    except OSError:
        return {}, ()
    for other in others:
        if is_incomplete(os.path.basename(other)):
            continue  # a second name of an overlay that is in use now, or that nobody will use
        try:
            data = _beginning(other)
        except PermissionError:
            closed.append(other)
            continue
        except OSError:
            continue
        if not data.startswith(_IMAGES):
            continue
        try:
            named = [*_names(data, other, by_name)]
        except BadHeader:  # of another version
            named = [*_mentioned(data, by_name)]
        own = identity(other)
        for key in dict.fromkeys(identity(one) for one in named):
            if key is not None and key != own and (path := wanted.get(key)) is not None:
                found[path] = (*found.get(path, ()), other)
    return found, tuple(closed)


def _beginning(path: str) -> bytes:
    # O_NOFOLLOW: it may have become a link, to a file that is not to be opened.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(os.path.realpath(path) if os.path.islink(path) else path, flags)
    except PermissionError as error:
        return instead_of(error).header(path)  # of a qcow2 file; nothing of any other
    try:
        return os.pread(descriptor, READ_SIZE, 0)
    finally:
        os.close(descriptor)


def _names(data: bytes, path: str, by_name: Mapping[bytes, str]) -> Iterator[str]:
    """
    Files that the first bytes of a file name.

    Raises:
        BadHeader: They would be a qcow2 header, and it cannot be read.
    """
    if not data.startswith(MAGIC):
        yield from _mentioned(data, by_name)
        return
    header = parse(data, path)
    for name in (header.backing_file, header.data_file):
        if name:
            yield from _mentioned(name.encode("utf-8", "surrogateescape"), by_name)
            yield from named_by(path, name)


def named_by(path: str, name: str) -> Iterator[str]:
    """Where a name leads that stands in the header of a file; nothing for what is no local file."""
    for one in mentions(name):
        yield from places(os.path.dirname(path), one)


def places(folder: str, one: Mention) -> Iterator[str]:
    """
    Where a file may lie that is named in a file of a folder.

    What stands behind a colon or in a tree is not looked for from there, but from where QEMU was
    started: `/` under libvirt (path_has_protocol() in bdrv_get_full_backing_filename(), block.c).
    """
    if not one.name or "\0" in one.name:
        return
    path = os.path.join(folder, one.name)
    if one.is_plain:
        yield path
        return
    for there in dict.fromkeys((path, os.path.join("/", one.name))):
        if os.path.lexists(there):
            yield there


def _mentioned(data: bytes, by_name: Mapping[bytes, str]) -> Iterator[str]:
    """Files of the folder whose bare names stand somewhere in the data: vmdk extents, JSON, lists."""
    for pattern in _WORDS:
        for word in by_name.keys() & set(pattern.split(data)):
            yield by_name[word]


def ask_markers(folder: str, files: Collection[str]) -> Census:
    """
    Which files interrupted operations work on, of this host or another one, by their markers.

    A marker may forbid, whoever wrote it; it is itself in use until `resume` has settled it.
    """
    by_name = _by_name(files)
    uses: dict[Identity, list[Use]] = {}
    gaps = []
    found = markers_in(folder)
    for marker in found:
        use = Use(by="record", who=f"the interrupted operation of {marker.path}")
        named = {marker.path, *_mentioned((marker.text or "").encode(), by_name)}
        for path in named:
            if (key := identity(path)) is not None:
                uses.setdefault(key, []).append(use)
        if marker.text is None:
            gaps.append(f"{marker.path} is a marker and cannot be read: {marker.problem}")
    return Census(
        uses={key: tuple(those) for key, those in uses.items()},
        asked={"markers of interrupted operations": len(found)} if found else {},
        gaps=tuple(gaps),
    )


def _by_name(files: Collection[str]) -> dict[bytes, str]:
    return {os.path.basename(path).encode("utf-8", "surrogateescape"): path for path in files}


def ask_processes(files: Iterable[str]) -> Census:
    """Which processes of this host have which of the files open, and which loop devices."""
    wanted = {key for path in files if (key := identity(path)) is not None}
    users, seen, hidden = processes_with(wanted)
    uses = {key: tuple(Use(by="process", who=who) for who in found) for key, found in users.items()}
    gaps = (f"{hidden} processes of other users could not be looked at: run as root",) * bool(
        hidden
    )
    answer = Census(uses=uses, asked={"processes of this host": seen}, gaps=gaps)
    return together((answer, _loop_devices()))


def _loop_devices() -> Census:
    """The kernel holds these files itself: no process has them open."""
    uses = {key: (Use(by="device", who=who),) for key, who in loop_devices().items()}
    return Census(uses=uses)


def ask_file_system(folder: str) -> Census:
    """Whether other hosts may have the same folder: those cannot be asked."""
    kind = file_system(folder)
    if kind in _LOCAL:
        return Census()
    told = kind or "an unknown file system"
    return Census(gaps=(f"{folder} is on {told}: other hosts that use it were not asked",))
