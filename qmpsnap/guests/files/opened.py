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
from qmpsnap.graph.chain import node_path
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.guests.files.helper import instead_of, lent
from qmpsnap.guests.files.identity import identity, identity_of, image_identity
from qmpsnap.monitor.memory import qemu_process

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
    started: int = 0
    """As in `Process`, where a helper has looked."""
    writable: frozenset[str] | None = None
    """Descriptors by which it may write; None: they can be asked for."""

    def writes(self, file: Identity) -> bool:
        """Whether it has a file open for writing."""
        numbers = self.files.get(file, ())
        if self.writable is not None:
            return not self.writable.isdisjoint(numbers)
        return any(may_write(f"{_PROC}/{self.pid}", number) for number in numbers)

    def there(self, path: str) -> Identity | None:
        """
        What a name means to it; None: nothing.

        Raises:
            OSError: That cannot be seen.
        """
        try:
            return in_root(f"{_PROC}/{self.pid}/root", path)
        except PermissionError as error:
            return instead_of(error).in_root(self.pid, self.started, path)


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
    process = f"{_PROC}/{pid}"
    try:
        return Held(pid=pid, files=files_of(process), elsewhere=is_elsewhere(process))
    except PermissionError:
        return _held_by_helper(pid)
    except OSError as error:
        return Hidden(why=f"process {pid} cannot be looked at: {error.strerror}", here=True)


def _held_by_helper(pid: int) -> Held | Hidden:
    helper, process = lent(), qemu_process(pid)
    why = f"process {pid} is another user's"
    if helper is None or process is None:
        return Hidden(why=f"{why}: run as root", here=True)
    try:
        files, writable, elsewhere = helper.held(pid, process.started)
    except OSError as error:
        return Hidden(why=f"{why}, and {error.strerror}", here=True)
    return Held(
        pid=pid, files=files, elsewhere=elsewhere, started=process.started, writable=writable
    )


def files_of(process: str) -> dict[Identity, tuple[str, ...]]:
    """
    The files that a process has open, each with the numbers of its descriptors.

    Args:
        process: Its folder below `/proc`.

    Raises:
        OSError: It may not be looked at, or has ended.
    """
    files: dict[Identity, tuple[str, ...]] = {}
    folder = f"{process}/fd"
    for number, key in descriptors(folder, os.listdir(folder)):
        files[key] = (*files.get(key, ()), number)
    return files


def compared(report: Disks, seen: Held | Hidden) -> Disks:
    """Add to each layer what its name leads to, and whether QEMU has that open."""
    report = replace(
        report, disks=tuple(_compared(disk, report.graph, seen) for disk in report.disks)
    )
    return _placed(_read_twice(report))


def _read_twice(report: Disks) -> Disks:
    """
    Mark layers whose files the guest's QEMU has open by another node as well.

    So has libvirt two disks that rest on one template: each has its own nodes, down to the file.
    """
    users: dict[Identity, set[str]] = {}
    named = {layer.protocol_node for disk in report.disks for layer in disk.layers}
    for layer in (one for disk in report.disks for one in disk.layers):
        if layer.identity is not None and layer.protocol_node is not None:
            users.setdefault(layer.identity, set()).add(layer.protocol_node)
    for node in () if report.graph is None else _read(report.graph):
        path = None if node.name in named else node_path(node)
        if path is not None and (key := identity(path)) is not None:
            users.setdefault(key, set()).add(node.name)
    return replace(report, disks=tuple(_shared(disk, users) for disk in report.disks))


def _read(graph: Graph) -> Iterator[Node]:
    """The nodes that anything reads; one that nobody does only keeps its file from being removed."""
    read = {edge.child for edge in graph.edges} | graph.exported
    read |= {device.root for device in graph.devices if device.root is not None}
    yield from (node for name, node in graph.nodes.items() if name in read)


def _shared(disk: Disk, users: Mapping[Identity, set[str]]) -> Disk:
    own = {layer.protocol_node for layer in disk.layers}
    layers = tuple(
        replace(layer, is_read_twice=True)
        if layer.identity is not None and users.get(layer.identity, set()) - own
        else layer
        for layer in disk.layers
    )
    return replace(disk, layers=layers)


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


def may_write(process: str, number: str) -> bool:
    """Whether a process may write by a descriptor: by `flags` in proc(5), octal; False for what was closed in between."""
    try:
        with open(f"{process}/fdinfo/{number}", encoding="ascii") as file:
            flags = next(line for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return False
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def is_elsewhere(process: str) -> bool:
    """Whether names may mean something else to a process than here."""
    return not all(
        os.path.samestat(os.stat(f"{process}/{what}"), os.stat(f"{_PROC}/self/{what}"))
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
        try:
            there = seen.there(path)
        except OSError as error:
            why = f"what its name leads to where QEMU runs cannot be seen: {error.strerror}"
            return _marked(layer, NOT_SEEN, why)
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


def in_root(root: str, name: str) -> Identity | None:
    """
    What a name means below another root: there its symbolic links lead, too.

    Raises:
        PermissionError: This user may not look there.
    """
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
        except PermissionError:
            raise
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
    try:
        return image_identity(os.stat("/".join((root, *found))))
    except PermissionError:
        raise
    except OSError:
        return None
