"""
What a QEMU has open, and whether the names of a disk's layers still lead there.

A file that was replaced (by a restore, rsync, mv) or unlinked under the running guest leaves QEMU
with the old one, and the name with another or none: the next start, an overlay that names it, and
whoever removes it go by the name. So each layer has three answers that must be one: what its name
means here, what it means to QEMU (in its own root and mount namespace: libvirt gives each guest a
private `/dev`), and what QEMU has open.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.layers import (
    NOT_HERE,
    NOT_SEEN,
    REPLACED,
    TEMPORARY,
    Disk,
    Disks,
    Identity,
    Layer,
)
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests.files.identity import identity, identity_of

_PROC: Final = "/proc"
_LOCAL: Final = frozenset({"file", "host_device"})
_LINKS: Final = 40
"""How many symbolic links a name may lead through, as in the kernel (MAXSYMLINKS)."""
_PASSED: Final = "/dev/fdset/"
"""How QEMU names a descriptor that was passed to it."""

_TEMPORARY: Final = re.compile(r"vl\.\w{6}")
"""QEMU's overlay for `snapshot=on`, which it unlinks at once (create_tmp_file(), block.c)."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The files that one process has open."""

    pid: int
    files: Mapping[Identity, tuple[str, ...]]
    """By the numbers of its descriptors."""
    elsewhere: bool
    """Whether names may mean something else to it than here: another root or mount namespace."""

    def writes(self, file: Identity) -> bool:
        """Whether it has a file open for writing."""
        return any(_may_write(self.pid, number) for number in self.files.get(file, ()))


class Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """Why it cannot be seen what a QEMU has open."""

    why: str
    here: bool
    """Whether it certainly runs on this host, so that its names mean files of this host."""


def descriptors(folder: str, numbers: Iterable[str]) -> Iterator[tuple[str, Identity]]:
    """
    Yield the files among the descriptors of a process.

    Most descriptors are sockets, pipes and the like, whose names do not begin with a slash. To
    read a name takes a fifth of a `stat`; a file that was deleted keeps its old name, with a
    word behind it.

    Args:
        folder: `/proc/PID/fd`.
        numbers: What is in there.

    Raises:
        OSError: It is kept from us, even from root in some containers.
    """
    for number in numbers:
        path = f"{folder}/{number}"
        try:
            name = os.readlink(path)
        except FileNotFoundError:
            continue  # closed
        if name.startswith("/") and (key := identity(path)) is not None:
            yield number, key


def held_by(pid: int | None, unknown: Hidden) -> Held | Hidden:
    """
    Look at what a QEMU has open.

    Args:
        pid: Its process; None where it is not known.
        unknown: Why it is not.
    """
    if pid is None:
        return unknown
    files: dict[Identity, tuple[str, ...]] = {}
    try:
        folder = f"{_PROC}/{pid}/fd"
        for number, key in descriptors(folder, os.listdir(folder)):
            files[key] = (*files.get(key, ()), number)
        return Held(pid=pid, files=files, elsewhere=_is_elsewhere(pid))
    except PermissionError:
        return Hidden(why=f"process {pid} is another user's: run as root", here=True)
    except OSError as error:
        return Hidden(why=f"process {pid} cannot be looked at: {error.strerror}", here=True)


def compared(report: Disks, seen: Held | Hidden) -> Disks:
    """Add to each layer what its name leads to, and whether QEMU has that open."""
    report = replace(
        report, disks=tuple(_compared(disk, report.graph, seen) for disk in report.disks)
    )
    return _placed(report)


def identified(report: Disks) -> Disks:
    """Add to each layer what its name leads to; of a guest that is off, which has nothing open."""

    def look(layer: Layer) -> Layer:
        if layer.path is None or not _is_local(layer):
            return layer
        return replace(layer, identity=identity(layer.path))

    return _placed(_with_layers(report, look))


def _placed(report: Disks) -> Disks:
    """Add to each layer where its folder really is: one folder may have many names."""
    known: dict[str, str] = {}

    def look(layer: Layer) -> Layer:
        if layer.path is None or not _is_local(layer):
            return layer
        name = os.path.dirname(layer.path)
        if name not in known:
            known[name] = os.path.realpath(name)
        return replace(layer, folder=known[name])

    return _with_layers(report, look)


def unseen(report: Disks, why: str) -> Disks:
    """Mark all layers of a guest on another host, where the same names are other files."""
    return _with_layers(
        report, lambda layer: layer if layer.path is None else _marked(layer, NOT_SEEN, why)
    )


def _with_layers(report: Disks, change: Callable[[Layer], Layer]) -> Disks:
    return replace(
        report,
        disks=tuple(
            replace(disk, layers=tuple(change(layer) for layer in disk.layers))
            for disk in report.disks
        ),
    )


def _may_write(pid: int, number: str) -> bool:
    """By `flags` in proc(5), octal; False for what was closed in between."""
    try:
        with open(f"{_PROC}/{pid}/fdinfo/{number}", encoding="ascii") as file:
            flags = next(line for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return False
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _is_elsewhere(pid: int) -> bool:
    return not all(
        os.path.samestat(os.stat(f"{_PROC}/{pid}/{what}"), os.stat(f"{_PROC}/self/{what}"))
        for what in ("ns/mnt", "root")
    )


def _is_local(layer: Layer) -> bool:
    """Whether a layer is a file or block device that has a name which means the same to everybody."""
    return layer.path is not None and layer.path.startswith("/") and layer.protocol in _LOCAL


def _compared(disk: Disk, graph: Graph | None, seen: Held | Hidden) -> Disk:
    looked = [_layer(one, graph, seen) if _is_local(one) else one for one in disk.layers]
    times = Counter(one.identity for one in looked if one.identity is not None)
    layers = []
    for position, one in enumerate(looked):
        if one.identity is not None and times[one.identity] > 1:
            one = _marked(one, REPLACED, "it is the same file as another layer of its chain")
        elif position == 0 and isinstance(seen, Held) and _is_swapped(looked, seen):
            one = _marked(one, REPLACED, "QEMU writes to another layer, and only reads this one")
        layers.append(one)
    return replace(disk, layers=tuple(layers))


def _is_swapped(layers: list[Layer], seen: Held) -> bool:
    """
    Whether the active file and another one of the chain have each other's name.

    The active one is open for writing, and so is the base while it is committed into. None is in a
    guest that has not arrived yet.
    """
    active, *lower = (one.identity for one in layers)
    if active is None or not lower or seen.writes(active):
        return False
    return any(one is not None and seen.writes(one) for one in lower)


def _layer(layer: Layer, graph: Graph | None, seen: Held | Hidden) -> Layer:
    path = layer.path
    assert path is not None
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return _missing(layer, path, seen, error)
    here = identity_of(status)
    layer = replace(layer, identity=here)
    if isinstance(seen, Hidden):
        return _marked(layer, NOT_SEEN, seen.why)
    if here not in seen.files:
        return _marked(layer, REPLACED, "its name leads to another file now")
    if seen.elsewhere and not _is_passed(layer, graph):
        there = _in_root(f"{_PROC}/{seen.pid}/root", path)
        if there != here and (there is not None or graph is not None):
            what = "another file" if there is not None else "no file"
            return _marked(layer, REPLACED, f"its name leads to {what} where QEMU runs")
    return layer


def _missing(layer: Layer, path: str, seen: Held | Hidden, error: Exception) -> Layer:
    what = "its name leads to no file"
    if _TEMPORARY.fullmatch(os.path.basename(path)):
        return _marked(layer, TEMPORARY, "QEMU has unlinked it by itself")
    if isinstance(error, PermissionError):
        return _marked(layer, NOT_SEEN, "this user may not look it up: run as root")
    if isinstance(seen, Hidden) and not seen.here:
        return _marked(_marked(layer, NOT_SEEN, seen.why), NOT_HERE, f"{what} on this host")
    return _marked(layer, REPLACED, f"{what} any more")


def _is_passed(layer: Layer, graph: Graph | None) -> bool:
    """Whether QEMU has it by a passed descriptor, so that it knows no name of it."""
    node = graph.nodes.get(layer.protocol_node or "") if graph is not None else None
    return node is not None and node.filename.startswith(_PASSED)


def _marked(layer: Layer, flag: str, why: str) -> Layer:
    flags = layer.flags if flag in layer.flags else (*layer.flags, flag)
    return replace(layer, flags=flags, sight=why)


def _in_root(root: str, name: str) -> Identity | None:
    """What a name means below another root: there its symbolic links lead, too."""
    left = deque(name.split("/"))
    found: list[str] = []
    links = 0
    while left:
        part = left.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            del found[-1:]
            continue
        try:
            target = os.readlink("/".join((root, *found, part)))
        except OSError as error:
            if error.errno != errno.EINVAL:
                return None
            found.append(part)  # no link
            continue
        links += 1
        if links > _LINKS:
            return None
        if target.startswith("/"):
            found.clear()
        left.extendleft(reversed(target.split("/")))
    return identity("/".join((root, *found)))
